"""The file set while it grows: each stage adds names, the blacklist judges each once."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.model import Dropped, FileEntry, FileSet, Missing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.files.tree import Tree
    from pkgjail.patterns import Matcher

    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]

_KINDS = {stat.S_IFREG: "regular", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class Name(NamedTuple):
    """A name that is to be in the jail: who brings it and how it comes.

    With `is_ours` the jail makes it, whatever the disk has there: a symbolic link to `target`, or
    without one a file that is made at entry.
    """

    owners: frozenset[str] = frozenset()
    origin: str = "package"
    detail: str = ""
    is_ours: bool = False
    target: bytes | None = None


class Draft:
    """Names by their real paths, each kept, dropped by a rule, or missing."""

    def __init__(self, tree: Tree, judge: Matcher) -> None:
        """`judge` is the blacklist."""
        self.tree = tree
        self.kept: dict[bytes, Name] = {}
        self._judge = judge
        self._labels = {rule: f"{rule.origin}: {rule.pattern}" for rule in judge.rules}
        self._dropped: dict[bytes, tuple[str, Name]] = {}
        self._missing: dict[bytes, Missing] = {}
        self._links: list[tuple[bytes, tuple[bytes, ...]]] = []

    def add(self, names: Mapping[bytes, Name]) -> None:
        """Judge names given by real path; one that is decided already stays as it is.

        What is missing from the disk can still be made by us.
        """
        for path, name in names.items():
            if path in self.kept or path in self._dropped:
                continue
            found = None if name.is_ours else self.tree.lstat(path)
            rule = self._judge(path, is_directory=found is not None and stat.S_ISDIR(found.st_mode))
            if rule is not None:
                self._dropped[path] = (self._labels[rule], name)
            elif name.is_ours or (found is not None and stat.S_IFMT(found.st_mode) in _KINDS):
                self.kept[path] = name
                self._missing.pop(path, None)
            else:
                self._miss(path, name, found)

    def place(self, path: bytes) -> bytes:
        """The real path of `path`; the links that lead there come in too if that is kept."""
        real = self.tree.real(path)
        if real != path:
            self._links.append((real, self.tree.links_above(path)))
        return real

    def has(self, path: bytes) -> bool:
        """Whether `path`, as recorded anywhere, is in the set so far."""
        return self.tree.real(path) in self.kept

    def was_dropped(self, path: bytes) -> bool:
        """Whether a rule dropped `path`, as recorded anywhere."""
        return self.tree.real(path) in self._dropped

    def drops(self, path: bytes) -> bool:
        """Whether the blacklist would drop `path`, as recorded anywhere, were it to come in."""
        return self._judge(self.tree.real(path), is_directory=False) is not None

    def settled(self, path: bytes) -> bool:
        """Whether the real path `path` was judged already."""
        return path in self.kept or path in self._dropped or path in self._missing

    def finish(self, hasher: Hasher | None) -> FileSet:
        """Bring in the directories that kept names stand in, and make the frozen result.

        A directory that a rule dropped comes back when something below it was kept.
        """
        wanted = {link for place, links in self._links if place in self.kept for link in links}
        self.add({link: Name(origin="parent") for link in wanted if not self.settled(link)})
        for directory in {path[: path.rfind(b"/")] or b"/" for path in self.kept}:
            self._keep_directory(directory)
        kept = sorted(self.kept.items())
        digests = hasher([path for path, name in kept if self._is_hashed(path, name)]) if hasher else {}
        return FileSet(
            entries=tuple(self._entry(path, name, digests.get(path)) for path, name in kept),
            dropped=tuple(Dropped(path=path, rule=rule) for path, (rule, _) in sorted(self._dropped.items())),
            missing=tuple(self._missing[path] for path in sorted(self._missing)),
        )

    def _miss(self, path: bytes, name: Name, found: os.stat_result | None) -> None:
        reason = "special" if found is not None else "private" if self.tree.is_private(path) else "absent"
        self._missing[path] = Missing(path=path, reason=reason, owners=tuple(sorted(name.owners)))

    def _keep_directory(self, directory: bytes) -> None:
        """Bring in a directory, and those above it, whatever was decided of them."""
        while directory not in self.kept:
            _, name = self._dropped.pop(directory, (None, Name(origin="parent")))
            self._missing.pop(directory, None)
            self.kept[directory] = name
            directory = directory[: directory.rfind(b"/")] or b"/"

    def _is_hashed(self, path: bytes, name: Name) -> bool:
        """Only what others may read is hashed, so that all users record the same."""
        found = None if name.is_ours else self.tree.lstat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)

    def _entry(self, path: bytes, name: Name, sha256: str | None) -> FileEntry:
        kind, mode, size, target = self._as_on_disk(path) if not name.is_ours else _as_made(name)
        return FileEntry(
            path=path,
            kind=kind,
            mode=mode,
            size=size,
            target=target,
            sha256=sha256,
            owners=tuple(sorted(name.owners)),
            origin=name.origin,
            detail=name.detail,
        )

    def _as_on_disk(self, path: bytes) -> tuple[str, int, int | None, bytes | None]:
        """Kind, mode, size and link text of what the disk has at `path`."""
        found = self.tree.lstat(path)
        if found is None:  # a directory that holds what we make
            return "directory", 0o755, None, None
        kind = _KINDS[stat.S_IFMT(found.st_mode)]
        if kind == "symlink":
            return kind, 0o777, None, self.tree.readlink(path)
        return kind, stat.S_IMODE(found.st_mode), found.st_size if kind == "regular" else None, None


def _as_made(name: Name) -> tuple[str, int, int | None, bytes | None]:
    """The same of what the jail makes itself."""
    return (
        ("symlink", 0o777, None, name.target) if name.target is not None else ("regular", 0o644, None, None)
    )
