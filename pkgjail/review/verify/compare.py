"""Compare the names of a manifest with what is below a root."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import NOUNS, OWN_CHOICE, compare, lstat
from pkgjail.core.text import raw_path
from pkgjail.core.untrusted import real_directories
from pkgjail.review.verify.result import Difference
from pkgjail.storage.hashing import hash_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.entries import MismatchKind
    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.verify.result import DifferenceKind


class Comparison(NamedTuple):
    """The differences, the files that were not read, and how many names and files were compared."""

    differences: tuple[Difference, ...]
    unread: tuple[bytes, ...]
    names: int
    hashed: int


def compare_names(
    entries: Sequence[FileEntry], root: bytes, *, quick: bool, reporter: Reporter
) -> Comparison:
    """Compare each entry with what is below the real path `root`.

    Files that are made at entry are left out, and so are links of alternatives that only a jail has.
    """
    prefix = root.rstrip(b"/")
    differences: list[Difference] = []
    content: list[FileEntry] = []
    unread: list[bytes] = []
    compared = [e for e in entries if e.origin != "entry" and not e.detail.endswith(OWN_CHOICE)]
    directories = real_directories(entries, root)
    for entry in compared:
        found = lstat(prefix + entry.path) if entry.path.rpartition(b"/")[0] in directories else None
        metadata = list(_compare_metadata(entry, prefix + entry.path, found))
        differences += metadata
        if not quick and entry.kind == "regular" and all(each.what == "mode" for each in metadata):
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
    return Comparison(tuple(differences), tuple(unread), len(compared), 0 if quick else len(content))


def _difference(entry: FileEntry, what: DifferenceKind, detail: str) -> Difference:
    return Difference(path=entry.path, what=what, detail=detail, owners=entry.owners)


def _compare_metadata(entry: FileEntry, path: bytes, found: os.stat_result | None) -> Iterator[Difference]:
    """Yield the differences that can be found without reading the file."""
    # A directory that no package lists is only there for its content; the host chooses its mode.
    mode = None if entry.origin == "parent" else entry.mode
    for mismatch in compare(entry, path, found, mode=mode):
        if mismatch.what != "target" or not _is_same_place(entry, mismatch.found):
            kind, detail = _DETAILS[mismatch.what]
            noun = NOUNS[entry.kind]
            text = detail.format(noun=noun, expected=mismatch.expected, found=mismatch.found)
            yield _difference(entry, kind, text)


_DETAILS: dict[MismatchKind, tuple[DifferenceKind, str]] = {
    "missing": ("missing", "there is no such {noun}"),
    "kind": ("kind", "it is a {found}, not a {expected}"),
    "target": ("target", "it leads to {found}, not to {expected}"),
    "mode": ("mode", "its mode is {found}, not {expected}"),
    "size": ("content", "it has {found} bytes, not {expected}"),
}


def _is_same_place(entry: FileEntry, target: str) -> bool:
    """Return whether a link leads where the manifest's does; for alternatives it records the final target."""
    if entry.origin != "alternative":
        return False
    place = posixpath.join(posixpath.dirname(entry.path), raw_path(target))
    return posixpath.normpath(place) == posixpath.normpath(entry.target or b"")
