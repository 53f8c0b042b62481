"""New files and directories beside those that they replace, outside of pkgjail's own directories.

Each is locked (flock(2)) while it is filled, and its temporary name depends on the name that it gets: the
next writer of that name removes what a killed one left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from pkgjail.storage.locations import make_directory, replaceable_part
from pkgjail.storage.own_files import is_same_file

PREFIX = ".pkgjail-"
"""The beginning of a temporary name."""

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# File systems without locks fail with one of these.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL})


def make_beside(
    directory: int, name: str, mode: int = 0o666, *, is_directory: bool = False
) -> tuple[str, int]:
    """Make an empty file or directory that gets `name` later; returns its temporary name and a descriptor.

    It stays locked while the descriptor is open.

    Args:
        directory: a descriptor of the directory that it is made in.
        name: the name that it gets later.
        mode: the mode of a file, less the umask. A directory has 0700.
        is_directory: whether to make a directory.

    Raises:
        OSError: it cannot be made.

    """
    new = _usual_name(name)
    _remove_left_over(directory, new)
    try:
        return new, _make_locked(directory, new, mode, is_directory=is_directory)
    except (BlockingIOError, FileExistsError, FileNotFoundError):
        # Another process is at work with it, or took it for left over before it was locked.
        new = f"{PREFIX}{os.urandom(8).hex()}"
        return new, _make_locked(directory, new, mode, is_directory=is_directory)


def _usual_name(name: str) -> str:
    """Return the temporary name. Locks may not be seen on other machines, so these have other names."""
    import hashlib

    digest = hashlib.sha256(os.fsencode(f"{os.uname().nodename}/{name}"))
    return f"{PREFIX}{digest.hexdigest()[:16]}"


def _make_locked(directory: int, new: str, mode: int, *, is_directory: bool) -> int:
    if is_directory:
        make_directory(new, directory)
        descriptor = os.open(new, _READ | os.O_DIRECTORY, dir_fd=directory)
    else:
        descriptor = os.open(new, _NEW_FILE, mode, dir_fd=directory)
    try:
        _lock(descriptor, directory, new)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int, directory: int, new: str) -> None:
    """Lock what was just made. Raises `OSError` if another process took it for left over meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    if not is_same_file(descriptor, directory, new):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), new)


def _remove_left_over(directory: int, new: str) -> None:
    """Remove what a killed writer left, if it is this user's, unlocked, and nobody else put it there."""
    with contextlib.suppress(OSError):  # there is none, or it is in use
        found = os.stat(new, dir_fd=directory, follow_symlinks=False)
        is_ours = found.st_uid == os.geteuid() and stat.S_IFMT(found.st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        if not is_ours or replaceable_part(os.readlink(f"/proc/self/fd/{directory}")):
            return
        descriptor = os.open(new, _READ, dir_fd=directory)
        try:
            from pkgjail.storage.removal import remove_tree

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same_file(descriptor, directory, new):
                remove_tree(directory, new)
        finally:
            os.close(descriptor)
