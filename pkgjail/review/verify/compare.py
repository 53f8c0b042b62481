"""The names of a manifest, each held against what is below a root."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import NOUNS, kind_of, noun_of
from pkgjail.core.model import text_path
from pkgjail.core.untrusted import real_directories
from pkgjail.review.verify.result import Difference
from pkgjail.storage.hashing import hash_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.verify.result import Aspect

# How `pkgjail.fileset` marks links of a jail's own: the host's lead elsewhere from the beginning.
_OURS = "(the host's choice is not in the set)"


class Compared(NamedTuple):
    """The differences, which files were not read, and how many names and files were looked at."""

    differences: tuple[Difference, ...]
    unread: tuple[bytes, ...]
    names: int
    hashed: int


def compare_names(entries: Sequence[FileEntry], root: bytes, *, quick: bool, reporter: Reporter) -> Compared:
    """Hold each entry that a host has against what is below the real path `root`.

    Left out is what is made at entry, and links of alternatives that only a jail has.
    """
    prefix = root.rstrip(b"/")
    differences: list[Difference] = []
    content: list[FileEntry] = []
    unread: list[bytes] = []
    looked = [e for e in entries if e.origin != "entry" and not e.detail.endswith(_OURS)]
    there = real_directories(entries, root)
    for entry in looked:
        found = _lstat(prefix + entry.path) if entry.path.rpartition(b"/")[0] in there else None
        here = list(_metadata(entry, prefix + entry.path, found))
        differences += here
        if not quick and entry.kind == "regular" and all(each.what == "mode" for each in here):
            if entry.sha256 is None or not os.access(prefix + entry.path, os.R_OK):
                unread.append(entry.path)
            else:
                content.append(entry)
    if not quick:
        digests = hash_files([entry.path for entry in content], root=root, reporter=reporter)
        for entry in content:
            if digests[entry.path] != entry.sha256:
                detail = f"its SHA-256 is {digests[entry.path]}, not {entry.sha256}"
                differences.append(_difference(entry, "content", detail))
    return Compared(tuple(differences), tuple(unread), len(looked), 0 if quick else len(content))


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _difference(entry: FileEntry, what: Aspect, detail: str) -> Difference:
    return Difference(path=entry.path, what=what, detail=detail, owners=entry.owners)


def _metadata(entry: FileEntry, path: bytes, found: os.stat_result | None) -> Iterator[Difference]:
    """All that a look without reading tells."""
    if found is None:
        yield _difference(entry, "missing", f"there is no such {NOUNS[entry.kind]}")
        return
    if kind_of(found.st_mode) != entry.kind:
        detail = f"it is a {noun_of(found.st_mode)}, not a {NOUNS[entry.kind]}"
        yield _difference(entry, "kind", detail)
        return
    if entry.kind == "symlink":
        target = os.readlink(path)
        if not _same_target(entry, target):
            wanted = text_path(entry.target or b"")
            yield _difference(entry, "target", f"it leads to {text_path(target)}, not to {wanted}")
        return
    mode = stat.S_IMODE(found.st_mode)
    # What no package lists stands for what is in it; its mode is the host's own business.
    if mode != entry.mode and entry.origin != "parent":
        yield _difference(entry, "mode", f"its mode is {mode:04o}, not {entry.mode:04o}")
    if entry.kind == "regular" and found.st_size != entry.size:
        yield _difference(entry, "content", f"it has {found.st_size} bytes, not {entry.size}")


def _same_target(entry: FileEntry, target: bytes) -> bool:
    """Whether a link is the manifest's; those of alternatives stand there with the place they lead to."""
    if target == entry.target or entry.origin != "alternative":
        return target == entry.target
    place = posixpath.join(posixpath.dirname(entry.path), target)
    return posixpath.normpath(place) == posixpath.normpath(entry.target or b"")
