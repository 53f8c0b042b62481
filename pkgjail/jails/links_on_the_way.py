"""The symbolic links on the way to what the user binds: with them, a path in the jail is as on the host.

If `/home/me` is a link to `/gpfs/home/me`, then `/home/me/build` and `/gpfs/home/me/build` lead to the same
directory. A bind of either is mounted at the path without links, and the links are made beside it, with the
host's own text. If the jail has something else at the place of a link, it keeps that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.jail_names import KERNEL_DIRECTORIES
from pkgjail.core.paths import follow, links_below

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from pkgjail.core.options import JailOptions
    from pkgjail.jails.layout import Layout

# A top directory with fewer names is shown by file binds anyway (`pkgjail.jails.strategy`). In a larger one,
# a new name would make an overlay impossible.
_FEW_NAMES = 100


class _Way(NamedTuple):
    """A path of the host: where it leads, and the links on the way, each with its text."""

    path: bytes
    end: bytes
    links: tuple[tuple[bytes, bytes], ...]


def links_of_host(options: JailOptions) -> tuple[tuple[bytes, bytes], ...]:
    """Return the host's links that a plan may depend on, each with its text."""
    ways = map(_way, (*_paths_of_binds(options), *options.paths))
    return tuple(dict.fromkeys(link for way in ways for link in way.links))


def add_links(layout: Layout, options: JailOptions) -> tuple[bytes, ...]:
    """Add to `layout` the links on the way to the user's binds, and return their paths, in order.

    These are the links on the way to each bind whose destination is its source, and to each of
    `options.paths` that such a bind shows. All links of a path are made, or none.
    """
    ways = list(filter(None, map(_linked_way, _paths_of_binds(options))))
    further = list(filter(None, map(_linked_way, options.paths)))
    if not ways and not further:
        return ()
    shown = [os.path.realpath(path) for path in _paths_of_binds(options)]
    taken = [layout.resolve(bind.destination) for bind in options.binds if bind.source != bind.destination]
    added: list[bytes] = []
    for way in ways:
        added += _add(layout, way, shown, taken, top=_top(way.path))
    for way in further:
        if _is_in_any(way.end, shown):
            added += _add(layout, way, shown, taken, top=_top(way.end))
    return tuple(added)


def path_inside(layout: Layout, options: JailOptions) -> bytes:
    """Return the working directory as a path that is in the jail.

    `layout` has the links of `add_links`. If those on the way to the directory are not in it, this is the
    path without links.
    """
    way = _linked_way(options.cwd) if options.cwd in options.paths else None
    if way is None:
        return options.cwd
    shown = [os.path.realpath(path) for path in _paths_of_binds(options)]
    links = dict(link for link in way.links if _is_in_any(link[0], shown))
    return way.path if _leads(layout, links, way) else way.end


def _paths_of_binds(options: JailOptions) -> Iterator[bytes]:
    return (bind.source for bind in options.binds if bind.source == bind.destination)


def _way(path: bytes) -> _Way:
    links: list[bytes] = []
    read = links_below(b"/")
    try:
        end = follow(path, read, links=links)
    except OSError:  # too many links: it leads nowhere
        return _Way(path, path, ())
    return _Way(path, end, tuple((link, read(link) or b"") for link in links))


def _linked_way(path: bytes) -> _Way | None:
    way = _way(path)
    return way if way.links else None


def _add(
    layout: Layout, way: _Way, shown: Sequence[bytes], taken: Sequence[bytes], *, top: bytes
) -> list[bytes]:
    """Add the links of a way to the layout and return their paths; none if one of them cannot be there.

    `shown` are the real paths of what binds show at the same path, `taken` the destinations of other binds.
    `top` is a top directory that gets new names in any case.
    """
    new: dict[bytes, bytes] = {}
    in_binds: dict[bytes, bytes] = {}
    for place, target in way.links:
        if _is_in_any(place, KERNEL_DIRECTORIES):
            return []
        if _is_in_any(place, shown):
            in_binds[place] = target
        elif _is_in_any(place, taken) or any(_is_in_any(path, [place]) for path in taken):
            return []
        elif layout.kind(place) is None and layout.admits(place):
            new[place] = target
        elif layout.kind(place) != "symlink":
            return []
    tops = {_top(path) for path in (*new, way.end)} - {top}
    if any(layout.count_below(each) >= _FEW_NAMES for each in tops):
        return []
    if not _leads(layout, {**new, **in_binds}, way):
        return []
    for place, target in new.items():
        layout.add_link(place, target)
    return list(new)


def _leads(layout: Layout, links: Mapping[bytes, bytes], way: _Way) -> bool:
    """Check whether a path leads to the same place with the links of the layout and these."""
    try:
        return follow(way.path, lambda place: links.get(place, layout.target(place))) == way.end
    except OSError:
        return False


def _top(path: bytes) -> bytes:
    return b"/" + path.split(b"/", 2)[1]


def _is_in_any(path: bytes, directories: Sequence[bytes] | Container[bytes]) -> bool:
    """Check whether a path is one of these or below one."""
    while path not in directories:
        if path == b"/":
            return False
        path = path.rpartition(b"/")[0] or b"/"
    return True
