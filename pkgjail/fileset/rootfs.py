"""The file tree of a root, read without following a symbolic link out of it, and never changed.

Root sees no more than an ordinary user: a path below a directory that others may not search counts as
absent, so that all users get the same manifest.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from pkgjail.core.paths import follow

if TYPE_CHECKING:
    from collections.abc import Iterable

# Errors of lstat(2) if there is no name to be seen. A package may list names that are too long for the disk.
_UNSEEN = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})
# Directories of FHS 3.0 whose paths are compiled into programs, or stand in the first lines of scripts.
_MERGED = re.compile(rb"(/usr)?/(s?bin|lib[0-9a-z]*)")
# States of a directory: all may search it, some may not search it, or there is none.
_OPEN, _PRIVATE, _NONE = "open", "private", "none"


class Tree:
    """The paths of one root, each examined once. Paths are absolute and normal."""

    def __init__(self, root: bytes) -> None:
        """`root` is `/`, or the directory that stands for it."""
        self._root = root.rstrip(b"/")
        self._stats: dict[bytes, os.stat_result | None] = {}
        self._states: dict[bytes, str] = {b"": _OPEN}
        self._real: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {b"": (b"", ())}

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Return the state of the real path `path`, not following a last link; None if there is nothing.

        Below a symbolic link there is nothing: its target may be outside of the root.
        """
        if path in self._stats:
            return self._stats[path]
        found = self._stats[path] = self._look(path)
        return found

    def lstat_all(self, paths: Iterable[bytes]) -> dict[bytes, os.stat_result | None]:
        """Return the states of many real paths, in a fraction of the time that `lstat` takes for each."""
        seen, states, root, lstat = self._stats, self._states, self._root, os.lstat
        found: dict[bytes, os.stat_result | None] = {}
        for path in paths:
            if path in seen:
                found[path] = seen[path]
            elif states.get(path[: path.rfind(b"/")]) != _OPEN:
                found[path] = self.lstat(path)
            else:
                try:
                    found[path] = seen[path] = lstat(root + path or b"/")
                except OSError:
                    found[path] = self.lstat(path)
        return found

    def is_private(self, path: bytes) -> bool:
        """Return whether others may not search a directory above `path` (mode o-x)."""
        return self._state(path.rpartition(b"/")[0]) == _PRIVATE

    def readlink(self, path: bytes) -> bytes:
        """Return the text of the symbolic link at `path`. Raises `OSError`."""
        return os.readlink(self._root + path)

    def names(self, directory: bytes) -> list[bytes]:
        """Return the names in `directory`, sorted; none if it does not exist or others may not read it."""
        found = self.lstat(directory)
        if found is None or not stat.S_ISDIR(found.st_mode) or not found.st_mode & stat.S_IROTH:
            return []
        try:
            return sorted(os.listdir(self._root + directory or b"/"))
        except OSError:
            return []

    def real(self, path: bytes) -> bytes:
        """Return `path` with every directory above it resolved; a link that is its last name is not followed.

        A link that leads in a circle, or through more than 40 others, is not resolved.
        """
        slash = path.rfind(b"/")
        directory = path[:slash]
        real = self.real_directory(directory)
        return path if real == directory else real + path[slash:]

    def real_directory(self, directory: bytes) -> bytes:
        """Return the path of a directory ("" is the root) with every link in it followed, as by `real`."""
        return (self._real.get(directory) or self._resolve(directory))[0]

    def links_above(self, path: bytes) -> tuple[bytes, ...]:
        """Return the symbolic links, by their real paths, that `real` follows for `path`."""
        return self._resolve(path.rpartition(b"/")[0])[1]

    def top_links(self) -> list[tuple[bytes, bytes]]:
        """Return the symbolic links in the root directory, each with the real path that it leads to."""
        return [
            (path, self._resolve(path)[0])
            for path in (b"/" + name for name in self.names(b"/"))
            if (found := self.lstat(path)) is not None and stat.S_ISLNK(found.st_mode)
        ]

    def merged_links(self) -> list[tuple[bytes, bytes]]:
        """Return the links that stand for directories of programs or libraries, each with its real target.

        They are those of a merged /usr, as `/lib64` and, where programs are in one directory, `/usr/sbin`.
        """
        return [
            (path, self._resolve(path)[0])
            for parent in (b"/", b"/usr/")
            for path in (parent + name for name in self.names(parent.rstrip(b"/") or b"/"))
            if _MERGED.fullmatch(path) is not None
            and (found := self.lstat(path)) is not None
            and stat.S_ISLNK(found.st_mode)
        ]

    def _look(self, path: bytes) -> os.stat_result | None:
        directory = path[: path.rfind(b"/")]
        if (self._states.get(directory) or self._state(directory)) != _OPEN:
            return None
        try:
            return os.lstat(self._root + path or b"/")
        except OSError as error:
            if error.errno in _UNSEEN:
                return None
            raise

    def _state(self, directory: bytes) -> str:
        """Return the state of a directory's path ("" is the root), as its parent lists it."""
        unknown = []
        while directory not in self._states:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        state = self._states[directory]
        for below in reversed(unknown):
            if state == _OPEN:
                found = self.lstat(below)
                if found is None or not stat.S_ISDIR(found.st_mode):
                    state = _NONE
                elif not found.st_mode & stat.S_IXOTH:
                    state = _PRIVATE
            self._states[below] = state
        return state

    def _resolve(self, directory: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """Return the real path of a directory ("" is the root), and the links on the way to it."""
        unknown = []
        while directory not in self._real:
            directory, _, name = directory.rpartition(b"/")
            unknown.append(name)
        known = self._real[directory]
        for name in reversed(unknown):
            directory += b"/" + name
            known = self._real[directory] = self._follow(known[0] + b"/" + name, known[1])
        return known

    def _follow(self, path: bytes, before: tuple[bytes, ...]) -> tuple[bytes, tuple[bytes, ...]]:
        """Return where `path` leads, and `before` with the links on the way. Its parent is real."""
        directory, _, name = path.rpartition(b"/")
        links = list(before)
        try:
            place = follow(name, self._target, start=directory, links=links)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return path, before
        return (b"" if place == b"/" else place), tuple(links)

    def _target(self, path: bytes) -> bytes | None:
        found = self.lstat(path)
        return self.readlink(path) if found is not None and stat.S_ISLNK(found.st_mode) else None
