"""Configuration files that maintainer scripts install by ucf(1), by its record of them."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from pkgjail.backends.root import normal_path
from pkgjail.backends.unowned import generated
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import DATABASE

if TYPE_CHECKING:
    from pkgjail.backends.debian.root import Root
    from pkgjail.core.model import Generated

_UCF = b"/var/lib/ucf/registry"
# Where ucf's files are configuration. What others may not read can have passwords, so it is left out.
_TOPS = (b"/etc/", b"/usr/")
_SPECIAL = re.compile(r"([*?\[])")


def read_ucf(root: Root) -> tuple[Generated, ...]:
    """Return a row for each configuration file that ucf installed for a package, and others may read.

    A line of the registry is the package and the path. Lines that are not are ignored, as ucf does.
    """
    found: dict[str, str] = {}
    for line in root.read(root.inside(_UCF), missing=b"", limit=DATABASE).split(b"\n"):
        package, _, path = line.partition(b"\t")
        path = path.strip(b" ")
        if package.strip() and path.startswith(_TOPS) and _is_normal(path) and _others_may_read(root, path):
            found[text_path(path)] = package.strip().decode("utf-8", "surrogateescape")
    return tuple(
        row
        for path, package in found.items()
        for row in generated(package, "ucf", _SPECIAL.sub(r"[\1]", path))
    )


def _is_normal(path: bytes) -> bool:
    try:
        return normal_path(path) == path
    except ValueError:
        return False


def _others_may_read(root: Root, path: bytes) -> bool:
    try:
        found = os.lstat(root.inside(path))
    except OSError:
        return False
    return bool(found.st_mode & stat.S_IROTH)
