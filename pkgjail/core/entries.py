"""Facts about files: their kinds, and how what is on the disk differs from what was recorded.

A mismatch is data. `describe` makes the words for it, where it is shown.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from stat import S_IFMT, S_IMODE
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, FileKind

KINDS: dict[int, FileKind] = {
    stat.S_IFREG: "regular",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
}
"""The kinds of files that can be in a jail, by the format bits of `st_mode` (inode(7))."""

NOUNS: dict[FileKind, str] = {
    "regular": "regular file",
    "directory": "directory",
    "symlink": "symbolic link",
}
"""The words for each kind."""

LINK_MODE = 0o777
"""The mode of every symbolic link in a manifest; Linux has no other."""

COPIED_BITS = 0o1777
"""The mode bits that a copy of a file may have. It gives nobody a right that its owner does not have:
set-user-ID and set-group-ID bits would apply to whoever copied the file."""

OWN_CHOICE = " (the host's choice is not in the set)"
"""The end of an entry's `detail` if the jail has another alternative than the host."""

_OTHER_NOUNS = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}


def kind_of(mode: int) -> FileKind | None:
    """Return the kind of a file with this `st_mode`; None if it cannot be in a jail."""
    return KINDS.get(S_IFMT(mode))


@cache
def kind_and_mode(mode: int) -> tuple[FileKind | None, int]:
    """Return the kind of a file with this `st_mode`, and the mode bits that a manifest has for it."""
    kind = kind_of(mode)
    return kind, LINK_MODE if kind == "symlink" else S_IMODE(mode)


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
    return _OTHER_NOUNS.get(S_IFMT(mode), "file of an unknown kind") if kind is None else NOUNS[kind]


MismatchKind = Literal[
    "missing",
    "kind",
    "replaced",
    "target",
    "mode",
    "size",
    "content",
    "undigested",
    "unreadable",
    "unreachable",
    "linked",
    "mounted",
    "extra",
    "undeletable",
    "moved",
    "manifest",
    "record",
]

_WORDS: dict[MismatchKind, str] = {
    "missing": "is gone",
    "kind": "is no longer a {expected}",
    "replaced": "was replaced by another {expected}",
    "target": "is a link to somewhere else",
    "mode": "has mode {found}, not {expected}",
    "size": "has {found} bytes, not {expected}",
    "content": "has other content",
    "undigested": "was changed or replaced, and the manifest has no digest of it",
    "unreadable": "has changed, and cannot be read: {found}",
    "unreachable": "cannot be opened: {found}",
    "linked": "is reached through a symbolic link",
    "mounted": "is a mount point",
    "extra": "was not made by pkgjail",
    "undeletable": "cannot be deleted: {found}",
    "moved": "was moved away",
    "manifest": "is not the manifest that the environment was built from",
    "record": "has no record of {expected}: {found}",
}


class Mismatch(NamedTuple):
    """One way in which a name is not as it was recorded.

    `expected` and `found` are what was recorded and what is there, as text: nouns for kinds, octal digits
    for modes, digests in hex. `found` is the system's reason where something could not be done.
    """

    what: MismatchKind
    expected: str = ""
    found: str = ""


MISSING = Mismatch("missing")


def failure(what: MismatchKind, error: OSError) -> Mismatch:
    """Return the mismatch for something that the system refused."""
    return Mismatch(what, found=error.strerror or str(error))


def describe(mismatch: Mismatch) -> str:
    """Return the words for a mismatch: they end a sentence that begins with the path."""
    return _WORDS[mismatch.what].format(expected=mismatch.expected, found=mismatch.found)


def drops_bits(entry: FileEntry) -> bool:
    """Check whether a copy of this entry has fewer mode bits than the host's file."""
    return entry.kind != "symlink" and bool(entry.mode & ~COPIED_BITS)


class Recorded(Protocol):
    """A name as a manifest or an environment's record has it."""

    @property
    def kind(self) -> FileKind:
        """The kind of file."""
        ...

    @property
    def size(self) -> int | None:
        """The bytes of a regular file."""
        ...

    @property
    def target(self) -> bytes | None:
        """The text of a symbolic link."""
        ...


def lstat(path: bytes) -> os.stat_result | None:
    """Return what is at `path`, a symbolic link itself included; None if nothing can be seen there."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def compare(  # noqa: PLR0913 - what, and by name how
    recorded: Recorded,
    path: bytes,
    found: os.stat_result | None,
    *,
    mode: int | None = None,
    inode: int = 0,
    dir_fd: int | None = None,
) -> tuple[Mismatch, ...]:
    """Compare a name with what is on the disk, without reading a file's content.

    Args:
        recorded: what the name should be.
        path: where it is, relative to `dir_fd` if that is given.
        found: what is there: the result of lstat(2), None for nothing.
        mode: the permission bits that it should have; None for any.
        inode: the number of the inode that it should be; 0 for any.
        dir_fd: a directory's descriptor.

    Returns:
        Every mismatch; one of another kind, or another inode, is not looked at further.

    Raises:
        OSError: a symbolic link cannot be read.

    """
    if found is None:
        return (MISSING,)
    st_mode = found.st_mode
    kind = KINDS.get(S_IFMT(st_mode))  # no call: it is made for thousands of names
    if kind != recorded.kind:
        return (Mismatch("kind", NOUNS[recorded.kind], noun_of(st_mode)),)
    if inode and found.st_ino != inode:
        return (Mismatch("replaced", NOUNS[recorded.kind]),)
    if kind == "symlink":
        target = os.readlink(path, dir_fd=dir_fd)
        if target == recorded.target:
            return ()
        return (Mismatch("target", text_path(recorded.target or b""), text_path(target)),)
    mismatches: tuple[Mismatch, ...] = ()
    if mode is not None and S_IMODE(st_mode) != mode:
        mismatches = (Mismatch("mode", f"{mode:04o}", f"{S_IMODE(st_mode):04o}"),)
    if kind == "regular" and found.st_size != recorded.size:
        mismatches += (Mismatch("size", str(recorded.size), str(found.st_size)),)
    return mismatches
