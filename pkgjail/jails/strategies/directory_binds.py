"""Directory binds: a directory is one bind mount if the manifest allows all that the host has in it.

For hosts that cannot have overlays. Each entry looks at what is in these directories. A name that comes
to one of them later, while a jail runs, can be seen in the jail.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.entries import compare, kind_of_item
from pkgjail.sandbox.steps import WholeDirectory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pkgjail.core.model import FileEntry, FileKind

# A bind mount of a single file costs no more, and stays closed to names that come later.
_LEAST_FILES = 2


def directory_bind_steps(
    entries: Sequence[FileEntry], root: bytes, excluded: Collection[bytes]
) -> dict[bytes, WholeDirectory]:
    """Return steps for the outermost directories in which the host has what the manifest has, and no more.

    Args:
        entries: a top directory and what is in it, by path.
        root: the directory of the host's files, a real path.
        excluded: paths that no directory bind may contain: other mounts, and mount points that are still to
            be made.

    """
    members: dict[bytes, list[FileEntry]] = {e.path: [] for e in entries if e.kind == "directory"}
    for entry in entries[1:]:
        members[entry.path.rpartition(b"/")[0]].append(entry)
    unsuitable = {parent for path in excluded for parent in _parents(path)}
    file_counts: dict[bytes, int] = {}  # how many regular files are in each suitable directory
    for entry in reversed(entries):
        if entry.kind == "directory" and entry.path not in unsuitable:
            inner = members[entry.path]
            if all(e.kind != "directory" or e.path in file_counts for e in inner) and _matches_host(
                entry, inner, root.rstrip(b"/")
            ):
                file_counts[entry.path] = sum(file_counts.get(e.path, e.kind == "regular") for e in inner)
    worthwhile = {path for path, count in file_counts.items() if count >= _LEAST_FILES}
    return {
        entry.path: WholeDirectory(entry.path, entry.mode)
        for entry in entries
        if entry.path in worthwhile and entry.path.rpartition(b"/")[0] not in worthwhile
    }


def _parents(path: bytes) -> list[bytes]:
    """Return the directories that `path` is in."""
    return [path[:end] for end in range(1, len(path)) if path[end : end + 1] == b"/"]


def _matches_host(directory: FileEntry, members: Sequence[FileEntry], prefix: bytes) -> bool:
    """Check whether the host has a directory of this mode, with exactly these names of these kinds in it."""
    path = prefix + directory.path
    try:
        if compare(directory, path, os.lstat(path), mode=directory.mode):
            return False
        with os.scandir(path) as names:
            kinds: dict[bytes, FileKind | None] = {each.name: kind_of_item(each) for each in names}
        return len(kinds) == len(members) and all(_is_same(entry, kinds, prefix) for entry in members)
    except OSError:
        return False


def _is_same(entry: FileEntry, kinds: Mapping[bytes, FileKind | None], prefix: bytes) -> bool:
    if entry.origin == "entry" or kinds.get(entry.path.rpartition(b"/")[2]) != entry.kind:
        return False
    return entry.kind != "symlink" or os.readlink(prefix + entry.path) == entry.target
