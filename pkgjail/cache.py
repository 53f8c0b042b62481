"""Where pkgjail keeps what it can make again: the user's cache and runtime directories."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.places import is_private, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

# Directories of which each member counts by itself, and a lock.
_NOT_KEPT = frozenset({"layers", "ld.so.cache", "lock", "prepared", "baselines"})
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/pkgjail` or `~/.cache/pkgjail` (XDG Base Directory Specification).

    It may not be there. A relative XDG_CACHE_HOME is ignored, as the specification asks.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "pkgjail"


def tree_directory() -> Path:
    """The runtime directory (`pkgjail.places`): for the layers of overlays, in memory.

    A metadata tree is ten thousand inodes and no content: 0.15 s in a tmpfs, and seconds on a disk.
    """
    return Path(runtime_directory())


def make_private(directory: Path) -> None:
    """Make a directory that is the user's alone, or see that it is.

    Raises:
        PermissionError: it is somebody else's, or others may write to it, as anybody could arrange
            in a directory like /dev/shm.

    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not is_private(str(directory)):
        raise PermissionError(errno.EPERM, "is not this user's alone", str(directory))


class Kept(NamedTuple):
    """One thing in the cache: its path, how many names it has, bytes on the disk, last use (epoch s)."""

    path: Path
    names: int
    bytes: int
    used: float


def kept() -> tuple[Kept, ...]:
    """What is in the cache, the least recently used first.

    Layers, prepared jails, baselines, loader caches, digests, and the answers of try-outs.
    """
    cache, run = cache_directory(), tree_directory()
    places = {
        path
        for directory in (
            cache,
            cache / "ld.so.cache",
            cache / "baselines",
            run,
            run / "layers",
            run / "prepared",
        )
        if directory.is_dir()
        for path in directory.iterdir()
        if path.name not in _NOT_KEPT and not path.name.startswith(".")
    }
    return tuple(sorted(map(_measure, places), key=lambda each: (each.used, each.path)))


def prune(*, older_than: float) -> tuple[Kept, ...]:
    """Remove what was last used before `older_than` (epoch seconds); returns what was removed.

    A layer that a jail uses stays: in a mask that is half gone, hidden names of the host would appear.
    """
    return tuple(each for each in kept() if each.used < older_than and _remove(each.path))


def _remove(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return remove_unused(path)
    path.unlink()
    return True


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals that end a process wait while something of it lies about half made: 0.2 s at most."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def remove_unused(directory: Path) -> bool:
    """Remove a directory of the cache, unless somebody holds it (flock(2)); whether it was removed.

    It is renamed first, so that nobody enters by one that is half gone.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with undisturbed():
            going = directory.with_name(f".going-{os.getpid()}-{directory.name.lstrip('.')}")
            os.rename(directory, going)
            remove_tree(going)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_tree(directory: Path) -> None:
    """Remove a directory that is ours, whose directories may be read-only."""
    for place, names, _ in os.walk(directory):
        for path in (place, *(os.path.join(place, name) for name in names)):
            # A full disk may refuse it; most can be removed as they are, which then shows.
            with contextlib.suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(directory)


def _measure(path: Path) -> Kept:
    names = size = 0
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    for each in found:
        names += 1
        size += each.lstat().st_blocks * 512
    return Kept(path, names, size, path.lstat().st_mtime)
