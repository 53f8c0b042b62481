"""Check whether an unchanged change time proves unchanged content: not on every file system.

A file is taken for unchanged if its device, inode and change time (inode(7)) are as recorded. This is right
if the kernel sets the time at each change. An image may store any time: two images made with fixed times,
and mounted one after the other under one device number, differ in nothing but content.

So a record of times also has the `identity` of the file system, and is worth nothing if there is none. By
type of file system, statfs(2):

    local       (ext4, xfs, btrfs, tmpfs …) the kernel sets the times; the identity is the file system's
                own (f_fsid), since these can also be made as images
    shared      (NFS, Lustre, GPFS, Ceph …) the server sets the times, and no client can; likewise f_fsid
    mounted     (squashfs, erofs, iso9660 …) the times are the image's; also overlays, whose layers are
                unknown. The identity is that of the mount: while it exists, only this kernel changes
                anything. Since Linux 6.8 each mount has a unique number; before, there is no identity
    all others  (FUSE, 9p, CIFS, FAT, NTFS, AFS …) no identity: a server or anybody sets the times, or
                they are not stored at all

Entering a jail imports this module: it takes some 10 µs a file system.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable

# From linux/magic.h, and the sources of the file systems.
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

# On s390x alone the first fields are not longs; see asm/statfs.h.
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
    """Return the identity of the file system of a file; None if its times tell nothing.

    Equal numbers mean the same file system only together with equal device numbers (st_dev). A symbolic
    link at the end of `path` is not followed. None also if `path` does not exist.
    """
    return _query(path, _identity)


def mount(path: bytes) -> int | None:
    """Return a unique number of the mount that a file is on; None if the kernel has none."""
    return _query(path, _mount)


def sets_times(descriptor: int) -> bool:
    """Return whether the file system of an open file sets its times itself."""
    return _type(descriptor)[0] in _BY_FSID


def _query(path: bytes, function: Callable[[int], int | None]) -> int | None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return function(descriptor)
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> int | None:
    magic, number = _type(descriptor)
    if magic in _BY_FSID:
        return number
    return _mount(descriptor) if magic in _BY_MOUNT else None


def _type(descriptor: int) -> tuple[int, int]:
    """Return the type of an open file's file system and its f_fsid; zeros if statfs(2) fails."""
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
