"""Whether a file's change time stands for its content: not on every file system.

A record of a file's device, inode and change time (inode(7)) says later that the file is the same. That
holds where the kernel sets the time at each change. An image may store any time: two images made with
fixed times, mounted one after the other at one device number, differ in content alone.

So a record of times has the `identity` of the file system beside them, and is worth nothing where there
is none. By kind of file system, statfs(2):

    local       (ext4, xfs, btrfs, tmpfs …) the kernel sets the times; the identity is the file system's
                own (f_fsid), since these can be made as images too
    shared      (NFS, Lustre, GPFS, Ceph …) the server sets the times, and no client can; likewise
    mounted     (squashfs, erofs, iso9660 …) the times are the image's; and overlays, since no layer can be
                asked about. The identity is the mount's: as long as it lasts, nothing changes but by
                this kernel. From Linux 6.8 on a mount has a number that no other gets; before, none
    all others  (FUSE, 9p, CIFS, FAT, NTFS, AFS …) none: times are what a server or anybody sets, or
                are not kept at all

On the way into a jail, so light: some 10 µs a file system.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable

# From linux/magic.h, and the file systems' own sources.
_BY_FSID = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0xF2F52010,  # f2fs
        0x2FC12FC1,  # zfs
        0xCA451A4E,  # bcachefs
        0x3153464A,  # jfs
        0x3434,  # nilfs2
        0x52654973,  # reiserfs
        0x24051905,  # ubifs
        0x01161970,  # gfs2
        0x7461636F,  # ocfs2
        0x6969,  # nfs
        0x0BD00BD0,  # lustre
        0x47504653,  # gpfs
        0x00C36400,  # ceph
    }
)
_BY_MOUNT = frozenset(
    {
        0x73717368,  # squashfs
        0xE0F5E1E2,  # erofs
        0x9660,  # iso9660
        0x15013346,  # udf
        0x28CD3D45,  # cramfs
        0x7275,  # romfs
        0x794C7630,  # overlay
    }
)

# From statx(2):
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000

# Of s390x alone the first fields are no longs; see asm/statfs.h.
_Word = ctypes.c_uint if os.uname().machine == "s390x" else ctypes.c_ulong


class _Statfs(ctypes.Structure):
    _fields_ = (
        ("type", _Word),
        ("bsize", _Word),
        ("counts", ctypes.c_uint64 * 5),
        ("fsid", ctypes.c_uint32 * 2),
        ("rest", ctypes.c_uint64 * 16),
    )


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_uint32 * 35),
        ("mnt_id", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 16),
    )


_libc = ctypes.CDLL(None, use_errno=True)
# glibc has both names; musl has the second one, with numbers of 64 bits.
_fstatfs = getattr(_libc, "fstatfs64", None) or _libc.fstatfs
_statx = getattr(_libc, "statx", None)  # glibc 2.28


def identity(path: bytes) -> int | None:
    """What a record of times of this file's file system needs beside them; None where times say nothing.

    Equal numbers mean the same file system only together with equal device numbers (st_dev). A symbolic
    link at the end of `path` is not followed. None too where nothing is at `path`.
    """
    return _asked(path, _identity)


def mount(path: bytes) -> int | None:
    """A number for the mount that shows this file, which no other has; None where the kernel gives none."""
    return _asked(path, _mount)


def sets_times(descriptor: int) -> bool:
    """Whether the file system of an open file sets its times itself, whatever is mounted there now."""
    return _kind(descriptor)[0] in _BY_FSID


def _asked(path: bytes, question: Callable[[int], int | None]) -> int | None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return question(descriptor)
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> int | None:
    kind, number = _kind(descriptor)
    if kind in _BY_FSID:
        return number
    return _mount(descriptor) if kind in _BY_MOUNT else None


def _kind(descriptor: int) -> tuple[int, int]:
    """The kind of an open file's file system, and its number; zeros where the kernel tells none."""
    found = _Statfs()
    if _fstatfs(descriptor, ctypes.byref(found)):
        return 0, 0
    return found.type & 0xFFFFFFFF, int(found.fsid[0]) << 32 | int(found.fsid[1])


def _mount(descriptor: int) -> int | None:
    found = _Statx()
    flags = _AT_EMPTY_PATH | _AT_SYMLINK_NOFOLLOW
    if _statx is None or _statx(descriptor, b"", flags, _STATX_MNT_ID_UNIQUE, ctypes.byref(found)):
        return None
    if not found.mask & _STATX_MNT_ID_UNIQUE:
        return None
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = int(file.read().replace(b"-", b""), 16)
    except (OSError, ValueError):
        return None
    return boot << 64 | int(found.mnt_id)
