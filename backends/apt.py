"""The apt backend: dpkg's status file, read by the parser and the version order of libapt-pkg.

apt's own cache is left alone: it costs ten times as much, and counts `apt` as essential.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import apt_pkg  # pyright: ignore[reportMissingImports]  (not on every host)

from pkgjail.backends.debian import FIELDS, DebianDatabase, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator


# As apt's own reader of whole files takes it.
_BETWEEN = re.compile(rb"\n\n+")


class AptReader:
    """A `debian.Reader` on python-apt. Making one initialises apt's packaging system."""

    name = "apt"

    def __init__(self) -> None:
        # apt's configuration files stay unread: none of them bears on versions or stanzas.
        apt_pkg.init_system()

    def stanzas(self, data: bytes) -> Iterator[dict[str, str]]:
        """Each stanza's `FIELDS`, in the order of the file."""
        try:
            for stanza in filter(None, _BETWEEN.split(data)):
                section = apt_pkg.TagSection(stanza + b"\n", bytes=True)
                # TagSection is a mapping whose iteration Python 3.11's stubs do not know of.
                yield {key: text_field(section[key]) for key in section.keys() if key in FIELDS}  # noqa: SIM118
        except (SystemError, apt_pkg.Error) as error:
            raise ValueError(str(error)) from error

    def compare(self, left: str, right: str) -> int:
        """Negative, 0 or positive, as `left` is the older, the same or the newer version."""
        return int(apt_pkg.version_compare(left, right))


def open_database(root: bytes) -> DebianDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return DebianDatabase(root, AptReader())
