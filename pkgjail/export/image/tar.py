"""Headers of tar archives in GNU's format, by which every byte of an archive follows from its members.

Python's tarfile does not promise the same bytes in every version. GNU's format carries names of any bytes and
any length; the pax format's names are UTF-8. GNU tar's manual, "Basic Tar Format"; tar(5) of libarchive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, FileKind

BLOCK = 512
END = bytes(2 * BLOCK)
"""The end of an archive."""

TIME = 315_619_200
"""The time of every member, as a manifest has none: 2 January 1980, in UTC.

It is the first day that a ZIP archive can have in every time zone: programs that pack files into one fail
for older files. 0 means "no time" to some programs.
"""


class Stamp(NamedTuple):
    """What an archive says of a member besides a manifest's entry: its owner's numbers and its time.

    `link` is the path of an earlier member that the file is another name of; "" if it is none.
    """

    uid: int = 0
    gid: int = 0
    time: int = TIME
    link: bytes = b""


OF_MANIFESTS = Stamp()
"""The stamp of each name of a manifest, which has no owners and no times."""

_TYPES: dict[FileKind, bytes] = {"regular": b"0", "directory": b"5", "symlink": b"2"}
_MOST_NAME = 100  # bytes; a longer one precedes the header, in a member of its own
_LONG_NAME, _LONG_TARGET = b"L", b"K"
_HARD_LINK = b"1"


def member_header(entry: FileEntry, size: int, stamp: Stamp = OF_MANIFESTS) -> bytes:
    """Return what precedes the content of an entry in an archive. Another name of a file has no content."""
    name = entry.path[1:]
    if stamp.link:
        return header(name, _HARD_LINK, entry.mode, 0, stamp.link[1:], stamp)
    if entry.kind == "directory":
        name = name + b"/" if name else b"./"
    return header(name, _TYPES[entry.kind], entry.mode, size, entry.target or b"", stamp)


def file_header(name: bytes, size: int) -> bytes:
    """Return what precedes the content of a plain file in an archive."""
    return header(name, b"0", 0o644, size)


def header(  # noqa: PLR0913, PLR0917 - the fields of a header
    name: bytes, kind: bytes, mode: int, size: int, target: bytes = b"", stamp: Stamp = OF_MANIFESTS
) -> bytes:
    """Return the header of a member, with those of its long names before it."""
    before = b""
    if len(target) > _MOST_NAME:
        before += _long(_LONG_TARGET, target)
    if len(name) > _MOST_NAME:
        before += _long(_LONG_NAME, name)
    return before + _block(name, kind, mode, size, target, stamp)


def padding(size: int) -> bytes:
    """Return what follows content of so many bytes: zeros, up to a whole block."""
    return bytes(-size % BLOCK)


def member_size(entry: FileEntry, size: int, stamp: Stamp = OF_MANIFESTS) -> int:
    """Return the bytes that an entry takes in an archive, with its header and padding."""
    content = 0 if stamp.link else size
    name = len(entry.path) - 1 + (entry.kind == "directory")
    target = len(stamp.link) - 1 if stamp.link else len(entry.target or b"")
    return BLOCK + _size_if_long(name) + _size_if_long(target) + content + -content % BLOCK


def _long(kind: bytes, name: bytes) -> bytes:
    size = len(name) + 1
    return _block(b"././@LongLink", kind, 0o644, size, b"", OF_MANIFESTS) + name + b"\0" + padding(size)


def _size_if_long(length: int) -> int:
    """Return the bytes of the member with a name of this length; 0 if it needs none."""
    return 2 * BLOCK + length // BLOCK * BLOCK if length > _MOST_NAME else 0


def _block(  # noqa: PLR0913, PLR0917 - the fields of a header
    name: bytes, kind: bytes, mode: int, size: int, target: bytes, stamp: Stamp
) -> bytes:
    # Without names of the user and the group, their numbers count.
    owner = _number(mode, 8) + _number(stamp.uid, 8) + _number(stamp.gid, 8)
    start = name[:_MOST_NAME].ljust(100, b"\0") + owner + _number(size, 12) + _number(stamp.time, 12)
    end = kind + target[:_MOST_NAME].ljust(100, b"\0") + b"ustar  \0"
    checksum = sum(start) + 8 * 0x20 + sum(end)
    return (start + b"%06o\0 " % checksum + end).ljust(BLOCK, b"\0")


def _number(number: int, width: int) -> bytes:
    """Return a number in octal digits and a NUL or, if there is no room for them, in binary."""
    digits = b"%0*o" % (width - 1, number)
    return digits + b"\0" if len(digits) < width else b"\x80" + number.to_bytes(width - 1, "big")
