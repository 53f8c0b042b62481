"""File binds: each file of the manifest is one bind mount. Names that come to the host later stay out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.sandbox.steps import Content, Directory, HostFile, Symlink

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry
    from pkgjail.sandbox.steps import Step


def file_step(entry: FileEntry, content: bytes | None) -> Step:
    """Return the step that shows one entry.

    Args:
        entry: the manifest's.
        content: the content of a file that is made at entry; None binds the host's.

    """
    if entry.kind == "directory":
        return Directory(entry.path, entry.mode)
    if entry.kind == "symlink":
        return Symlink(entry.path, entry.target or b"")
    if content is not None:
        return Content(entry.path, entry.mode, content)
    return HostFile(entry.path, entry.mode, entry.size)
