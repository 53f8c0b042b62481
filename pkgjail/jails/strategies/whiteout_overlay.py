"""Whiteout overlays: a directory of the jail is one overlay mount, on kernels without data-only layers.

The layer lies over the host's directory and hides what the manifest does not have: with a whiteout (a
character device 0/0) for each such name, and with the attribute `opaque` on a directory of which nothing
of the host's may be seen. The layer itself has what is in the manifest and not on the host. All else
shows through, with its owner, mode and times. See Documentation/filesystems/overlayfs.rst, "whiteouts
and opaque directories" and "User xattr".

A layer hides the names that the host had when the layer was made. `pkgjail.jails.layer_cache` makes
another one as soon as one of the directories has changed. Names that come while a jail runs can be seen
in it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import FileEntry, Origin

# ext4 allows 65,000 links to one inode; a device for each whiteout would take 20 times as long.
_MOST_LINKS = 60_000
# An entry of these origins need not be on the host, or can be another there.
_GENERATED_ORIGINS: tuple[Origin, ...] = ("alternative", "parent")


def whiteout_overlay_obstacle(entries: Sequence[FileEntry]) -> str:
    """Return why a whiteout overlay cannot show these entries as the host does, or "" if it can.

    As with data overlays, but only directories and what the jail makes itself come from the layer.
    """
    for entry in entries:
        if entry.kind == "directory" and entry.mode & 0o007 & ~(entry.mode >> 6):
            return f"the mode {entry.mode:04o} of {text_path(entry.path)} gives its owner less than others"
    return ""


def make_whiteout_layer(layer: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
    """Fill the empty directory `layer` with the layer for `entries`. The first entry is the top directory.

    Raises:
        OSError: it cannot be made there, or a directory of the host that must be read cannot be.

    """
    top = entries[0].path
    directories = _inspect(entries, root.rstrip(b"/"))
    whiteouts = _Whiteouts(layer)
    needed = [entry for entry in entries if entry.kind == "directory" and directories[entry.path].is_needed]
    for entry in needed:
        path, directory = layer + entry.path[len(top) :], directories[entry.path]
        if entry.path != top:
            os.mkdir(path, 0o700)
        # In an opaque directory a whiteout would be listed as a name.
        for name in directory.hidden if directory.is_open or not _set_opaque(path, directory) else ():
            whiteouts.make(path + b"/" + name)
        for own in directory.own:
            _make_own(layer + own.path[len(top) :], own)
    whiteouts.finish()
    for entry in reversed(needed):  # inner ones first: some are not writable afterwards
        os.chmod(layer + entry.path[len(top) :], entry.mode)


def _make_own(path: bytes, entry: FileEntry) -> None:
    """Make a link, or an empty file over which each jail mounts one of its own."""
    if entry.kind == "symlink":
        os.symlink(entry.target or b"", path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


class _Directory(NamedTuple):
    """One directory in a layer.

    `names` are the host's (None if it may not be read), and `hidden` those of them that must not be seen.
    `own` are the links and files that are made in the layer. The directory `is_needed` in the layer unless
    it is seen exactly as the host has it, and `is_open` if something of the host's shows through it.
    """

    names: Sequence[bytes] | None
    hidden: Sequence[bytes]
    own: Sequence[FileEntry]
    is_needed: bool
    is_open: bool


def _inspect(entries: Sequence[FileEntry], prefix: bytes) -> Mapping[bytes, _Directory]:
    """Decide how to show each directory, the inner ones first, as the outer ones depend on them."""
    members: dict[bytes, list[FileEntry]] = {e.path: [] for e in entries if e.kind == "directory"}
    for entry in entries[1:]:
        members[entry.path.rpartition(b"/")[0]].append(entry)
    directories: dict[bytes, _Directory] = {}
    for entry in reversed(entries):
        if entry.kind == "directory":
            directories[entry.path] = _inspect_one(entry, members[entry.path], directories, prefix)
    top = directories[entries[0].path]
    if top.names is None:  # the top of a layer cannot be opaque
        raise OSError(errno.EACCES, "may not be read", prefix + entries[0].path)
    return {**directories, entries[0].path: top._replace(is_needed=True, is_open=True)}


def _inspect_one(
    entry: FileEntry,
    members: Sequence[FileEntry],
    directories: Mapping[bytes, _Directory],
    prefix: bytes,
) -> _Directory:
    path = prefix + entry.path
    names, mode = _list_on_host(path)
    own = [each for each in members if _is_own(each)]
    inner = [directories[each.path] for each in members if each.kind == "directory"]
    is_open = len(own) + len(inner) < len(members) or any(one.is_open or not one.is_needed for one in inner)
    if names is None and is_open:
        raise OSError(errno.EACCES, "may not be read, and something in it is to be seen", path)
    allowed = {each.path.rpartition(b"/")[2] for each in members}
    hidden = [name for name in names or () if name not in allowed]
    is_same = names is not None and mode == entry.mode
    is_needed = bool(not is_same or hidden or own or any(one.is_needed for one in inner))
    return _Directory(names, hidden, own, is_needed, is_open)


def _is_own(entry: FileEntry) -> bool:
    """Return whether the layer has a link or file itself, whatever the host has in its place."""
    return entry.origin == "entry" or (entry.kind == "symlink" and entry.origin in _GENERATED_ORIGINS)


def _list_on_host(directory: bytes) -> tuple[list[bytes] | None, int | None]:
    """Return the names in a directory of the host (None if it may not be read), and its mode.

    A directory that is missing has no names, and its mode is None.

    Raises:
        OSError: something else is there.

    """
    mode = None
    try:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, "is no longer a directory", directory)
        mode = stat.S_IMODE(found.st_mode)
        return os.listdir(directory), mode
    except PermissionError:
        return None, mode
    except FileNotFoundError:
        return [], None


def _set_opaque(path: bytes, directory: _Directory) -> bool:
    """Let nothing of the host's show through a directory; return False if whiteouts must do that.

    tmpfs has user attributes since Linux 6.6.
    """
    try:
        os.setxattr(path, "user.overlay.opaque", b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP or directory.names is None:
            raise
        return False
    return True


class _Whiteouts:
    """Makes whiteouts: links to one device, whose first name is beside the layer."""

    def __init__(self, layer: bytes) -> None:
        self._device = os.path.dirname(layer) + b"/whiteout"
        self._links = 0

    def make(self, path: bytes) -> None:
        """Make one at `path`."""
        if self._links == 0:
            os.mknod(self._device, stat.S_IFCHR, os.makedev(0, 0))
        os.link(self._device, path)
        self._links += 1
        if self._links == _MOST_LINKS:
            self.finish()

    def finish(self) -> None:
        """Remove the first name; the next whiteout is a new device."""
        if self._links:
            os.unlink(self._device)
            self._links = 0
