"""Minimal bind plans: a directory of the host is one bind mount where all that it has is allowed.

For hosts that can have no overlay. A name that comes to such a directory while a jail runs can be seen
in it; what is there at entry is looked at each time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.entries import kind_of_item
from pkgjail.sandbox.steps import WholeDirectory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pkgjail.core.model import FileEntry, FileKind

# One file by itself costs no more, and stays closed to names that come later.
_WORTH_IT = 2


def whole_directories(
    entries: Sequence[FileEntry], root: bytes, apart: Collection[bytes]
) -> dict[bytes, WholeDirectory]:
    """The outermost directories of which the host has what the manifest has, and nothing else.

    Args:
        entries: what a top directory holds by path, the directory itself first.
        root: where the host's files are, a real path.
        apart: paths below which none may be whole that holds them: other mounts, and mount points that
            are still to be made.

    """
    members: dict[bytes, list[FileEntry]] = {e.path: [] for e in entries if e.kind == "directory"}
    for entry in entries[1:]:
        members[entry.path.rpartition(b"/")[0]].append(entry)
    broken = {above for path in apart for above in _above(path)}
    files: dict[bytes, int] = {}  # of the whole ones: how many regular files are in each
    for entry in reversed(entries):
        if entry.kind == "directory" and entry.path not in broken:
            inner = members[entry.path]
            if all(e.kind != "directory" or e.path in files for e in inner) and _is_as_on_host(
                entry, inner, root.rstrip(b"/")
            ):
                files[entry.path] = sum(files.get(e.path, e.kind == "regular") for e in inner)
    worth = {path for path, count in files.items() if count >= _WORTH_IT}
    return {
        entry.path: WholeDirectory(entry.path, entry.mode)
        for entry in entries
        if entry.path in worth and entry.path.rpartition(b"/")[0] not in worth
    }


def _above(path: bytes) -> list[bytes]:
    """The directories that `path` is in."""
    return [path[:end] for end in range(1, len(path)) if path[end : end + 1] == b"/"]


def _is_as_on_host(directory: FileEntry, members: Sequence[FileEntry], prefix: bytes) -> bool:
    """Whether the host has a directory of this mode, with these names of these kinds in it."""
    path = prefix + directory.path
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) != directory.mode:
            return False
        with os.scandir(path) as names:
            kinds = {each.name: kind_of_item(each) for each in names}
        return len(kinds) == len(members) and all(_is_same(entry, kinds, prefix) for entry in members)
    except OSError:
        return False


def _is_same(entry: FileEntry, kinds: Mapping[bytes, FileKind | None], prefix: bytes) -> bool:
    if entry.origin == "entry" or kinds.get(entry.path.rpartition(b"/")[2]) != entry.kind:
        return False
    return entry.kind != "symlink" or os.readlink(prefix + entry.path) == entry.target
