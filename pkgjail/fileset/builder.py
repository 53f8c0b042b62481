"""Build a file set: each layer adds names, and the blacklist decides about each of them once."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import LINK_MODE, kind_and_mode
from pkgjail.core.model import Dropped, FileEntry, FileSet, Missing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.model import FileKind, MissingReason, Origin
    from pkgjail.fileset.rootfs import Tree
    from pkgjail.policy.patterns import Matcher

    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]


class Name(NamedTuple):
    """The owners and origin of a name in the jail. `owners` are sorted.

    With `made_by_jail`, the jail makes it regardless of the disk: a symbolic link to `target`, or without
    a target, a file that is made at entry.
    """

    owners: tuple[str, ...] = ()
    origin: Origin = "package"
    detail: str = ""
    made_by_jail: bool = False
    target: bytes | None = None


class FileSetBuilder:
    """Decides for each real path whether it is kept, dropped by a rule, or missing from the disk."""

    def __init__(self, tree: Tree, blacklist: Matcher) -> None:
        """Begin with an empty set; `tree` examines the disk."""
        self.tree = tree
        self.kept: dict[bytes, Name] = {}
        self._blacklist = blacklist
        self._labels = {rule: f"{rule.origin}: {rule.pattern}" for rule in blacklist.rules}
        self._dropped: dict[bytes, tuple[str, Name]] = {}
        self._missing: dict[bytes, Missing] = {}
        self._links: list[tuple[bytes, tuple[bytes, ...]]] = []

    def add(self, names: Mapping[bytes, Name]) -> None:
        """Decide about names by real path. Earlier decisions stay.

        However, the jail can still make a name that is missing from the disk.
        """
        kept, blacklist = self.kept, self._blacklist if self._labels else None
        states = self.tree.lstat_all(path for path, name in names.items() if not name.made_by_jail)
        for path, name in names.items():
            if path in kept or path in self._dropped:
                continue
            found = states.get(path)
            kind = None if found is None else kind_and_mode(found.st_mode)[0]
            rule = blacklist(path, is_directory=kind == "directory") if blacklist is not None else None
            if rule is not None:
                self._dropped[path] = (self._labels[rule], name)
            elif kind or name.made_by_jail:
                kept[path] = name
                self._missing.pop(path, None)
            else:
                self._miss(path, name, found)

    def real_path(self, path: bytes) -> bytes:
        """Return the real path of `path`. If that is kept, the links that lead there are kept too."""
        real = self.tree.real(path)
        if real != path:
            self._links.append((real, self.tree.links_above(path)))
        return real

    def real_paths(self, paths: Sequence[bytes]) -> Sequence[bytes]:
        """Return `real_path` of each of `paths`. Most lists have none that goes through a link."""
        directories = {path[: path.rfind(b"/")] for path in paths}
        moved = {directory for directory in directories if self.tree.real_directory(directory) != directory}
        if not moved:
            return paths
        return [self.real_path(path) if path[: path.rfind(b"/")] in moved else path for path in paths]

    def has(self, path: bytes) -> bool:
        """Return whether `path`, which need not be real, is kept so far."""
        return self.tree.real(path) in self.kept

    def was_dropped(self, path: bytes) -> bool:
        """Return whether a rule dropped `path`, which need not be real."""
        return self.tree.real(path) in self._dropped

    def drops(self, path: bytes) -> bool:
        """Return whether the blacklist would drop `path`, which need not be real."""
        return self._blacklist(self.tree.real(path), is_directory=False) is not None

    def is_decided(self, path: bytes) -> bool:
        """Return whether there is a decision about the real path `path`."""
        return path in self.kept or path in self._dropped or path in self._missing

    def finish(self, hasher: Hasher | None) -> FileSet:
        """Keep the directories above kept names, and return the file set.

        A directory that a rule dropped is kept after all if something below it is. The links of a merged /usr
        are kept if a name below their targets is: programs name their loader as `/lib64/...` even if packages
        list `/usr/lib64/...`, as they do from Debian 13 on, and another package has the link.
        """
        links_above = {link for place, links in self._links if place in self.kept for link in links}
        links_above |= {link for link, target in self.tree.merged_links() if self._has_below(target)}
        self.add({link: Name(origin="parent") for link in links_above if not self.is_decided(link)})
        for directory in {path[: path.rfind(b"/")] or b"/" for path in self.kept}:
            self._keep_directory(directory)
        kept = [(path, self.kept[path]) for path in sorted(self.kept)]
        digests = hasher([path for path, name in kept if self._is_hashed(path, name)]) if hasher else {}
        return FileSet(
            entries=tuple([self._entry(path, name, digests.get(path)) for path, name in kept]),
            dropped=tuple(Dropped(path=path, rule=rule) for path, (rule, _) in sorted(self._dropped.items())),
            missing=tuple(self._missing[path] for path in sorted(self._missing)),
        )

    def _has_below(self, directory: bytes) -> bool:
        below = directory + b"/"
        return any(path.startswith(below) for path in self.kept)

    def _miss(self, path: bytes, name: Name, found: os.stat_result | None) -> None:
        reason: MissingReason
        reason = "special" if found is not None else "private" if self.tree.is_private(path) else "absent"
        self._missing[path] = Missing(path=path, reason=reason, owners=name.owners)

    def _keep_directory(self, directory: bytes) -> None:
        """Keep a directory, and those above it, regardless of earlier decisions."""
        while directory not in self.kept:
            _, name = self._dropped.pop(directory, (None, Name(origin="parent")))
            self._missing.pop(directory, None)
            self.kept[directory] = name
            directory = directory[: directory.rfind(b"/")] or b"/"

    def _is_hashed(self, path: bytes, name: Name) -> bool:
        """Return whether others may read the file. No other is hashed, so that all users record the same."""
        found = None if name.made_by_jail else self.tree.lstat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)

    def _entry(self, path: bytes, name: Name, sha256: str | None) -> FileEntry:
        found = None if name.made_by_jail else self.tree.lstat(path)
        kind, mode = (None, 0) if found is None else kind_and_mode(found.st_mode)
        if found is None or kind is None:
            return _made_entry(path, name)
        size = found.st_size if kind == "regular" else None
        target = self.tree.readlink(path) if kind == "symlink" else None
        return FileEntry(path, kind, mode, size, target, sha256, name.owners, name.origin, name.detail)


def _made_entry(path: bytes, name: Name) -> FileEntry:
    """Return the entry of a link or file that the jail makes, or of a directory for these."""
    kind: FileKind
    kind, mode = ("regular", 0o644) if name.made_by_jail else ("directory", 0o755)
    if name.target is not None:
        kind, mode = "symlink", LINK_MODE
    return FileEntry(path, kind, mode, None, name.target, None, name.owners, name.origin, name.detail)
