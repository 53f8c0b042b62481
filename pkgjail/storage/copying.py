"""Copies of files and of whole trees. Content is shared where the filesystem has reflinks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from pkgjail.core.errors import NamesError
from pkgjail.storage.atomic import write_all
from pkgjail.storage.digests import FILE_FLAGS

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    Identity = tuple[int, int]

_FICLONE = 0x40049409  # ioctl_ficlone(2), linux/fs.h; refused on architectures where it has another number
_CHUNK = 1 << 30
_BLOCK = 1 << 18
# The errors of the two calls if the filesystems, or this pair of files, do not support them.
_UNSUPPORTED = frozenset(
    {
        errno.EBADF,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.ETXTBSY,
        errno.EXDEV,
    }
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def copy_tree(source: bytes, destination: bytes, *, leaving_out: Container[Identity] = ()) -> None:
    """Copy a directory with all that is in it, or a file, to a path where nothing is.

    Kinds, modes, times, the texts of links and hard links are the same, and for root the owners of files and
    directories too. Sockets are left out, and devices, unless root copies them. No link is followed. Nobody
    else may change the tree meanwhile.

    Args:
        source: what to copy.
        destination: where to; its parent is there.
        leaving_out: directories that are not copied, by device and inode, such as that of the copy.

    Raises:
        NamesError: names that this user may not read, all of them.
        OSError: something cannot be read or written; ENOSPC if there is no room.

    """
    base, name = os.path.split(source)
    there, last = os.path.split(destination)
    with _opened(base or b"/") as reading, _opened(there or b"/") as writing:
        _Copy(reading, writing, leaving_out).run(name, last)


class _Copy:
    """One copy, between two directories by their descriptors."""

    def __init__(self, reading: int, writing: int, leaving_out: Container[Identity]) -> None:
        self._reading = reading
        self._writing = writing
        self._leaving_out = leaving_out
        self._first: dict[Identity, bytes] = {}  # of hard links
        self._directories: list[tuple[bytes, os.stat_result]] = []

    def run(self, source: bytes, destination: bytes) -> None:
        """Copy what is at `source` to `destination`: names in the two directories."""
        todo, unreadable = [b""], list[bytes]()
        while todo:
            below = todo.pop()
            found = os.stat(source + below, dir_fd=self._reading, follow_symlinks=False)
            try:
                names = self._one(source + below, destination + below, found)
            except PermissionError:
                unreadable.append(source + below)
                continue
            todo += [below + b"/" + name for name in names]
        for path, found in reversed(self._directories):  # the modes may forbid to write, and times change
            descriptor = os.open(path, _DIRECTORY, dir_fd=self._writing)
            try:
                _finish(descriptor, found)
            finally:
                os.close(descriptor)
        if unreadable:
            raise NamesError("copy {}", unreadable, "this user may not read it")

    def _one(self, path: bytes, new: bytes, found: os.stat_result) -> list[bytes]:
        """Copy one name, and return the names in it, if it is a directory."""
        identity, kind = (found.st_dev, found.st_ino), stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            return [] if identity in self._leaving_out else self._directory(path, new, found)
        first = self._first.setdefault(identity, new) if found.st_nlink > 1 else new
        if first != new:
            os.link(first, new, src_dir_fd=self._writing, dst_dir_fd=self._writing, follow_symlinks=False)
        elif kind == stat.S_IFREG:
            self._file(path, new, found)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(path, dir_fd=self._reading), new, dir_fd=self._writing)
            os.utime(new, ns=_times(found), dir_fd=self._writing, follow_symlinks=False)
        elif kind == stat.S_IFIFO or (kind != stat.S_IFSOCK and os.geteuid() == 0):
            os.mknod(new, kind, found.st_rdev, dir_fd=self._writing)
            os.chmod(new, stat.S_IMODE(found.st_mode), dir_fd=self._writing)
            os.utime(new, ns=_times(found), dir_fd=self._writing)
        return []

    def _directory(self, path: bytes, new: bytes, found: os.stat_result) -> list[bytes]:
        descriptor = os.open(path, _DIRECTORY, dir_fd=self._reading)
        try:
            names = list(map(os.fsencode, os.listdir(descriptor)))
        finally:
            os.close(descriptor)
        os.mkdir(new, 0o700, dir_fd=self._writing)
        self._directories.append((new, found))
        return names

    def _file(self, path: bytes, new: bytes, found: os.stat_result) -> None:
        source = os.open(path, FILE_FLAGS, dir_fd=self._reading)
        try:
            destination = os.open(new, _NEW, 0o600, dir_fd=self._writing)
            try:
                copy_content(source, destination)
                _finish(destination, found)
            finally:
                os.close(destination)
        finally:
            os.close(source)


def _finish(descriptor: int, found: os.stat_result) -> None:
    """Give a copy the owner, the mode and the times of what it was copied from."""
    if os.geteuid() == 0:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    os.utime(descriptor, ns=_times(found))


def _times(found: os.stat_result) -> tuple[int, int]:
    return found.st_atime_ns, found.st_mtime_ns


@contextlib.contextmanager
def _opened(directory: bytes) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_content(source: int, destination: int) -> None:
    """Copy the content of `source` into the empty file `destination`; both are descriptors.

    Raises:
        OSError: it cannot be read or written; `ENOSPC` if there is no room.

    """
    if not (_clone(source, destination) or _copy_in_kernel(source, destination)):
        _copy_through_memory(source, destination)


def _clone(source: int, destination: int) -> bool:
    """Share the blocks (a reflink); return whether the filesystem can."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _copy_in_kernel(source: int, destination: int) -> bool:
    offset = 0
    try:
        while copied := os.copy_file_range(source, destination, _CHUNK, offset, offset):
            offset += copied
    except OSError as error:
        if error.errno in _UNSUPPORTED and not offset:
            return False
        raise
    # Some pseudo filesystems return 0 for a file that has content; see copy_file_range(2).
    return offset > 0


def _copy_through_memory(source: int, destination: int) -> None:
    offset = 0
    while block := os.pread(source, _BLOCK, offset):
        write_all(destination, block)
        offset += len(block)
