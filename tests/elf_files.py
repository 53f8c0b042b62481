"""Make small ELF files of parts: only what the kernel and ld.so read."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LOAD, DYNAMIC, INTERP, NOTE = 1, 2, 3, 4
NEEDED, STRTAB, SONAME, RPATH, RUNPATH, FLAGS_1 = 1, 5, 14, 15, 29, 0x6FFFFFFB
NOBITS = 8
DLOPEN = 0x407C0C0A

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_TAG = struct.Struct("<QQ")
# Offsets of the header's fields that tests change.
EI_OSABI, E_PHOFF, E_PHENTSIZE, E_PHNUM = 7, 32, 54, 56


class Part(NamedTuple):
    """One segment: its type and bytes. It is mapped at its offset in the file."""

    kind: int
    data: bytes


def elf_file(parts: Sequence[Part], *, kind: int = 3, debug: bool = False) -> bytes:
    """Return an x86-64 file of segments, all of it mapped at 0.

    With `debug` it is a separate debug file as eu-strip(1) leaves one: the headers are unchanged, and a
    section without bytes covers each segment. The segment's place has other bytes, which may look like tags.
    """
    count = len(parts) + 1
    start = _HEADER.size + count * _SEGMENT.size
    offsets = [start + sum(len(part.data) for part in parts[:place]) for place in range(len(parts))]
    content = b"".join(part.data for part in parts)
    size = start + len(content)
    segments = _SEGMENT.pack(LOAD, 5, 0, 0, 0, size, size, 4096) + b"".join(
        _SEGMENT.pack(part.kind, 4, offset, offset, offset, len(part.data), len(part.data), 8)
        for part, offset in zip(parts, offsets)
    )
    sections = b""
    if debug:
        sections = b"".join(_SECTION.pack(0, NOBITS, 2, offset, 0, 1, 0, 0, 1, 0) for offset in offsets)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (_HEADER.size, _SEGMENT.size, count, _SECTION.size, len(sections) // _SECTION.size, 0)
    header = _HEADER.pack(identity, kind, 62, 1, 0, _HEADER.size, size if debug else 0, 0, *sizes)
    return header + segments + content + sections


def dynamic(parts: int, tags: Iterable[tuple[int, bytes | int]]) -> Part:
    """Return the dynamic segment, the first of as many `parts`, followed by its table of names."""
    names = b"\0"
    rows = []
    for tag, value in tags:
        rows.append((tag, len(names) if isinstance(value, bytes) else value))
        if isinstance(value, bytes):
            names += value + b"\0"
    place = _HEADER.size + (parts + 1) * _SEGMENT.size + (len(rows) + 2) * _TAG.size
    table = b"".join(_TAG.pack(*row) for row in (*rows, (STRTAB, place), (0, 0)))
    return Part(DYNAMIC, table + names)


def note(owner: bytes, kind: int, content: bytes) -> Part:
    """Return a segment of one note."""
    padded = (part + b"\0" * (-len(part) % 4) for part in (owner, content))
    return Part(NOTE, struct.pack("<III", len(owner), len(content), kind) + b"".join(padded))


def program(dlopen_note: bytes = b"", *, notes: int = 1, debug: bool = False) -> bytes:
    """Return a program with an interpreter, two libraries, two directories, and a note of dlopen(3)."""
    tags: list[tuple[int, bytes | int]] = [
        (NEEDED, b"libc.so.6"),
        (NEEDED, b"libz.so.1"),
        (RUNPATH, b"$ORIGIN/../lib:/opt/lib"),
        (FLAGS_1, 0x800),
    ]
    others = [note(b"FDO\0", DLOPEN, dlopen_note)] * notes if dlopen_note else []
    parts = [dynamic(2 + len(others), tags), Part(INTERP, b"/lib64/ld-linux-x86-64.so.2\0")]
    return elf_file([*parts, *others], debug=debug)
