"""Temporary directories that are removed however their makers end: one that was killed leaves it to the next.

Such a directory is the user's alone, and is locked (flock(2)) while it is used: the kernel lets go of the
lock when its maker dies. A program of a stranger's root may write there: whatever it leaves is removed by
descriptors, no link is followed, and no mode of what a link leads to is changed.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkgjail.storage.locations import temporary_directory
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABOVE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_YOUNG = 60.0  # seconds: its maker may not have locked it yet


@contextmanager
def scratch(name: str) -> Iterator[str]:
    """A new directory, removed at the end. Those of the same `name` that nobody uses go too.

    Raises `OSError` where none can be made.
    """
    prefix = f"pkgjail-{name}-"
    with suppress(OSError):
        _sweep(temporary_directory(), prefix)
    place = tempfile.mkdtemp(prefix=prefix, dir=temporary_directory())
    descriptor = os.open(place, _DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(descriptor)
        above = os.open(os.path.dirname(place), _ABOVE)
        try:
            remove_tree(above, os.path.basename(place))
        finally:
            os.close(above)


def _sweep(directory: str, prefix: str) -> None:
    """Remove what killed processes of this user left in `directory`."""
    above = os.open(directory, _ABOVE)
    try:
        for name in os.listdir(above):
            if name.startswith(prefix):
                with suppress(OSError):  # somebody else's, or in use, or gone meanwhile
                    _remove(above, name)
    finally:
        os.close(above)


def _remove(above: int, name: str) -> None:
    """Remove a directory and what is in it, by descriptors. Raises `OSError` where it is not left over."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or time.time() - found.st_mtime < _YOUNG:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(above, name)
    finally:
        os.close(descriptor)
