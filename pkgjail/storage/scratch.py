"""Temporary directories that are removed even if the process that made them is killed: by the next run.

Such a directory is private to the user, and locked (flock(2)) while it is in use: the kernel drops the lock
when the process ends. A program from an untrusted root may write there, so everything is removed by
descriptor: no link is followed, and no mode of a link's target is changed.
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
_PARENT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_YOUNG_SECONDS = 60.0  # it may not be locked yet


@contextmanager
def scratch(name: str) -> Iterator[str]:
    """Make a new directory and remove it at the end. Unused ones of the same `name` are removed too.

    Raises:
        OSError: it cannot be made.

    """
    prefix = f"pkgjail-{name}-"
    with suppress(OSError):
        _remove_unused(temporary_directory(), prefix)
    path = tempfile.mkdtemp(prefix=prefix, dir=temporary_directory())
    descriptor = os.open(path, _DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(descriptor)
        parent = os.open(os.path.dirname(path), _PARENT)
        try:
            remove_tree(parent, os.path.basename(path))
        finally:
            os.close(parent)


def _remove_unused(directory: str, prefix: str) -> None:
    """Remove what killed processes of this user left in `directory`."""
    parent = os.open(directory, _PARENT)
    try:
        for name in os.listdir(parent):
            if name.startswith(prefix):
                with suppress(OSError):  # it is another user's, in use, or gone
                    _remove_if_unused(parent, name)
    finally:
        os.close(parent)


def _remove_if_unused(parent: int, name: str) -> None:
    """Remove a directory and its contents by descriptor. Raises `OSError` if it is in use."""
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        found = os.fstat(descriptor)
        age = time.time() - found.st_mtime
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or age < _YOUNG_SECONDS:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(parent, name)
    finally:
        os.close(descriptor)
