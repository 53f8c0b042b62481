"""Metadata trees: a directory of the jail as one overlay mount, whatever number of files it has.

A tree has an empty file of the right size for each regular file of the manifest, with the extended
attributes that make overlayfs take the content from the host's file of the same path ("metacopy"
and "redirect", over a data-only lower layer). What the tree does not name is not there: names that
come to the host later stay out. See Documentation/filesystems/overlayfs.rst, "Data-only lower
layers" and "User xattr".

A tree is made once by an ordinary user and kept in the user's runtime directory by what it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.cache import remove_tree
from pkgjail.model import text_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.model import FileEntry, Manifest

# A mount for each file is as quick below this many names.
_WORTH_IT = 500


def trees_of(manifest: Manifest) -> dict[bytes, tuple[FileEntry, ...]]:
    """The top directories for which a tree is worth its while, each with its entries by path."""
    tops: dict[bytes, list[FileEntry]] = {}
    for entry in manifest.files:
        top = b"/" + entry.path.split(b"/", 2)[1]
        tops.setdefault(top, []).append(entry)
    return {
        top: tuple(entries)
        for top, entries in tops.items()
        if len(entries) >= _WORTH_IT
        and entries[0].path == top
        and entries[0].kind == "directory"
        and can_have_tree(entries)
    }


def can_have_tree(entries: Sequence[FileEntry]) -> bool:
    """Whether a tree would show these entries as the host does.

    A file made at entry differs from entry to entry. And all in a tree belongs to whoever made it:
    where a mode gives the owner less than others have, that user would see less than on the host.
    """
    return all(entry.origin != "entry" and not entry.mode & 0o007 & ~(entry.mode >> 6) for entry in entries)


def ensure_tree(entries: Sequence[FileEntry], root: bytes, cache: Path) -> Path:
    """The tree of `entries` (the first is its top directory), made now where the cache has none.

    Safe beside others that make the same one: a tree gets its name when it is whole.

    Raises:
        OSError: it cannot be made there; `ENOTSUP` where the filesystem keeps no user attributes.

    """
    place = cache / "trees" / _digest(entries, root)
    if place.is_dir():
        os.utime(place)  # when it was last used, for `pkgjail cache prune`
        return place
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = tempfile.mkdtemp(prefix=".new-", dir=place.parent)
    try:
        _make(os.fsencode(new), entries, root)
        with contextlib.suppress(FileExistsError, OSError):
            os.rename(new, place)
    finally:
        if os.path.isdir(new):
            remove_tree(Path(new))
    return place


def _digest(entries: Sequence[FileEntry], root: bytes) -> str:
    """Changes with all that a tree is made from."""
    state = hashlib.sha256(repr(root).encode())
    for entry in entries:
        state.update(repr((entry.path, entry.kind, entry.mode, entry.size, entry.target)).encode())
    return state.hexdigest()


def _make(new: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
    top = entries[0].path
    prefix = root.rstrip(b"/")
    for entry in entries[1:]:
        inner = entry.path[len(top) :]
        if entry.kind == "directory":
            os.mkdir(new + inner, 0o700)
        elif entry.kind == "symlink":
            os.symlink(entry.target or b"", new + inner)
        else:
            _make_file(new + inner, inner, entry, os.lstat(prefix + entry.path).st_mtime_ns)
    for entry in reversed(entries):  # inner ones first: some may not be written to afterwards
        if entry.kind == "directory":
            os.chmod(new + entry.path[len(top) :], entry.mode)


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
