"""The types of images: what an archive has, what the store has, and how much is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pkgjail.core.model import FileKind, record

if TYPE_CHECKING:
    from collections.abc import Callable

ImageFormat = Literal["auto", "tar", "directory", "oci", "docker", "squashfs"]
"""The form of an image that is imported; "auto" is by content. The archive of a layout counts as one."""

MemberKind = Literal["regular", "directory", "symlink", "link", "device", "fifo", "socket"]
"""The kind of an archive's member; "link" is a hard link."""

MOST_NAMES = 1_000_000
"""The names that an image may have, unless the caller says otherwise."""
MOST_BYTES = 1 << 36
"""The bytes that the files of an image may have together, unless the caller says otherwise: 64 GiB."""


@record
class ImageLimits:
    """The most that an image may have: `names`, and `bytes` of all files together."""

    names: int = MOST_NAMES
    bytes: int = MOST_BYTES


class Member(NamedTuple):
    """One member of an archive or of a directory, as it says of itself: nothing of it has been checked.

    `path` is as written. `target` is the text of a symbolic link, or the path of the member that a hard link
    is another name of. `read` returns the next bytes of a regular file's content, at most as many as its
    argument. `hole` are those bytes of `size` that the archive does not have, in a sparse file.
    """

    path: bytes
    kind: MemberKind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    read: Callable[[int], bytes] | None = None
    hole: int = 0
    attributes: int = 0


class ImageEntry(NamedTuple):
    """One name of an image: what its archive said, of which the disk has a part (`disk_mode`).

    The fields are those of a manifest's entry, with the owner's numbers.
    """

    kind: FileKind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int | None = None
    sha256: str | None = None
    target: bytes | None = None


class LeftOut(NamedTuple):
    """What an archive had and the store does not: each with the number of members that had it.

    `special` are device nodes, FIFOs and sockets. `set_id` are files whose set-user-ID or set-group-ID bit is
    recorded, but is not on the disk. `attributes` are extended attributes. `owned` are names that belong
    to another user than root: that is recorded, and on the disk they belong to whoever imported them.
    """

    special: int = 0
    set_id: int = 0
    attributes: int = 0
    owned: int = 0


@record
class Image:
    """An image of a store.

    `digest` is `sha256:HEX` of the list of its names with their kinds, modes, owners, sizes, digests and link
    texts. It depends neither on the form in which the image was imported, nor on who did that. `name` is ""
    if it has none. `root` is the directory with its files, `bytes` the size of all regular files.
    """

    digest: str
    name: str
    root: bytes
    format: str
    names: int
    bytes: int
    left_out: LeftOut


def disk_mode(entry: ImageEntry) -> int:
    """Return the mode that a name of an image has in the store.

    A program with set-user-ID or set-group-ID would run as whoever imported the image, so no file has these
    bits. The owner may read everything, to verify it.
    """
    if entry.kind == "directory":
        return entry.mode | 0o500
    return entry.mode & 0o1777 | 0o400
