"""Masks: a directory of the jail as one overlay mount on kernels that know no data-only layers.

A mask lies over the host's directory and hides what the manifest does not have: by a whiteout (a
character device 0/0) for each such name, and by the attribute `opaque` on a directory of which nothing
of the host's is to be seen. What the manifest has and the host has not is in the mask itself. All
else shows through, with its owner, mode and times. See Documentation/filesystems/overlayfs.rst,
"whiteouts and opaque directories" and "User xattr".

A mask knows the names that the host had when it was made. `pkgjail.jail.layer_cache` makes another one as
soon as one of the directories has changed; names that come while a jail runs can be seen in it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.model import text_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import FileEntry, Origin

# ext4 allows 65,000 links to one inode; a device for each whiteout would take 20 times as long.
_LINKS = 60_000
# Of these origins an entry need not be on the host, nor be there as it is in the jail.
_OURS: tuple[Origin, ...] = ("alternative", "parent")


def why_no_mask(entries: Sequence[FileEntry]) -> str:
    """Why a mask would not show these entries as the host does; "" where it would.

    As in `pkgjail.jail.strategies.data_overlay`, but only directories and what the jail makes itself come
    from a mask.
    """
    for entry in entries:
        if entry.origin == "entry":
            return f"{text_path(entry.path)} is made at entry"
        if entry.kind == "directory" and entry.mode & 0o007 & ~(entry.mode >> 6):
            return f"the mode {entry.mode:04o} of {text_path(entry.path)} gives its owner less than others"
    return ""


def make_mask(new: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
    """Fill the empty directory `new` with the mask for `entries`, of which the first is its top.

    Raises:
        OSError: it cannot be made there, or a directory of the host that must be read cannot be.

    """
    top = entries[0].path
    directories = _judge(entries, root.rstrip(b"/"))
    whiteouts = _Whiteouts(new)
    kept = [entry for entry in entries if entry.kind == "directory" and directories[entry.path].is_needed]
    for entry in kept:
        place, found = new + entry.path[len(top) :], directories[entry.path]
        if entry.path != top:
            os.mkdir(place, 0o700)
        # In an opaque directory a whiteout would be listed as a name.
        for name in found.hidden if found.is_open or not _set_opaque(place, found) else ():
            whiteouts.make(place + b"/" + name)
        for link in found.links:
            os.symlink(link.target or b"", new + link.path[len(top) :])
    whiteouts.finish()
    for entry in reversed(kept):  # inner ones first: some may not be written to afterwards
        os.chmod(new + entry.path[len(top) :], entry.mode)


class _Directory(NamedTuple):
    """What becomes of one directory.

    `names` are the host's (None where it may not be read), of which `hidden` must not be seen. `links`
    are ours. It `is_needed` in the mask where it is not to be seen exactly as the host has it, and
    `is_open` where something of the host's shows through it.
    """

    names: Sequence[bytes] | None
    hidden: Sequence[bytes]
    links: Sequence[FileEntry]
    is_needed: bool
    is_open: bool


def _judge(entries: Sequence[FileEntry], prefix: bytes) -> Mapping[bytes, _Directory]:
    """What becomes of each directory, the inner ones being known before those that hold them."""
    members: dict[bytes, list[FileEntry]] = {e.path: [] for e in entries if e.kind == "directory"}
    for entry in entries[1:]:
        members[entry.path.rpartition(b"/")[0]].append(entry)
    known: dict[bytes, _Directory] = {}
    for entry in reversed(entries):
        if entry.kind == "directory":
            known[entry.path] = _judge_one(entry, members[entry.path], known, prefix)
    top = known[entries[0].path]
    if top.names is None:  # the top of a layer cannot be opaque
        raise OSError(errno.EACCES, "may not be read", prefix + entries[0].path)
    return {**known, entries[0].path: top._replace(is_needed=True, is_open=True)}


def _judge_one(
    entry: FileEntry, members: Sequence[FileEntry], known: Mapping[bytes, _Directory], prefix: bytes
) -> _Directory:
    path = prefix + entry.path
    names, mode = _look(path)
    links = [each for each in members if each.kind == "symlink" and each.origin in _OURS]
    inner = [known[each.path] for each in members if each.kind == "directory"]
    is_open = len(links) + len(inner) < len(members) or any(one.is_open or not one.is_needed for one in inner)
    if names is None and is_open:
        raise OSError(errno.EACCES, "may not be read, and something in it is to be seen", path)
    ours = {each.path.rpartition(b"/")[2] for each in members}
    hidden = [name for name in names or () if name not in ours]
    is_same = names is not None and mode == entry.mode
    is_needed = bool(not is_same or hidden or links or any(one.is_needed for one in inner))
    return _Directory(names, hidden, links, is_needed, is_open)


def _look(directory: bytes) -> tuple[list[bytes] | None, int | None]:
    """The names in a directory of the host (None where it may not be read), and its mode.

    Where nothing is there it has no names, and the mode is None.

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


def _set_opaque(place: bytes, found: _Directory) -> bool:
    """Let nothing of the host's show through a directory; False where whiteouts must do that.

    tmpfs keeps user attributes since Linux 6.6.
    """
    try:
        os.setxattr(place, "user.overlay.opaque", b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP or found.names is None:
            raise
        return False
    return True


class _Whiteouts:
    """Makes whiteouts: links to one device, which has its first name beside the mask."""

    def __init__(self, mask: bytes) -> None:
        self._spare = os.path.dirname(mask) + b"/whiteout"
        self._links = 0

    def make(self, path: bytes) -> None:
        """Make one at `path`."""
        if self._links == 0:
            os.mknod(self._spare, stat.S_IFCHR, os.makedev(0, 0))
        os.link(self._spare, path)
        self._links += 1
        if self._links == _LINKS:
            self.finish()

    def finish(self) -> None:
        """Take the spare name away; the next whiteout is a new device."""
        if self._links:
            os.unlink(self._spare)
            self._links = 0
