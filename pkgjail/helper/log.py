"""The log of the service: one bounded line for each act, on standard error, where the journal reads it.

What a client sent is escaped, so that it cannot look like another line.
"""

from __future__ import annotations

import os
import sys

from pkgjail.core.text import printable
from pkgjail.core.untrusted import shortened

_MOST_VALUE, _MOST_LINE = 200, 1000  # characters


def log(act: str, **facts: object) -> None:
    """Write one line: an act, and facts about it."""
    words = " ".join(f"{name}={_value(value)}" for name, value in facts.items())
    line = shortened(f"pkgjaild[{os.getpid()}]: {act} {words}".rstrip(), _MOST_LINE)
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        os.write(sys.stderr.fileno(), data)
    except (OSError, ValueError):  # whoever reads the log has gone
        return


def _value(value: object) -> str:
    text = printable(shortened(str(value), _MOST_VALUE))
    return text if text and " " not in text and '"' not in text else '"' + text.replace('"', "'") + '"'
