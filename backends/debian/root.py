"""dpkg's directory below a root."""

from __future__ import annotations

import os

from pkgjail.backends import root as shared
from pkgjail.backends.root import CORRECT

__all__ = ["CORRECT", "Root"]

_ADMIN = b"/var/lib/dpkg"


class Root(shared.Root):
    """The directory `path` as dpkg's database; every failure is a `DatabaseError` that names it."""

    def __init__(self, path: bytes) -> None:
        """Find dpkg's directory below the absolute `path`, links resolved inside the root."""
        super().__init__(path)
        self._admin = self.inside(_ADMIN)

    def status_file(self) -> bytes:
        """Return the path of dpkg's status file, which may itself be a link."""
        return self.inside(_ADMIN + b"/status")

    def admin(self, *names: bytes) -> bytes:
        """Return the path of a file or directory in dpkg's directory."""
        return os.path.join(self._admin, *names)
