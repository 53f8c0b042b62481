"""Directories of a manifest's names, with the sizes of everything below them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.core.model import FileEntry, record

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = b"/"


@record
class Name:
    """A name in a directory. `size` is in bytes, `names` counts it and, for a directory, all below it."""

    entry: FileEntry
    size: int
    names: int


class DirectoryTree:
    """Directories with what is in each; those above a name are there even if the names lack them."""

    def __init__(self, entries: Iterable[FileEntry]) -> None:
        """Sum the sizes, and index the names by their directories."""
        self._entries = {entry.path: entry for entry in entries}
        self._sizes: Counter[bytes] = Counter()
        self._names: Counter[bytes] = Counter()
        self._children: dict[bytes, set[bytes]] = {}
        for path, entry in self._entries.items():
            self._add(path, entry.size or 0)

    def _add(self, path: bytes, size: int) -> None:
        """Count a name in itself and in each directory above it."""
        while True:
            self._sizes[path] += size
            self._names[path] += 1
            if path == ROOT:
                return
            above = path.rpartition(b"/")[0] or ROOT
            self._children.setdefault(above, set()).add(path)
            path = above

    def name(self, path: bytes) -> Name:
        """Return a name, or a directory above names."""
        entry = self._entries.get(path) or FileEntry(path=path, kind="directory", mode=0o755, origin="parent")
        return Name(entry=entry, size=self._sizes[path], names=self._names[path])

    def within(self, directory: bytes) -> tuple[Name, ...]:
        """Return what is directly in a directory, sorted by path."""
        return tuple(map(self.name, sorted(self._children.get(directory, ()))))
