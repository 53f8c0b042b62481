"""Fingerprints of directories: whether names in them came, went or were replaced since they were taken.

A directory's change time moves with each name that is added, removed, renamed or replaced in it, and
nobody can set it (inode(7), st_ctime). So a record of it stands for all of the directory's names. It does
not show what is written into an existing file, nor a change of a file's mode.

This does not hold on every file system (`pkgjail.storage.filesystems`), so a fingerprint ends with the
identity of each file system that the directories are on. If a file system has none, the fingerprint is
valid only in the process that took it, and while the file system is mounted; any other process takes all
directories there as changed.

Entering a jail imports this module: it takes some 2 µs a directory, and 10 µs a file system.
"""

from __future__ import annotations

import os

from pkgjail.storage.filesystems import identity, mount

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    # Path, device, inode, mtime and ctime of a directory, or the row of a file system (`_FILE_SYSTEM`).
    State = tuple[bytes, int, int, int, int]
    Fingerprint = tuple[State, ...]

# Where names come and go while a host merely runs: FHS 3.0, sections 3, 5 and 6, and hier(7).
_VARIABLE = frozenset(
    {b"dev", b"home", b"media", b"mnt", b"proc", b"root", b"run", b"srv", b"sys", b"tmp", b"var"}
)
# Directories of package databases, with files for each package. They change only with the packages.
PACKAGE_DATABASES = (b"/var/lib/dpkg/info/", b"/var/lib/pacman/local/")
# The kernel's clock for files moves 100 to 1,000 times a second (CONFIG_HZ); see time(7).
TICKS_NS = 20_000_000
_SECOND_NS = 1_000_000_000
# Stands for the device in the row of a file system: (a path on it, this, the device, its identity, 0).
_FILE_SYSTEM = -1
# Added to make the identity of a file system that has none: no other process has this number, and no
# file system.
_THIS_PROCESS = (1 + int.from_bytes(os.urandom(8), "little")) << 256


def is_variable(path: bytes) -> bool:
    """Return whether `path` is in a part of the host where names come and go while it merely runs."""
    return path.split(b"/", 2)[1] in _VARIABLE and not in_package_database(path)


def in_package_database(path: bytes) -> bool:
    """Return whether `path` is one of `PACKAGE_DATABASES`, or is in one."""
    return (path + b"/").startswith(PACKAGE_DATABASES)


def take_fingerprint(directories: Iterable[bytes]) -> Fingerprint:
    """Return the state of each directory, and the identities of their file systems.

    Times are in nanoseconds. A symbolic link at the end of a path is not followed. Take the fingerprint
    before reading the names, so that changes in between are noticed later.

    Raises:
        OSError: lstat(2) fails for one of them.

    """
    states = [_state(path) for path in directories]
    return (*states, *_file_systems(states))


def take_settled_fingerprint(directories: Iterable[bytes]) -> Fingerprint:
    """Return a fingerprint as `take_fingerprint` does, which shows any later change: to be stored.

    Two changes within one tick of the kernel's clock may leave the same times. If a directory has just
    changed, the function waits for that tick, once: 20 ms, or 1 s on a file system that stores whole
    seconds (ext2 and ext3, and ext4 with small inodes).
    """
    import time

    paths = tuple(directories)
    now = time.time_ns()
    fingerprint = take_fingerprint(paths)
    recent = [ctime for *_, ctime in fingerprint if now - _SECOND_NS - TICKS_NS <= ctime <= now + TICKS_NS]
    tick = max((TICKS_NS if ctime % _SECOND_NS else _SECOND_NS + TICKS_NS for ctime in recent), default=0)
    if any(ctime + tick >= now for ctime in recent):
        time.sleep(tick / 1e9)
        fingerprint = take_fingerprint(paths)
    return fingerprint


def changed_directories(fingerprint: Iterable[State]) -> list[bytes]:
    """Return the paths of directories that have changed since the fingerprint, or are gone.

    All directories of a file system that is another one now, or has no identity, count as changed.
    """
    lstat = os.lstat
    states = tuple(fingerprint)
    differing = []
    for state in states:
        path, device, inode, mtime, ctime = state
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
            differing.append(state)  # the rows of file systems always
    file_systems = [state for state in differing if state[1] == _FILE_SYSTEM]
    if replaced := _replaced_devices(file_systems, states):
        already = set(differing)
        differing = [state for state in states if state in already or state[1] in replaced]
    return [state[0] for state in differing if state[1] != _FILE_SYSTEM]


def is_lasting(fingerprint: Iterable[State]) -> bool:
    """Return whether the fingerprint is valid in other processes too; only then is it worth storing."""
    return all(state[1] != _FILE_SYSTEM or state[3] < _THIS_PROCESS for state in fingerprint)


def unverifiable_paths(fingerprint: Iterable[State]) -> set[bytes]:
    """Return the paths on file systems that have been replaced: not even file contents need be the same."""
    states = tuple(fingerprint)
    replaced = _replaced_devices([state for state in states if state[1] == _FILE_SYSTEM], states)
    return {
        path
        for path, device, *_ in states
        if device != _FILE_SYSTEM and (device in replaced or _device(path) != device)
    }


def _state(path: bytes) -> State:
    found = os.lstat(path)
    return path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _file_systems(states: Iterable[State]) -> Iterator[State]:
    """Yield the row of each file system that the directories are on."""
    first: dict[int, bytes] = {}
    for path, device, _, _, _ in states:
        first.setdefault(device, path)
    for device, path in first.items():
        yield path, _FILE_SYSTEM, device, _identity(path), 0


def _identity(path: bytes) -> int:
    found = identity(path)
    return _THIS_PROCESS + (mount(path) or 0) if found is None else found


def _replaced_devices(file_systems: Iterable[State], states: Sequence[State]) -> set[int]:
    """Return the devices whose file systems are others now, or have no identity."""
    return {
        device
        for path, _, device, recorded, _ in file_systems
        if not _is_same_file_system(recorded, device, path, states)
    }


def _is_same_file_system(recorded: int, device: int, path: bytes, states: Sequence[State]) -> bool:
    """Return whether a device has the same file system: any of its directories that still exists will do."""
    others = (other for other, its, _, _, _ in states if its == device)
    found = next((each for each in (path, *others) if _device(each) == device), None)
    return found is None or _identity(found) == recorded  # if there is none, each directory has changed


def _device(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return None
