"""The file set of a whole image: all of its names that every user may see, and the files made at entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.entries import LINK_MODE
from pkgjail.core.jail_names import ENTRY_FILES, KERNEL_DIRECTORIES, TMP
from pkgjail.core.model import FileEntry, FileSet, Missing
from pkgjail.images.model import disk_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.images.model import ImageEntry

_OTHERS_READ, _OTHERS_SEARCH = 0o004, 0o001
_DETAIL = "the whole image"


def whole_file_set(entries: Mapping[bytes, ImageEntry]) -> FileSet:
    """Return the file set of an image with these entries, by their paths relative to its root.

    As in every manifest, a name below a directory that others may not search is missing, so that all users
    get the same, and nothing is below the directories that the jail mounts itself.
    """
    found: dict[bytes, FileEntry] = {}
    missing: list[Missing] = []
    closed: set[bytes] = set()
    for relative, entry in sorted(entries.items(), key=lambda item: b"/" + item[0]):
        path = b"/" + relative
        parent = path.rpartition(b"/")[0]
        if parent in closed:
            missing.append(Missing(path=path, reason="private"))
        if parent in closed or (entry.kind == "directory" and not entry.mode & _OTHERS_SEARCH):
            closed.add(path)
        if parent not in closed and not path.startswith(_MOUNTED):
            found[path] = _entry(path, entry)
    for path in ENTRY_FILES:
        if b"/etc" in found and found[b"/etc"].kind == "directory":
            found[path] = FileEntry(path, "regular", 0o644, origin="entry", detail="pkgjail")
    files = tuple(sorted(found.values(), key=lambda entry: entry.path))
    return FileSet(entries=files, missing=tuple(missing))


def _entry(path: bytes, entry: ImageEntry) -> FileEntry:
    mode = LINK_MODE if entry.kind == "symlink" else disk_mode(entry)
    sha256 = entry.sha256 if mode & _OTHERS_READ else None
    return FileEntry(path, entry.kind, mode, entry.size, entry.target, sha256, (), "include", _DETAIL)


_MOUNTED = tuple(path + b"/" for path in (*KERNEL_DIRECTORIES, TMP))
