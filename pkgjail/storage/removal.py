"""How what pkgjail keeps is removed: by descriptor, below a directory that was looked at, and nothing else.

`directory` is everywhere a descriptor of `pkgjail.storage.locations.open_directory`. No link is followed,
and no
mount is gone into: what is mounted there, another filesystem or a part of this one, is not pkgjail's.
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

from pkgjail.storage.locations import GOING, NEW, is_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROBE = ".probe"
"""The directory of a try-out (`pkgjail.jail.probe`)."""
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_OWNERS = 0o700
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals that end a process wait while something of it lies about half made: 0.2 s at most."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_left_over(name: str) -> bool:
    """Whether only a writer that was killed, or one that is at work, can have left this name."""
    return name.startswith((NEW, GOING)) or name == PROBE


def make_in_use(directory: int, name: str) -> int:
    """Make a directory (mode 0700) that `remove_unused` leaves alone while the descriptor is open.

    Raises `OSError`; `FileNotFoundError` where somebody removed it before it could be locked.
    """
    os.mkdir(name, 0o700, dir_fd=directory)
    os.chmod(name, 0o700, dir_fd=directory)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not is_at(descriptor, directory, name):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return descriptor


def remove_unused(directory: int, name: str) -> bool:
    """Remove a name, unless some process has locked it (flock(2)); whether it was removed.

    A directory is renamed first, so that nobody enters by one that is half gone. Raises `OSError`.
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
        with undisturbed():
            remove_tree(directory, put_away(directory, name))
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def put_away(directory: int, name: str) -> str:
    """Give a name free; returns what it is called until it is removed. Who has locked it keeps it."""
    going = f"{GOING}{os.urandom(8).hex()}"
    os.rename(name, going, src_dir_fd=directory, dst_dir_fd=directory)
    return going


def remove_tree(directory: int, name: str) -> None:
    """Remove a name, and all that is in it where it is a directory, however deep; modes don't matter.

    Raises:
        OSError: something of it cannot be removed; `EXDEV` for a mount.

    """
    mount = _mount(directory)
    while not _try_to_remove(directory, name, mount):
        pass


def _try_to_remove(directory: int, name: str, mount: bytes) -> bool:
    """Remove it; False where another process, which removes what is left over, was quicker with a part."""
    try:
        for place, each, is_directory in from_below(directory, name, partial(_entered, mount)):
            (os.rmdir if is_directory else os.unlink)(each, dir_fd=place)
    except FileNotFoundError:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        return False
    return True


def from_below(
    directory: int, name: str, enter: Callable[[int, str], int | None]
) -> Iterator[tuple[int, str, bool]]:
    """A name, after all that is in it: a descriptor of the directory, its name there, and whether it is one.

    Two descriptors at a time, however deep it is, for a manifest may have more levels than a process has
    descriptors, or calls within each other. The way back is `..`.

    Args:
        directory: where the name is.
        name: what is gone through; no link is followed.
        enter: opens a directory for reading, by its place and name; None to leave out what is in it.

    Raises:
        OSError: as `enter`, or a directory was moved meanwhile.

    """
    here = os.open(".", _READ, dir_fd=directory)
    way: list[tuple[str, tuple[int, int], list[str]]] = []  # a directory, what it is in, what else is there
    names = [name]
    try:
        while names or way:
            if not names:
                each, number, names = way.pop()
                here = _in_place_of(here, os.open("..", _READ, dir_fd=here))
                if _number(here) != number:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), each)
                yield here, each, True
                continue
            each = names.pop()
            is_directory = stat.S_ISDIR(os.stat(each, dir_fd=here, follow_symlinks=False).st_mode)
            below = enter(here, each) if is_directory else None
            if below is None:
                yield here, each, is_directory
                continue
            way.append((each, _number(here), names))
            here = _in_place_of(here, below)
            names = os.listdir(here)
    finally:
        os.close(here)


def _number(directory: int) -> tuple[int, int]:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def _in_place_of(old: int, new: int) -> int:
    os.close(old)
    return new


def _entered(mount: bytes, directory: int, name: str) -> int:
    """A descriptor of a directory in `directory`, to read; its owner has all rights to it then."""
    place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if _mount(place) != mount:
            raise OSError(errno.EXDEV, "is a mount, which pkgjail did not make", name)
        _let_write(place)
        return os.open(".", _READ, dir_fd=place)
    finally:
        os.close(place)


def _let_write(place: int) -> None:
    """Give the owner all rights to a directory, by a descriptor that need not be readable."""
    if os.fstat(place).st_mode & _OWNERS != _OWNERS:
        # A full disk may refuse it; most can be removed as they are, which then shows.
        with contextlib.suppress(OSError):
            os.chmod(f"/proc/self/fd/{place}", _OWNERS)


def _mount(descriptor: int) -> bytes:
    """The mount that a descriptor is on: a bind mount has its filesystem's own device number."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))
