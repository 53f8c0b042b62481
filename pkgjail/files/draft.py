"""The file set while it grows: each stage adds names, the blacklist judges each once."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.model import Dropped, FileEntry, FileSet, Missing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.files.tree import Tree
    from pkgjail.model import Rule
    from pkgjail.patterns import Matcher

    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]

_KINDS = {stat.S_IFREG: "regular", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class Name(NamedTuple):
    """A name that is to be in the jail: who brings it, how it comes, and its link text if ours."""

    owners: frozenset[str] = frozenset()
    origin: str = "package"
    detail: str = ""
    target: bytes | None = None
    made_at_entry: bool = False


class Draft:
    """Names by their real paths, each kept, dropped by a rule, or missing."""

    def __init__(self, tree: Tree, judge: Matcher) -> None:
        """`judge` is the blacklist."""
        self.tree = tree
        self.kept: dict[bytes, Name] = {}
        self._judge = judge
        self._dropped: dict[bytes, tuple[Rule, Name]] = {}
        self._missing: dict[bytes, Missing] = {}
        self._links: list[tuple[bytes, tuple[bytes, ...]]] = []

    def add(self, names: Mapping[bytes, Name]) -> None:
        """Judge names given by real path; one that is decided already stays as it is.

        What is missing from the disk can still be made by us.
        """
        for path in sorted(names.keys() - self.kept.keys() - self._dropped.keys()):
            name = names[path]
            if name.target is not None or name.made_at_entry:
                self._missing.pop(path, None)
                self._decide(path, name, is_directory=False)
                continue
            found = self.tree.lstat(path)
            is_directory = found is not None and stat.S_ISDIR(found.st_mode)
            if self._decide(path, name, is_directory=is_directory) and _kind(found) is None:
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
        for link in sorted(wanted):
            if not self.settled(link):
                self._decide(link, Name(origin="parent"), is_directory=False)
        for path in list(self.kept):
            self._keep_parents(path)
        public = [path for path in sorted(self.kept) if self._is_hashed(path)]
        digests = hasher(public) if hasher is not None else {}
        return FileSet(
            entries=tuple(self._entry(path, digests) for path in sorted(self.kept)),
            dropped=tuple(
                Dropped(path=path, rule=f"{rule.origin}: {rule.pattern}")
                for path, (rule, _) in sorted(self._dropped.items())
            ),
            missing=tuple(self._missing[path] for path in sorted(self._missing)),
        )

    def _decide(self, path: bytes, name: Name, *, is_directory: bool) -> bool:
        """Keep the name and say True, or drop it."""
        rule = self._judge(path, is_directory=is_directory)
        if rule is None:
            self.kept[path] = name
        else:
            self._dropped[path] = (rule, name)
        return rule is None

    def _miss(self, path: bytes, name: Name, found: os.stat_result | None) -> None:
        del self.kept[path]
        reason = "special" if found is not None else "private" if self.tree.is_private(path) else "absent"
        self._missing[path] = Missing(path=path, reason=reason, owners=tuple(sorted(name.owners)))

    def _keep_parents(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0] or b"/"
        while parent not in self.kept:
            _, name = self._dropped.pop(parent, (None, Name(origin="parent")))
            self._missing.pop(parent, None)
            self.kept[parent] = name
            parent = parent.rpartition(b"/")[0] or b"/"

    def _is_hashed(self, path: bytes) -> bool:
        """Only what others may read is hashed, so that all users record the same."""
        name = self.kept[path]
        found = None if name.made_at_entry or name.target is not None else self.tree.lstat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)

    def _entry(self, path: bytes, digests: Mapping[bytes, str]) -> FileEntry:
        name = self.kept[path]
        owners = tuple(sorted(name.owners))
        if name.made_at_entry:
            return FileEntry(
                path=path, kind="regular", mode=0o644, owners=owners, origin=name.origin, detail=name.detail
            )
        found = None if name.target is not None else self.tree.lstat(path)
        if found is None and name.target is None:  # holds what we make, and is not on the disk
            return FileEntry(path=path, kind="directory", mode=0o755, owners=owners, origin=name.origin)
        kind = _kind(found) or "symlink"
        regular = found if kind == "regular" else None
        target = name.target
        if kind == "symlink" and target is None:
            target = self.tree.readlink(path)
        return FileEntry(
            path=path,
            kind=kind,
            mode=0o777 if found is None or kind == "symlink" else stat.S_IMODE(found.st_mode),
            size=regular.st_size if regular is not None else None,
            target=target,
            sha256=digests.get(path),
            owners=owners,
            origin=name.origin,
            detail=name.detail,
        )


def _kind(found: os.stat_result | None) -> str | None:
    return None if found is None else _KINDS.get(stat.S_IFMT(found.st_mode))
