"""Read os-release(5), which names the distribution of a root."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from pkgjail.core.model import Distribution, text_path

if TYPE_CHECKING:
    from pkgjail.backends.root import Root


def read_distribution(root: Root) -> Distribution:
    """Return `ID` and `VERSION_ID`, preferably from /etc; links are resolved inside the root."""
    fields = read_release(root)
    return Distribution(id=fields.get("ID", "linux"), version=fields.get("VERSION_ID", ""))


def read_release(root: Root) -> dict[str, str]:
    """Return all fields of the file that `read_distribution` reads."""
    for candidate in (b"/etc/os-release", b"/usr/lib/os-release"):
        path = root.inside(candidate)
        if os.path.lexists(path):
            return _os_release(root, path)
    raise root.error(
        "it has neither etc/os-release nor usr/lib/os-release",
        "install the package that has it",
    )


def _os_release(root: Root, path: bytes) -> dict[str, str]:
    fields = {}
    for number, line in enumerate(text_path(root.read(path)).split("\n"), 1):
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        with root.parsing(b"%s:%d" % (path, number), "quote the value as os-release(5) says"):
            words = shlex.split(value)
        fields[name] = " ".join(words)
    return fields
