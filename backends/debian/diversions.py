"""The diversions of dpkg-divert(1): files of packages that are kept under another name."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pkgjail.core.text import text_path
from pkgjail.core.untrusted import DATABASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.backends.debian.root import Root
    from pkgjail.core.model import Package

_RESTORE = "restore the file from diversions-old or a backup"


class Diversions:
    """The diversions of a root, read when needed."""

    def __init__(self, root: Root) -> None:
        """Read nothing yet."""
        self._root = root

    def moved(self, path: bytes, package: Package) -> bytes:
        """Return where `path` of `package` is: a package's diversion moves the files of all others."""
        target, owner = self.targets.get(path, (path, package.name))
        return path if owner == package.name else target

    @cached_property
    def targets(self) -> Mapping[bytes, tuple[bytes, str]]:
        """Diverted path -> (its new path, the package that diverts; ":" is the administrator)."""
        path = self._root.admin(b"diversions")
        data = self._root.read(path, missing=b"", limit=DATABASE)
        lines = data.split(b"\n")[:-1]
        if len(lines) % 3 or (data and not data.endswith(b"\n")):
            raise self._root.error(f"{text_path(path)}: a diversion has three lines", _RESTORE)
        diverted = self._root.normal_paths(path, lines[0::3], first=1, step=3)
        targets = self._root.normal_paths(path, lines[1::3], first=2, step=3)
        return dict(zip(diverted, zip(targets, map(text_path, lines[2::3]))))
