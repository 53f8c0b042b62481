"""File binds: each file of the manifest is one bind mount. Names that come to the host later stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.sandbox.steps import Content, Directory, HostFile, Symlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import FileEntry
    from pkgjail.sandbox.steps import Step


def file_step(entry: FileEntry, entry_files: Mapping[bytes, bytes]) -> Step:
    """Return the step that shows one entry.

    Args:
        entry: the manifest's.
        entry_files: the content of the files that are made at entry; a file that is missing is empty.

    """
    if entry.kind == "directory":
        return Directory(entry.path, entry.mode)
    if entry.kind == "symlink":
        return Symlink(entry.path, entry.target or b"")
    if entry.origin == "entry":
        return Content(entry.path, entry.mode, entry_files.get(entry.path, b""))
    return HostFile(entry.path, entry.mode, entry.size)
