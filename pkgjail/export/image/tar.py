"""Headers of tar archives in GNU's format, by which every byte of an archive follows from its members.

Python's tarfile does not promise the same bytes in every version. GNU's format carries names of any bytes and
any length; the pax format's names are UTF-8. GNU tar's manual, "Basic Tar Format"; tar(5) of libarchive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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

_TYPES: dict[FileKind, bytes] = {"regular": b"0", "directory": b"5", "symlink": b"2"}
_MOST_NAME = 100  # bytes; a longer one precedes the header, in a member of its own
_MOST_OCTAL = 8**11  # bytes; a larger size is binary
_LONG_NAME, _LONG_TARGET = b"L", b"K"


def member_header(entry: FileEntry, size: int) -> bytes:
    """Return what precedes the content of a manifest's entry, which belongs to root, in an archive."""
    name = entry.path[1:]
    if entry.kind == "directory":
        name = name + b"/" if name else b"./"
    return header(name, _TYPES[entry.kind], entry.mode, size, entry.target or b"")


def file_header(name: bytes, size: int) -> bytes:
    """Return what precedes the content of a plain file in an archive."""
    return header(name, b"0", 0o644, size)


def header(name: bytes, kind: bytes, mode: int, size: int, target: bytes = b"") -> bytes:
    """Return the header of a member, with those of its long names before it."""
    before = b""
    if len(target) > _MOST_NAME:
        before += _long(_LONG_TARGET, target)
    if len(name) > _MOST_NAME:
        before += _long(_LONG_NAME, name)
    return before + _block(name, kind, mode, size, target)


def padding(size: int) -> bytes:
    """Return what follows content of so many bytes: zeros, up to a whole block."""
    return bytes(-size % BLOCK)


def member_size(entry: FileEntry, size: int) -> int:
    """Return the bytes that an entry takes in an archive, with its header and padding."""
    return len(member_header(entry, size)) + size + -size % BLOCK


def _long(kind: bytes, name: bytes) -> bytes:
    size = len(name) + 1
    return _block(b"././@LongLink", kind, 0o644, size, b"") + name + b"\0" + padding(size)


def _block(name: bytes, kind: bytes, mode: int, size: int, target: bytes) -> bytes:
    length = b"%011o\0" % size if size < _MOST_OCTAL else b"\x80" + size.to_bytes(11, "big")
    # Without names of the user and the group, the numbers count: 0 and 0.
    start = name[:_MOST_NAME].ljust(100, b"\0") + b"%07o\0%07o\0%07o\0" % (mode, 0, 0)
    start += length + b"%011o\0" % TIME
    end = kind + target[:_MOST_NAME].ljust(100, b"\0") + b"ustar  \0"
    checksum = sum(start) + 8 * 0x20 + sum(end)
    return (start + b"%06o\0 " % checksum + end).ljust(BLOCK, b"\0")
