"""The state of directories: whether names in them came, went or were replaced since they were looked at.

A directory's change time moves with each name that is added, removed, renamed or replaced in it, and
nobody can set it (inode(7), st_ctime), so a record of it stands for all of the directory's names. What
is written into an existing file, or changed in its mode, does not show.

On the way into a jail, so light: it imports nothing but `os`, and takes some 2 µs a directory.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable

# Where names come and go while a host merely runs: FHS 3.0, sections 3, 5 and 6, and hier(7).
_VARIABLE = frozenset(
    {b"dev", b"home", b"media", b"mnt", b"proc", b"root", b"run", b"srv", b"sys", b"tmp", b"var"}
)
# The kernel's clock for files moves 100 to 1,000 times a second (CONFIG_HZ); see time(7).
TICKS_NS = 20_000_000


def is_variable(path: bytes) -> bool:
    """Whether `path` is in a part of the host where names come and go while it merely runs."""
    return path.split(b"/", 2)[1] in _VARIABLE


def mounts_below(directory: bytes, table: str = "/proc/self/mountinfo") -> list[bytes]:
    """The mount points below `directory` (a real path); see proc_pid_mountinfo(5).

    An overlay and a bind mount show one filesystem: what is mounted further down is not in it, and
    within a user namespace the kernel refuses such a layer altogether.
    """
    with open(table, "rb") as lines:
        points = [line.split(b" ", 5)[4] for line in lines]
    prefix = directory.rstrip(b"/") + b"/"
    real = [_unescaped(point) if b"\\" in point else point for point in points]
    return [point for point in real if point.startswith(prefix) and point != prefix]


def _unescaped(point: bytes) -> bytes:
    """A mount point as it is: the kernel writes white space and backslashes as octal numbers."""
    first, *rest = point.split(b"\\")
    return first + b"".join(bytes([int(one[:3], 8)]) + one[3:] for one in rest)


def observe(directories: Iterable[bytes]) -> tuple[tuple[bytes, int, int, int, int], ...]:
    """What tells whether the names in each directory change: (path, device, inode, mtime, ctime).

    Times are in nanoseconds. A symbolic link at the end of a path is not followed. Observe before
    the names are read, so that what comes in between is noticed later.

    Raises:
        OSError: one of them cannot be looked at.

    """
    return tuple([_state(path) for path in directories])


def observe_settled(directories: Iterable[bytes]) -> tuple[tuple[bytes, int, int, int, int], ...]:
    """The same, such that any change that comes after it shows: for a record that is kept.

    Two changes within one tick of the kernel's clock may leave the same times. Where a directory
    changed in this moment, that tick is waited for, once (20 ms).
    """
    import time

    paths = tuple(directories)
    now = time.time_ns()
    observed = observe(paths)
    if any(now - TICKS_NS <= ctime <= now + TICKS_NS for _, _, _, _, ctime in observed):
        time.sleep(TICKS_NS / 1e9)
        observed = observe(paths)
    return observed


def changed(observed: Iterable[tuple[bytes, int, int, int, int]]) -> list[bytes]:
    """The paths whose directories are no longer as they were observed, gone ones among them."""
    lstat = os.lstat
    paths = []
    for path, device, inode, mtime, ctime in observed:
        try:
            found = lstat(path)
        except OSError:
            paths.append(path)
            continue
        if (
            found.st_ctime_ns != ctime
            or found.st_mtime_ns != mtime
            or found.st_ino != inode
            or found.st_dev != device
        ):
            paths.append(path)
    return paths


def _state(path: bytes) -> tuple[bytes, int, int, int, int]:
    found = os.lstat(path)
    return path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
