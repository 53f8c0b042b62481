"""Remove what pkgjail stored: by descriptor, below a directory that was checked, and nothing else.

In every function, `directory` is a descriptor from `pkgjail.storage.own_files.open_directory`. No link is
followed, and no mount is entered: what is mounted there, another file system or a part of this one, is not
pkgjail's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.storage.own_files import NEW_PREFIX, REMOVED_PREFIX, is_same_file, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE = ".probe"
"""The name of the directory that `pkgjail.jails.probe` tries things out in."""
_ENDING_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_OWNER_ALL = 0o700
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Delay signals that end the process until something half-made is complete: 0.2 s at most."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_left_over(name: str) -> bool:
    """Return whether a name was left by a killed writer, or belongs to one that has not finished."""
    return name.startswith((NEW_PREFIX, REMOVED_PREFIX)) or name == PROBE


def make_locked_directory(directory: int, name: str) -> int:
    """Make a directory (mode 0700) that `remove_unused` spares while the returned descriptor is open.

    Raises:
        OSError: it cannot be made; `FileNotFoundError` if somebody removed it before it was locked.

    """
    os.mkdir(name, 0o700, dir_fd=directory)
    os.chmod(name, 0o700, dir_fd=directory)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not is_same_file(descriptor, directory, name):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return descriptor


def remove_unused(directory: int, name: str) -> bool:
    """Remove a name unless a process has locked it (flock(2)); returns whether it was removed.

    A directory is renamed first, so that nobody enters a half-removed one. Raises `OSError`.
    """
    mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    if not mode & stat.S_IRUSR or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        remove_tree(directory, name)  # nobody can have locked it
        return True
    if stat.S_ISREG(mode) and mode & _OTHERS_READ:
        remove_tree(directory, name)  # anybody can have locked it, and pkgjail does not
        return True
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with signals_blocked():
            remove_tree(directory, set_aside(directory, name))
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_tree(directory: int, name: str) -> None:
    """Remove a name and everything below it, at any depth and whatever the modes.

    Raises:
        OSError: something in it cannot be removed; `EXDEV` for a mount.

    """
    mount = _mount(directory)
    while not _try_to_remove(directory, name, mount):
        pass


def _try_to_remove(directory: int, name: str, mount: bytes) -> bool:
    """Remove it; returns False if another process, which also removes leftovers, took a part of it."""
    try:
        for parent, each, is_directory in walk_bottom_up(directory, name, partial(_open_to_empty, mount)):
            (os.rmdir if is_directory else os.unlink)(each, dir_fd=parent)
    except FileNotFoundError:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        return False
    return True


def walk_bottom_up(
    directory: int, name: str, open_inner: Callable[[int, str], int | None]
) -> Iterator[tuple[int, str, bool]]:
    """Yield everything below a name, then the name: parent descriptor, name, and whether it is a directory.

    It has two descriptors open at a time, at any depth: a manifest may have more levels than a process may
    have descriptors, or nested calls. `..` leads back up.

    Args:
        directory: where the name is.
        name: where to start; no link is followed.
        open_inner: opens a directory for reading, given its parent and name; None to skip its contents.

    Raises:
        OSError: `open_inner` failed, or a directory was moved meanwhile.

    """
    here = os.open(".", _READ, dir_fd=directory)
    # For each directory entered: its name, its parent's identity, and the names still to visit there.
    entered: list[tuple[str, tuple[int, int], list[str]]] = []
    names = [name]
    try:
        while names or entered:
            if not names:
                each, parent, names = entered.pop()
                here = _swap(here, os.open("..", _READ, dir_fd=here))
                if _identity(here) != parent:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), each)
                yield here, each, True
                continue
            each = names.pop()
            is_directory = stat.S_ISDIR(os.stat(each, dir_fd=here, follow_symlinks=False).st_mode)
            inner = open_inner(here, each) if is_directory else None
            if inner is None:
                yield here, each, is_directory
                continue
            entered.append((each, _identity(here), names))
            here = _swap(here, inner)
            names = os.listdir(here)
    finally:
        os.close(here)


def _identity(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def _swap(old: int, new: int) -> int:
    """Close `old`; returns `new`."""
    os.close(old)
    return new


def _open_to_empty(mount: bytes, directory: int, name: str) -> int:
    """Open a directory in `directory` for reading, and give its owner all rights to it."""
    path_only = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if _mount(path_only) != mount:
            raise OSError(errno.EXDEV, "is a mount, which pkgjail did not make", name)
        _allow_owner(path_only)
        return os.open(".", _READ, dir_fd=path_only)
    finally:
        os.close(path_only)


def _allow_owner(directory: int) -> None:
    """Give the owner all rights to a directory, by a descriptor that need not be readable."""
    if os.fstat(directory).st_mode & _OWNER_ALL != _OWNER_ALL:
        # A full disk may refuse this. Most directories can be removed anyway; if not, that fails later.
        with contextlib.suppress(OSError):
            os.chmod(f"/proc/self/fd/{directory}", _OWNER_ALL)


def _mount(descriptor: int) -> bytes:
    """Return the mount of a descriptor: the device number does not tell bind mounts apart."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
