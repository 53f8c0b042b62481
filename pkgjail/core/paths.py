"""Resolution of paths through symbolic links: a manifest's own, or those below another root.

There is one walk, over a function that reads a link by its path. `pkgjail.core.untrusted` has another, over
descriptors: it holds each directory open on the way, so that no name can be exchanged between two looks.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from pkgjail.core.model import FileEntry

MAXSYMLINKS = 40
"""The most links that Linux follows for one path; path_resolution(7)."""


class Found(NamedTuple):
    """The result of a lookup: a path without links, and its entry, None if the manifest has nothing there.

    `place` is then the first path on the way that is not there, or, with `loop`, the path itself.
    """

    place: bytes
    entry: FileEntry | None
    loop: bool = False


def follow(
    path: bytes,
    target_of: Callable[[bytes], bytes | None],
    *,
    start: bytes = b"",
    links: list[bytes] | None = None,
    directories: Container[bytes] | None = None,
) -> bytes:
    """Resolve a path as path_resolution(7) does, with links looked up by a function.

    An absolute link starts at the root, and `..` stops there. A name that `target_of` has no link for is
    left as it is, whether it exists or not.

    Args:
        path: the path, relative to `start`.
        target_of: returns the text of the symbolic link at a real path; None if there is none.
        start: a directory's real path; b"" is the root.
        links: gets the real path of each link that is followed. Those that are in it already count.
        directories: nothing is below any other path than these; b"" is the root.

    Returns:
        The real path.

    Raises:
        KeyError: there is nothing at a path on the way, which is named: it is below none of `directories`, or
            `target_of` raised the error.
        OSError: ELOOP, more than `MAXSYMLINKS` links; and what `target_of` raises.

    """
    followed = [] if links is None else links
    todo = path.split(b"/")[::-1]
    done = start
    while todo:
        name = todo.pop()
        if directories is not None and done not in directories:
            raise KeyError(done + b"/" + name)
        if name in (b"", b"."):
            continue
        if name == b"..":
            done = done.rpartition(b"/")[0]
            continue
        place = done + b"/" + name
        target = target_of(place)
        if target is None:
            done = place
            continue
        if len(followed) >= MAXSYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        followed.append(place)
        if target.startswith(b"/"):
            done = b""
        todo.extend(reversed(target.split(b"/")))
    return done or b"/"


def links_below(root: bytes) -> Callable[[bytes], bytes | None]:
    """Return a function for `follow` that reads the links of the system whose root directory is `root`."""
    prefix = root.rstrip(b"/")

    def target_of(path: bytes) -> bytes | None:
        """Return the text of a link; None if there is none to be read."""
        try:
            return os.readlink(prefix + path)
        except OSError:
            return None

    return target_of


def resolve_inside(root: bytes, path: bytes) -> bytes:
    """Return the place of the absolute `path` of another system whose root directory is `root`.

    Links are followed as that system would follow them. What does not exist is left as it is. It is no
    defence against a system that changes meanwhile: for that see `pkgjail.core.untrusted`.

    Raises:
        OSError: ELOOP, too many links.

    """
    prefix = root.rstrip(b"/")
    try:
        place = follow(path, links_below(root))
    except OSError as error:
        error.filename = prefix + path
        raise
    return root if place == b"/" else prefix + place


class Names:
    """The names of a manifest, for lookups as in a file system."""

    def __init__(self, entries: Iterable[FileEntry]) -> None:
        """Index the entries by path."""
        self.entries = {entry.path: entry for entry in entries}
        self._targets: dict[bytes, bytes | None] = dict.fromkeys(self.entries)
        self._targets.update((e.path, e.target or b"") for e in self.entries.values() if e.kind == "symlink")
        self._directories = {e.path for e in self.entries.values() if e.kind == "directory"} | {b"/", b""}

    def find(self, path: bytes) -> Found:
        """Return what is at the absolute `path`, with links followed to their end."""
        try:
            place = follow(path, self._targets.__getitem__, directories=self._directories)
        except KeyError as absent:
            return Found(absent.args[0], None)
        except OSError:
            return Found(path, None, loop=True)
        return Found(place, self.entries.get(place))
