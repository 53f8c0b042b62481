"""What pkgjail keeps and can make again, in the user's cache and runtime directories: listed and pruned."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.locations import (
    SHELVES,
    cache_place,
    open_below,
    runtime_directories,
    runtime_directory,
    shared_place,
)
from pkgjail.storage.removal import from_below, is_left_over, remove_unused

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
# SQLite's own beside a database: of no use without it, and it is not whole without them.
_SQLITE = ("-journal", "-wal", "-shm")
# Directories of which each member counts by itself, and a lock.
_NOT_KEPT = frozenset({*SHELVES, "lock", "cache"})


def cache_directory() -> Path:
    """Where what is to outlive a boot is kept: `$XDG_CACHE_HOME/pkgjail` or `~/.cache/pkgjail`.

    See `pkgjail.storage.locations.cache_place`.
    """
    return Path(cache_place())


def tree_directory() -> Path:
    """The runtime directory (`pkgjail.storage.locations`): for the layers of overlays, in memory.

    A metadata tree is ten thousand inodes and no content: 0.15 s in a tmpfs, and seconds on a disk.
    """
    return Path(runtime_directory())


class Kept(NamedTuple):
    """One thing that is kept: its path, how many names it has, bytes on the disk, last use (epoch s).

    `left_over` is what a process that was killed left half written or half removed, or what one that
    is at work has not finished yet.
    """

    path: Path
    names: int
    bytes: int
    used: float
    left_over: bool = False


def kept() -> tuple[Kept, ...]:
    """What is kept, the least recently used first.

    Layers, prepared jails, baselines, loader caches, digests, and the answers of try-outs.
    """
    found = [each for place, directory in _directories() for each in _members(place, directory)]
    return tuple(sorted(found, key=lambda each: (each.used, each.path)))


def prune(*, older_than: float) -> tuple[Kept, ...]:
    """Remove what was last used before `older_than` (epoch seconds) or is left over; returns what that was.

    A layer that a jail uses stays: in a mask that is half gone, hidden names of the host would appear.
    """
    removed = []
    for place, directory in _directories():
        for each in _members(place, directory):
            if each.used < older_than or each.left_over:
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    if remove_unused(directory, each.path.name):
                        _remove_journals(directory, each.path.name)
                        removed.append(each)
    return tuple(sorted(removed, key=lambda each: (each.used, each.path)))


def _remove_journals(directory: int, name: str) -> None:
    for ending in _SQLITE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + ending, dir_fd=directory)


def _directories() -> Iterator[tuple[Path, int]]:
    """Each directory with what is kept, and its descriptor; none that is not the user's alone."""
    tops = (
        cache_place(),
        *runtime_directories(),
        f"{runtime_directory()}/cache",
        shared_place(os.geteuid()),
    )
    for top in dict.fromkeys(tops):
        with contextlib.suppress(OSError), _closing(open_below(None, top)) as directory:
            yield Path(top), directory
            for shelf in SHELVES:
                with contextlib.suppress(OSError), _closing(open_below(directory, shelf)) as inner:
                    yield Path(top) / shelf, inner


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _members(place: Path, directory: int) -> list[Kept]:
    names = (name for name in sorted(os.listdir(directory)) if name not in _NOT_KEPT)
    wanted = (name for name in names if is_left_over(name) or not name.startswith("."))
    found = []
    for name in wanted:
        if not name.endswith(_SQLITE):
            with contextlib.suppress(FileNotFoundError):
                found.append(_measure(place / name, directory))
    return found


def _measure(path: Path, directory: int) -> Kept:
    found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    names, size = 0, 0
    for inner, name, _ in from_below(directory, path.name, _entered):
        names += 1
        size += os.stat(name, dir_fd=inner, follow_symlinks=False).st_blocks * _BLOCK
    return Kept(path, names, size, found.st_mtime, is_left_over(path.name))


def _entered(directory: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:  # counted as it is
        return None
