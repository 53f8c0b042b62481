"""Metadata trees: a directory of the jail as one overlay mount, whatever number of files it has.

A tree has an empty file of the right size for each regular file of the manifest, with the extended
attributes that make overlayfs take the content from the host's file of the same path ("metacopy"
and "redirect", over a data-only lower layer). What the tree does not name is not there: names that
come to the host later stay out. See Documentation/filesystems/overlayfs.rst, "Data-only lower
layers" and "User xattr".

A tree is made by an ordinary user and kept by `pkgjail.jail.layer_cache`.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.model import text_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry


def why_no_tree(entries: Sequence[FileEntry]) -> str:
    """Why a tree would not show these entries as the host does; "" where it would.

    All in a tree belongs to whoever made it: where a mode gives the owner less than others have, that
    user would see less than on the host.
    """
    for entry in entries:
        if entry.mode & 0o007 & ~(entry.mode >> 6):
            return f"the mode {entry.mode:04o} of {text_path(entry.path)} gives its owner less than others"
    return ""


def make_tree(new: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
    """Fill the empty directory `new` with the tree of `entries`, of which the first is its top.

    Raises:
        OSError: it cannot be made there; `ENOTSUP` where the filesystem keeps no user attributes.

    """
    top = entries[0].path
    prefix = root.rstrip(b"/")
    for entry in entries[1:]:
        inner = entry.path[len(top) :]
        if entry.kind == "directory":
            _refuse_another_kind(prefix + entry.path)
            os.mkdir(new + inner, 0o700)
        elif entry.kind == "symlink":
            os.symlink(entry.target or b"", new + inner)
        elif entry.origin == "entry":  # what each entry covers with its own
            os.close(os.open(new + inner, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        else:
            _make_file(new + inner, inner, entry, os.lstat(prefix + entry.path).st_mtime_ns)
    for entry in reversed(entries):  # inner ones first: some may not be written to afterwards
        if entry.kind == "directory":
            os.chmod(new + entry.path[len(top) :], entry.mode)


def tree_fits(tree: bytes, entries: Sequence[FileEntry], root: bytes) -> bool:
    """Whether `make_tree` would make the same as `tree`, which it made earlier of the same entries.

    Of the host's files a tree has nothing of its own but the times.
    """
    top, prefix = entries[0].path, root.rstrip(b"/")
    try:
        for entry in entries[1:]:
            if entry.kind == "directory":
                _refuse_another_kind(prefix + entry.path)
            elif entry.kind == "regular" and entry.origin != "entry":
                mine = os.lstat(tree + entry.path[len(top) :])
                if mine.st_mtime_ns != os.lstat(prefix + entry.path).st_mtime_ns:
                    return False
    except OSError:
        return False
    return True


def _refuse_another_kind(directory: bytes) -> None:
    """Overlayfs follows no link to what is in a directory of the host; it need not be there at all."""
    if os.path.lexists(directory) and not stat.S_ISDIR(os.lstat(directory).st_mode):
        raise OSError(errno.ENOTDIR, "is no longer a directory", directory)


def _make_file(path: bytes, inner: bytes, entry: FileEntry, mtime: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, entry.size or 0)
        os.setxattr(descriptor, "user.overlay.metacopy", b"")
        os.setxattr(descriptor, "user.overlay.redirect", inner)
        os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, ns=(mtime, mtime))
    except OSError as error:
        raise OSError(error.errno, error.strerror, text_path(path)) from None
    finally:
        os.close(descriptor)
