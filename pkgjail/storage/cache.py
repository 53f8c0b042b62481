"""List and prune what pkgjail stores and can make again, in its cache, runtime and shared directories."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.locations import (
    SUBDIRECTORIES,
    cache_directory,
    possible_runtime_directories,
    runtime_directory,
    shared_directory,
)
from pkgjail.storage.own_files import open_subdirectory
from pkgjail.storage.removal import is_left_over, remove_unused, walk_bottom_up

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
# Files that SQLite puts beside a database: useless without it, and it is incomplete without them.
_SQLITE = ("-journal", "-wal", "-shm")
# Directories whose members count one by one, and a lock.
_NOT_ITEMS = frozenset({*SUBDIRECTORIES, "lock", "cache"})


class CacheItem(NamedTuple):
    """One item: its path, the number of names in it, bytes on the disk, last use (seconds since the epoch).

    `left_over` is true for what a killed process left half-written or half-removed, and for what a running
    one has not finished yet.
    """

    path: Path
    names: int
    bytes: int
    used: float
    left_over: bool = False


def list_cache() -> tuple[CacheItem, ...]:
    """Return all items, the least recently used first.

    They are layers, prepared jails, baselines, ld.so caches, file digests, and the results of probes.
    """
    items = [item for path, directory in _directories() for item in _items(path, directory)]
    return tuple(sorted(items, key=lambda item: (item.used, item.path)))


def prune_cache(*, older_than: float) -> tuple[CacheItem, ...]:
    """Remove items that were last used before `older_than` or are left over; returns those removed.

    A layer that a jail uses stays: if a whiteout overlay were half removed, hidden names of the host would
    appear.
    """
    removed = []
    for path, directory in _directories():
        for item in _items(path, directory):
            if item.used < older_than or item.left_over:
                with contextlib.suppress(FileNotFoundError):  # another process removed it
                    if remove_unused(directory, item.path.name):
                        _remove_journals(directory, item.path.name)
                        removed.append(item)
    return tuple(sorted(removed, key=lambda item: (item.used, item.path)))


def _remove_journals(directory: int, name: str) -> None:
    for suffix in _SQLITE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + suffix, dir_fd=directory)


def _directories() -> Iterator[tuple[Path, int]]:
    """Yield each directory with items, and a descriptor of it; none that is not the user's alone."""
    tops = (
        cache_directory(),
        *possible_runtime_directories(),
        f"{runtime_directory()}/cache",
        shared_directory(os.geteuid()),
    )
    for top in dict.fromkeys(tops):
        with contextlib.suppress(OSError), _closing(open_subdirectory(None, top)) as directory:
            yield Path(top), directory
            for name in SUBDIRECTORIES:
                with contextlib.suppress(OSError), _closing(open_subdirectory(directory, name)) as inner:
                    yield Path(top) / name, inner


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _items(path: Path, directory: int) -> list[CacheItem]:
    names = (name for name in sorted(os.listdir(directory)) if name not in _NOT_ITEMS)
    candidates = (name for name in names if is_left_over(name) or not name.startswith("."))
    items = []
    for name in candidates:
        if not name.endswith(_SQLITE):
            with contextlib.suppress(FileNotFoundError):
                items.append(_measure(path / name, directory))
    return items


def _measure(path: Path, directory: int) -> CacheItem:
    found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    names, size = 0, 0
    for inner, name, _ in walk_bottom_up(directory, path.name, _open_readable):
        names += 1
        size += os.stat(name, dir_fd=inner, follow_symlinks=False).st_blocks * _BLOCK
    return CacheItem(path, names, size, found.st_mtime, is_left_over(path.name))


def _open_readable(directory: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:  # counted without what is in it
        return None
