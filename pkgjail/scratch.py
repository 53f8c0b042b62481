"""Temporary directories that are removed however their makers end: one that was killed leaves it to the next.

Such a directory is the user's alone, has files and no directories, and is locked (flock(2)) while it is used:
the kernel lets go of the lock when its maker dies.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkgjail.places import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_YOUNG = 60.0  # seconds: its maker may not have locked it yet


@contextmanager
def scratch(name: str) -> Iterator[str]:
    """A new directory for files, removed at the end. Those of the same `name` that nobody uses go too.

    Raises `OSError` where none can be made.
    """
    prefix = f"pkgjail-{name}-"
    with suppress(OSError):
        _sweep(temporary_directory(), prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=temporary_directory()) as place:
        descriptor = os.open(place, _DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield place
        finally:
            os.close(descriptor)


def _sweep(directory: str, prefix: str) -> None:
    """Remove what killed processes of this user left in `directory`."""
    above = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(above):
            if name.startswith(prefix):
                with suppress(OSError):  # somebody else's, or in use, or gone meanwhile
                    _remove(above, name)
    finally:
        os.close(above)


def _remove(above: int, name: str) -> None:
    """Remove a directory and its files, all by descriptors. Raises `OSError` where it is not left over."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or time.time() - found.st_mtime < _YOUNG:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in os.listdir(descriptor):
            os.unlink(file, dir_fd=descriptor)
        os.rmdir(name, dir_fd=above)
    finally:
        os.close(descriptor)
