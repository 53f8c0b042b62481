"""The devices of the host that a jail shows, found by their names and by patterns (`pkgjail.core.globs`).

A wildcard or a directory brings character devices alone. A block device, which may have a whole file system
on it, must be named without a wildcard. A link that is named brings what it leads to. One that a wildcard
or a directory brings is shown if what it leads to is shown too, so that no device comes unnamed.

Each replay looks for the devices again, so this module imports little.
"""

from __future__ import annotations

import os
import stat

from pkgjail.core.globs import everything_below, expand, glob_fault, is_literal, list_paths, literal

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    # A path, what is there, the number of a device, and the text of a link.
    Device = tuple[bytes, Literal["character", "block", "link"], int, bytes]

_DEV = b"/dev/"
# Every jail has these of its own.
_OWN_DIRECTORIES = (b"/dev/pts/", b"/dev/shm/")
_OWN_NAMES = (
    b"/dev/fd", b"/dev/full", b"/dev/null", b"/dev/ptmx", b"/dev/random", b"/dev/stderr", b"/dev/stdin",
    b"/dev/stdout", b"/dev/tty", b"/dev/urandom", b"/dev/zero",
)  # fmt: skip
# The machine's memory and ports; mem(4). Without CAP_SYS_RAWIO, which no jail has, they cannot be opened.
_MEMORY = frozenset(os.makedev(1, minor) for minor in (1, 2, 4))
_MEMORY_REASON = "it is the memory of the machine, which the kernel opens for no process in a jail"


def pattern_fault(pattern: bytes) -> str:
    """Say why a pattern cannot name devices, for the end of a message; "" if it can."""
    fault = ""
    if not pattern.startswith(_DEV) or pattern == _DEV:
        fault = "names nothing below /dev; begin it with '/dev/'"
    elif b"\0" in pattern:
        fault = "has a NUL byte, which no path has"
    elif pattern.endswith(b"/"):
        fault = "ends in '/'; leave that out, since a directory brings everything in it"
    elif not {b"", b".", b".."}.isdisjoint(pattern.split(b"/")[1:]):
        fault = "is not normal: leave out '.', '..' and doubled slashes"
    elif pattern[len(_DEV) :][:1] in (b"*", b"?", b"["):
        fault = "begins with a wildcard, so it could name every device; write how the names begin"
    return fault or glob_fault(pattern)


def find_devices(patterns: Iterable[bytes]) -> tuple[Device, ...]:
    """Return the devices that the host has for the patterns, and the links to them, by path."""
    found: dict[bytes, Device] = {}
    links: dict[bytes, bytes] = {}
    for pattern in patterns:
        if is_literal(pattern):
            _add_named(literal(pattern), found, links)
        else:
            _add_all(expand(pattern, _paths_in), found, links)
    for link, target in links.items():  # now that all devices are known
        way = _follow(link)
        if way is not None and way[0] in found and all(one in links or one in found for one in way[1]):
            found[link] = (link, "link", 0, target)
    return tuple(sorted(found.values()))


def absence_reason(pattern: bytes) -> str:
    """Say why `find_devices` returns nothing for a pattern, for a message."""
    if not is_literal(pattern):
        return "this host has no character device of such a name; name a block device without a wildcard"
    path = literal(pattern)
    way = _follow(path)
    found = None if way is None else _lstat(way[0])
    if (path + b"/").startswith(_OWN_DIRECTORIES):
        return "the jail has a file system of its own there"
    if way is None or found is None:
        return "this host has none"
    if not _is_in_dev(way):
        return "it leads out of /dev; name the device itself"
    if stat.S_ISDIR(found.st_mode):
        return "the directory has no character device; name block devices one by one"
    is_memory = stat.S_ISCHR(found.st_mode) and found.st_rdev in _MEMORY
    return _MEMORY_REASON if is_memory else "it is no device"


def is_own(pattern: bytes) -> bool:
    """Return whether a pattern is the name of something that every jail's /dev has."""
    return pattern in _OWN_NAMES


def _add_named(path: bytes, found: dict[bytes, Device], links: dict[bytes, bytes]) -> None:
    """Add the device at a path, and the links on the way to it; for a directory, all that is in it."""
    way = _follow(path)
    if way is None or not _is_in_dev(way):
        return
    place, on_the_way = way
    state = _lstat(place)
    brought: dict[bytes, Device] = {}
    if state is not None and stat.S_ISDIR(state.st_mode):
        _add_all(everything_below(place, _paths_in), brought, links)
    else:
        _add(place, brought, block=True)
    if brought:
        found.update(brought)
        found.update((link, (link, "link", 0, os.readlink(link))) for link in on_the_way)


def _add_all(paths: Iterable[bytes], found: dict[bytes, Device], links: dict[bytes, bytes]) -> None:
    """Add the character devices at real paths to `found`, and the links to `links`."""
    for path in paths:
        state = _lstat(path)
        if state is not None and stat.S_ISLNK(state.st_mode):
            if path not in _OWN_NAMES:
                links[path] = os.readlink(path)
        else:
            _add(path, found, block=False)


def _paths_in(directory: bytes) -> list[bytes]:
    """Return the paths in a directory; none where the jail has its own, as /dev/shm may have many files."""
    return [] if (directory + b"/").startswith(_OWN_DIRECTORIES) else list_paths(directory)


def _add(path: bytes, found: dict[bytes, Device], *, block: bool) -> None:
    """Add the device at a real path, unless there is none, or the jail has one of its own there."""
    state = _lstat(path)
    if state is None or path in _OWN_NAMES or not _is_in_dev((path, [])):
        return
    if stat.S_ISCHR(state.st_mode) and state.st_rdev not in _MEMORY:
        found[path] = (path, "character", state.st_rdev, b"")
    elif stat.S_ISBLK(state.st_mode) and block:
        found[path] = (path, "block", state.st_rdev, b"")


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _is_in_dev(way: tuple[bytes, list[bytes]]) -> bool:
    """Check whether a path and the links on the way are below /dev, and not where the jail has its own."""
    return all(
        path.startswith(_DEV) and not (path + b"/").startswith(_OWN_DIRECTORIES) for path in (way[0], *way[1])
    )


def _follow(path: bytes) -> tuple[bytes, list[bytes]] | None:
    """Return where a path leads, and the links on the way; None if it leads in a circle."""
    from pkgjail.core.paths import follow, links_below  # most jails show no device of the host

    links: list[bytes] = []
    try:
        return follow(path, links_below(b"/"), links=links), links
    except OSError:
        return None
