"""The file set while it grows: each stage adds names, the blacklist judges each once."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import LINK_MODE, kind_and_mode, kind_of
from pkgjail.core.model import Dropped, FileEntry, FileSet, Missing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.model import FileKind, MissingReason, Origin
    from pkgjail.fileset.rootfs import Tree
    from pkgjail.policy.patterns import Matcher

    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]


class Name(NamedTuple):
    """A name that is to be in the jail: who brings it and how it comes.

    With `is_ours` the jail makes it, whatever the disk has there: a symbolic link to `target`, or
    without one a file that is made at entry. `owners` are sorted.
    """

    owners: tuple[str, ...] = ()
    origin: Origin = "package"
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
        kept, judge = self.kept, self._judge if self._labels else None
        looked_at = self.tree.lstat_all(path for path, name in names.items() if not name.is_ours)
        for path, name in names.items():
            if path in kept or path in self._dropped:
                continue
            found = looked_at.get(path)
            kind = None if found is None else kind_of(found.st_mode)
            rule = judge(path, is_directory=kind == "directory") if judge is not None else None
            if rule is not None:
                self._dropped[path] = (self._labels[rule], name)
            elif kind or name.is_ours:
                kept[path] = name
                self._missing.pop(path, None)
            else:
                self._miss(path, name, found)

    def place(self, path: bytes) -> bytes:
        """The real path of `path`; the links that lead there come in too if that is kept."""
        real = self.tree.real(path)
        if real != path:
            self._links.append((real, self.tree.links_above(path)))
        return real

    def places(self, paths: Sequence[bytes]) -> Sequence[bytes]:
        """`place` of each of `paths`, in their order; most lists have none that goes through a link."""
        directories = {path[: path.rfind(b"/")] for path in paths}
        moved = {directory for directory in directories if self.tree.real_directory(directory) != directory}
        if not moved:
            return paths
        return [self.place(path) if path[: path.rfind(b"/")] in moved else path for path in paths]

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
        kept = [(path, self.kept[path]) for path in sorted(self.kept)]
        digests = hasher([path for path, name in kept if self._is_hashed(path, name)]) if hasher else {}
        return FileSet(
            entries=tuple([self._entry(path, name, digests.get(path)) for path, name in kept]),
            dropped=tuple(Dropped(path=path, rule=rule) for path, (rule, _) in sorted(self._dropped.items())),
            missing=tuple(self._missing[path] for path in sorted(self._missing)),
        )

    def _miss(self, path: bytes, name: Name, found: os.stat_result | None) -> None:
        reason: MissingReason
        reason = "special" if found is not None else "private" if self.tree.is_private(path) else "absent"
        self._missing[path] = Missing(path=path, reason=reason, owners=name.owners)

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
        found = None if name.is_ours else self.tree.lstat(path)
        kind, mode = (None, 0) if found is None else kind_and_mode(found.st_mode)
        if found is None or kind is None:
            return _made_entry(path, name)
        size = found.st_size if kind == "regular" else None
        target = self.tree.readlink(path) if kind == "symlink" else None
        return FileEntry(path, kind, mode, size, target, sha256, name.owners, name.origin, name.detail)


def _made_entry(path: bytes, name: Name) -> FileEntry:
    """The entry of what the jail makes itself: a link, a file, or a directory that holds such."""
    kind: FileKind
    kind, mode = ("regular", 0o644) if name.is_ours else ("directory", 0o755)
    if name.target is not None:
        kind, mode = "symlink", LINK_MODE
    return FileEntry(path, kind, mode, None, name.target, None, name.owners, name.origin, name.detail)
