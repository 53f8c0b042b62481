"""The manifest of a copy of its files that belongs to the user: what a copy cannot have is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.entries import COPIED_BITS
from pkgjail.export.common import refuse

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest

_OTHERS_READ = 0o004
_UNREADABLE = "others may not read it"


def as_copied(manifest: Manifest) -> Manifest:
    """Return the manifest of a copy.

    No file has a set-user-ID or set-group-ID bit. A file that others may not read, so that the manifest has
    no digest of it, is empty, and nobody may read it.
    """
    return replace(manifest, files=tuple(map(_copied, manifest.files)))


def refuse_undigested(form: str, manifest: Manifest) -> None:
    """Refuse a manifest that has no digest of files that others may read.

    Raises:
        NamesError: lists all of them.

    """
    undigested = filter(_is_undigested, manifest.files)
    readable = [entry.path for entry in undigested if entry.mode & _OTHERS_READ]
    refuse(form, readable, "the manifest has no digest of it; resolve it with digests")


def _copied(entry: FileEntry) -> FileEntry:
    if entry.kind == "symlink":
        return entry
    if _is_undigested(entry):
        return entry._replace(mode=0, size=None, origin="entry", detail=_UNREADABLE)
    return entry._replace(mode=entry.mode & COPIED_BITS)


def _is_undigested(entry: FileEntry) -> bool:
    return entry.kind == "regular" and entry.origin != "entry" and entry.sha256 is None
