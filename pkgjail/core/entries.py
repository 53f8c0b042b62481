"""Kinds of files: between the mode of stat(2), the names in a manifest, and the words for people."""

from __future__ import annotations

import stat
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from pkgjail.core.model import FileKind

KINDS: dict[int, FileKind] = {
    stat.S_IFREG: "regular",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
}
"""What can be in a jail, by the format bits of `st_mode` (inode(7))."""

NOUNS: dict[FileKind, str] = {
    "regular": "regular file",
    "directory": "directory",
    "symlink": "symbolic link",
}
"""The words for each kind."""

LINK_MODE = 0o777
"""The mode of every symbolic link in a manifest; Linux has no other."""

_OTHER_NOUNS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}


def kind_of(mode: int) -> FileKind | None:
    """Return the kind of a file with this `st_mode`; None if it cannot be in a jail."""
    return KINDS.get(stat.S_IFMT(mode))


@cache
def kind_and_mode(mode: int) -> tuple[FileKind | None, int]:
    """Return the kind of a file with this `st_mode`, and the mode bits that a manifest has for it."""
    kind = kind_of(mode)
    return kind, LINK_MODE if kind == "symlink" else stat.S_IMODE(mode)


def kind_of_item(item: os.DirEntry[bytes]) -> FileKind | None:
    """Return the same for an item of scandir(3), which usually needs no system call."""
    if item.is_symlink():
        return "symlink"
    if item.is_dir(follow_symlinks=False):
        return "directory"
    return "regular" if item.is_file(follow_symlinks=False) else None


def noun_of(mode: int) -> str:
    """Return the words for a file with this `st_mode`."""
    kind = kind_of(mode)
    return _OTHER_NOUNS.get(stat.S_IFMT(mode), "file of an unknown kind") if kind is None else NOUNS[kind]
