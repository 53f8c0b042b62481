"""Directories of a test's own as entries of a manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.entries import kind_and_mode
from pkgjail.core.model import FileEntry

if TYPE_CHECKING:
    from pathlib import Path


def entries_below(place: Path, shown_at: bytes, *, parents: bool = False) -> list[FileEntry]:
    """A directory and all in it, as a manifest has them at `shown_at`; with `parents` those above too."""
    above = [_entry(os.fsencode(path), os.fsencode(path)) for path in place.parents[:-1]] if parents else []
    prefix = len(os.fsencode(place))
    found = [os.fsencode(path) for path in (place, *place.rglob("*"))]
    return above + [_entry(path, shown_at + path[prefix:]) for path in found]


def _entry(path: bytes, shown: bytes) -> FileEntry:
    found = os.lstat(path)
    kind, mode = kind_and_mode(found.st_mode)
    assert kind is not None, path
    return FileEntry(
        path=shown,
        kind=kind,
        mode=mode,
        size=found.st_size if kind == "regular" else None,
        target=os.readlink(path) if kind == "symlink" else None,
        owners=("x:all",),
    )
