"""Read the loader's cache of a source: which libraries ld.so(8) finds there by name.

The format is that of glibc's own header dl-cache.h: after `glibc-ld.so.cache1.1` the number of entries, and
from byte 48 on entries of 24 bytes, each with the places of a name and a path among the texts of the file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import LD_CACHE
from pkgjail.core.untrusted import read_below

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"glibc-ld.so.cache1.1"
_COUNT = struct.Struct("=I")
_HEADER_SIZE = 48
_ENTRY = struct.Struct("=iIIIQ")
_MOST_ENTRIES = 100_000
_LIMIT = 64 << 20  # bytes


def known_libraries(root: bytes) -> dict[bytes, bytes]:
    """Return the path of each library by the name that programs need it by, for a root directory.

    Of several with one name, the first counts, which the loader prefers. Without a cache, or with one of
    another format, there are none.
    """
    try:
        data = read_below(root, LD_CACHE, _LIMIT)
    except OSError:
        return {}
    found: dict[bytes, bytes] = {}
    for name, path in _entries(data):
        found.setdefault(name, path)
    return found


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = data.find(_MAGIC)  # an older format may come before it
    if start < 0 or len(data) < start + _HEADER_SIZE:
        return
    (count,) = _COUNT.unpack_from(data, start + len(_MAGIC))
    for index in range(min(count, _MOST_ENTRIES)):
        place = start + _HEADER_SIZE + index * _ENTRY.size
        if place + _ENTRY.size > len(data):
            return
        _, key, value, _, _ = _ENTRY.unpack_from(data, place)
        name, path = _text(data, start + key), _text(data, start + value)
        if name and path.startswith(b"/"):
            yield name, path


def _text(data: bytes, place: int) -> bytes:
    end = data.find(b"\0", place)
    return data[place:end] if place <= end else b""
