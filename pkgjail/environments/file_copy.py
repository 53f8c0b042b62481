"""The content of one file into another: shared where the filesystem can, else copied by the kernel."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

_FICLONE = 0x40049409  # ioctl_ficlone(2), linux/fs.h; where it has another number, this one is refused
_CHUNK = 1 << 30
_BLOCK = 1 << 18
# What the two calls answer where filesystems, or this pair of files, cannot do it.
_CANNOT = frozenset(
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


def copy_content(source: int, destination: int) -> None:
    """Give the empty file `destination` the content of `source`; both are descriptors.

    Raises:
        OSError: it cannot be read or written; `ENOSPC` where there is no room.

    """
    if not (_clone(source, destination) or _copy_in_kernel(source, destination)):
        _copy_through_memory(source, destination)


def _clone(source: int, destination: int) -> bool:
    """Share the blocks (a reflink); whether that could be done."""
    try:
        fcntl.ioctl(destination, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _copy_in_kernel(source: int, destination: int) -> bool:
    offset = 0
    try:
        while copied := os.copy_file_range(source, destination, _CHUNK, offset, offset):
            offset += copied
    except OSError as error:
        if error.errno in _CANNOT and not offset:
            return False
        raise
    # Some filesystems of the kernel's answer 0 for a file that has content; see copy_file_range(2).
    return offset > 0


def _copy_through_memory(source: int, destination: int) -> None:
    offset = 0
    while block := os.pread(source, _BLOCK, offset):
        write_all(destination, block)
        offset += len(block)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_filesystem(descriptor: int) -> None:
    """Have all that was written to the filesystem of `descriptor` on its disk; see syncfs(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(ctypes.c_int(descriptor)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
