"""Data overlays: a directory of the jail is one overlay mount, whatever its number of files.

The layer has an empty file of the right size for each regular file of the manifest. Its extended
attributes make overlayfs take the content from the host's file of the same path ("metacopy" and
"redirect", over a data-only lower layer). A name that the layer does not have is not in the jail, so
names that come to the host later stay out. See Documentation/filesystems/overlayfs.rst, "Data-only
lower layers" and "User xattr".

An ordinary user can make the layer. `pkgjail.jails.layer_cache` stores it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry


def data_overlay_obstacle(entries: Sequence[FileEntry]) -> str:
    """Return why a data overlay cannot show these entries as the host does, or "" if it can.

    All files of a layer belong to the user who made it. If a mode gives the owner less than others, that
    user would see less than on the host.
    """
    for entry in entries:
        if entry.mode & 0o007 & ~(entry.mode >> 6):
            return f"the mode {entry.mode:04o} of {text_path(entry.path)} gives its owner less than others"
    return ""


def make_data_layer(layer: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
    """Fill the empty directory `layer` with the layer of `entries`. The first entry is the top directory.

    Raises:
        OSError: it cannot be made there; `ENOTSUP` if the file system has no user attributes.

    """
    top = entries[0].path
    prefix = root.rstrip(b"/")
    for entry in entries[1:]:
        inner = entry.path[len(top) :]
        if entry.kind == "directory":
            _refuse_other_kind(prefix + entry.path)
            os.mkdir(layer + inner, 0o700)
        elif entry.kind == "symlink":
            os.symlink(entry.target or b"", layer + inner)
        elif entry.origin == "entry":  # each jail mounts a file of its own over it
            os.close(os.open(layer + inner, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        else:
            _make_file(layer + inner, inner, entry, os.lstat(prefix + entry.path).st_mtime_ns)
    for entry in reversed(entries):  # inner ones first: some are not writable afterwards
        if entry.kind == "directory":
            os.chmod(layer + entry.path[len(top) :], entry.mode)


def data_layer_fits(layer: bytes, entries: Sequence[FileEntry], root: bytes) -> bool:
    """Check whether `make_data_layer` would now make the same as `layer`, which it made of the same entries.

    Of the host's state, a layer has nothing but the times of files.
    """
    top, prefix = entries[0].path, root.rstrip(b"/")
    try:
        for entry in entries[1:]:
            if entry.kind == "directory":
                _refuse_other_kind(prefix + entry.path)
            elif entry.kind == "regular" and entry.origin != "entry":
                in_layer = os.lstat(layer + entry.path[len(top) :])
                if in_layer.st_mtime_ns != os.lstat(prefix + entry.path).st_mtime_ns:
                    return False
    except OSError:
        return False
    return True


def _refuse_other_kind(directory: bytes) -> None:
    """Refuse a path of the host that is no longer a directory. It may be missing.

    Overlayfs follows no link to the content of a directory.
    """
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
