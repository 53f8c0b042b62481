"""Where a path leads in a jail: through the links of the manifest itself, never through the host's."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pkgjail.core.model import FileEntry

# As path_resolution(7) has it.
MAXSYMLINKS = 40


class Found(NamedTuple):
    """Where a path leads: `place` has no link in it; `entry` is None where the manifest has nothing there.

    `place` is then the first name on the way that is not there, or, with `loop`, the path itself.
    """

    place: bytes
    entry: FileEntry | None
    loop: bool = False


def resolve_inside(root: bytes, path: bytes) -> bytes:
    """The place of the absolute `path` of another system whose root directory is `root`.

    Links are followed as that system would follow them: an absolute one starts at `root`, and
    `..` stops there. What does not exist is left as it is. Raises `OSError` (ELOOP) for a loop.
    It is no defence against a system that changes meanwhile.
    """
    pending, links = path.split(b"/")[::-1], 0
    done: list[bytes] = []
    while pending:
        name = pending.pop()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            del done[-1:]
            continue
        try:
            target = os.readlink(os.path.join(root, *done, name))
        except OSError:
            done.append(name)
            continue
        links += 1
        if links > MAXSYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.path.join(root, path.lstrip(b"/")))
        if target.startswith(b"/"):
            done.clear()
        pending.extend(target.split(b"/")[::-1])
    return os.path.join(root, *done)


class _AbsentError(Exception):
    """The name that is not there, on the way to what was looked for."""


class Names:
    """The names of a manifest as a file system, for looking up alone."""

    def __init__(self, entries: Iterable[FileEntry]) -> None:
        """Keep the entries by path."""
        self.entries = {entry.path: entry for entry in entries}
        self._targets = {e.path: e.target or b"" for e in self.entries.values() if e.kind == "symlink"}
        self._directories = {e.path for e in self.entries.values() if e.kind == "directory"} | {b"/", b""}

    def find(self, path: bytes) -> Found:
        """What is at the absolute `path`, links followed to their end; path_resolution(7)."""
        try:
            place = follow(path, self._targets, self.entries, self._directories)
        except _AbsentError as absent:
            return Found(absent.args[0], None)
        except OSError:
            return Found(path, None, loop=True)
        return Found(place, self.entries.get(place))


def follow(
    path: bytes,
    targets: Mapping[bytes, bytes],
    names: Collection[bytes] | None = None,
    directories: Collection[bytes] = (),
) -> bytes:
    """The place of the absolute `path`, through the links `targets` (path to text), `..` by what it is at.

    Without `names` what is not there is left as it is written. With them, all that there are, it
    ends the search, and so does a name below what is none of `directories`.

    Raises:
        OSError: ELOOP, too many links.

    """
    todo = path.split(b"/")[::-1]
    done = b""
    links = 0
    while todo:
        name = todo.pop()
        if names is not None and done not in directories:
            raise _AbsentError(done + b"/" + name)
        if name in (b"", b"."):
            continue
        if name == b"..":
            done = done.rpartition(b"/")[0]
            continue
        place = done + b"/" + name
        target = targets.get(place)
        if target is None:
            if names is not None and place not in names:
                raise _AbsentError(place)
            done = place
            continue
        links += 1
        if links > MAXSYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith(b"/"):
            done = b""
        todo.extend(reversed(target.split(b"/")))
    return done or b"/"
