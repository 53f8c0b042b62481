"""The state of directories: whether names in them came, went or were replaced since they were looked at.

A directory's change time moves with each name that is added, removed, renamed or replaced in it, and
nobody can set it (inode(7), st_ctime), so a record of it stands for all of the directory's names. What
is written into an existing file, or changed in its mode, does not show.

Not every file system is like that (`pkgjail.storage.filesystems`), so after the directories a record has the
identity of each of their file systems. Where one has none, the record is worth something only to the
process that made it, while it is mounted; any other takes all directories there as changed.

On the way into a jail, so light: it takes some 2 µs a directory, and 10 µs a file system.
"""

from __future__ import annotations

import os

from pkgjail.storage.filesystems import identity, mount

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    State = tuple[bytes, int, int, int, int]

# Where names come and go while a host merely runs: FHS 3.0, sections 3, 5 and 6, and hier(7).
_VARIABLE = frozenset(
    {b"dev", b"home", b"media", b"mnt", b"proc", b"root", b"run", b"srv", b"sys", b"tmp", b"var"}
)
# The kernel's clock for files moves 100 to 1,000 times a second (CONFIG_HZ); see time(7).
TICKS_NS = 20_000_000
_SECOND_NS = 1_000_000_000
# Stands for the device in the row of a file system: (a path on it, this, the device, its identity, 0).
_FILE_SYSTEM = -1
# Makes the identity of a file system that has none: no other process has this number, and no file system.
_THIS_PROCESS = (1 + int.from_bytes(os.urandom(8), "little")) << 256


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


def observe(directories: Iterable[bytes]) -> tuple[State, ...]:
    """What tells whether the names in each directory change: (path, device, inode, mtime, ctime).

    Times are in nanoseconds. A symbolic link at the end of a path is not followed. Observe before
    the names are read, so that what comes in between is noticed later. The last rows are those of
    the file systems, and have the path of one directory once more.

    Raises:
        OSError: one of them cannot be looked at.

    """
    rows = [_state(path) for path in directories]
    return (*rows, *_file_systems(rows))


def observe_settled(directories: Iterable[bytes]) -> tuple[State, ...]:
    """The same, such that any change that comes after it shows: for a record that is kept.

    Two changes within one tick of the kernel's clock may leave the same times. Where a directory
    changed in this moment, that tick is waited for, once: 20 ms, or 1 s on a file system that keeps
    whole seconds (ext2 and ext3, and ext4 with small inodes).
    """
    import time

    paths = tuple(directories)
    now = time.time_ns()
    observed = observe(paths)
    recent = [ctime for *_, ctime in observed if now - _SECOND_NS - TICKS_NS <= ctime <= now + TICKS_NS]
    tick = max((TICKS_NS if ctime % _SECOND_NS else _SECOND_NS + TICKS_NS for ctime in recent), default=0)
    if any(ctime + tick >= now for ctime in recent):
        time.sleep(tick / 1e9)
        observed = observe(paths)
    return observed


def changed(observed: Iterable[State]) -> list[bytes]:
    """The paths whose directories are no longer as they were observed, gone ones among them.

    All of a file system that is another one now, or has no identity, are among them too.
    """
    lstat = os.lstat
    rows = tuple(observed)
    others = []
    for row in rows:
        path, device, inode, mtime, ctime = row
        try:
            found = lstat(path)
            same = (
                found.st_ctime_ns == ctime
                and found.st_mtime_ns == mtime
                and found.st_ino == inode
                and found.st_dev == device
            )
        except OSError:
            same = False
        if not same:
            others.append(row)  # those of file systems always
    marks = [row for row in others if row[1] == _FILE_SYSTEM]
    if gone := _unknown_devices(marks, rows):
        known = set(others)
        others = [row for row in rows if row in known or row[1] in gone]
    return [row[0] for row in others if row[1] != _FILE_SYSTEM]


def is_lasting(observed: Iterable[State]) -> bool:
    """Whether the states say something to another process too; else they are not worth keeping."""
    return all(row[1] != _FILE_SYSTEM or row[3] < _THIS_PROCESS for row in observed)


def unknown(observed: Iterable[State]) -> set[bytes]:
    """The paths of whose file systems these states say nothing now: not even that content is the same."""
    rows = tuple(observed)
    gone = _unknown_devices([row for row in rows if row[1] == _FILE_SYSTEM], rows)
    return {
        path
        for path, device, *_ in rows
        if device != _FILE_SYSTEM and (device in gone or _device(path) != device)
    }


def _state(path: bytes) -> State:
    found = os.lstat(path)
    return path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _file_systems(rows: Iterable[State]) -> Iterator[State]:
    """The row of each file system that the rows are on."""
    first: dict[int, bytes] = {}
    for path, device, _, _, _ in rows:
        first.setdefault(device, path)
    for device, path in first.items():
        yield path, _FILE_SYSTEM, device, _identity(path), 0


def _identity(path: bytes) -> int:
    found = identity(path)
    return _THIS_PROCESS + (mount(path) or 0) if found is None else found


def _unknown_devices(marks: Iterable[State], rows: Sequence[State]) -> set[int]:
    """The devices whose file systems are others now, or have no identity; `marks` are their rows."""
    return {device for path, _, device, known, _ in marks if not _is_still(known, device, path, rows)}


def _is_still(known: int, device: int, path: bytes, rows: Sequence[State]) -> bool:
    """Whether the file system of a device is the same: any of its directories that is still there tells."""
    others = (other for other, its, _, _, _ in rows if its == device)
    found = next((each for each in (path, *others) if _device(each) == device), None)
    return found is None or _identity(found) == known  # else each shows by itself


def _device(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return None
