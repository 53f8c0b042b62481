"""Make entries of a manifest from a test's own directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.entries import kind_and_mode
from pkgjail.core.model import FileEntry

if TYPE_CHECKING:
    from pathlib import Path


def entries_below(place: Path, shown_at: bytes, *, parents: bool = False) -> list[FileEntry]:
    """Return entries for a directory and its content, at `shown_at`; with `parents` also those above."""
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
