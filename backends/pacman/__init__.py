"""The pacman backend: the local database of Arch Linux and its derivatives, read directly.

local      the records of packages and their files
versions   pacman's order of versions
relations  requirements
generated  the allow-list of unowned files
database   all of these as one `PackageDatabase`
"""

from __future__ import annotations

from pkgjail.backends.pacman.database import PacmanDatabase

__all__ = ["PacmanDatabase", "open_database"]


def open_database(root: bytes) -> PacmanDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return PacmanDatabase(root)
