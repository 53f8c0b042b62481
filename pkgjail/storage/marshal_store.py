"""Records that pkgjail's processes write for each other, and digests of plain values (marshal).

marshal loads fast and knows bytes; entering a jail reads such a record, and imports this module. A record
must be read only from a file that belongs to this user alone (`pkgjail.storage.own_files`): marshal does
not expect malicious data. `unpack` accepts only what is complete and has the caller's format.
"""

from __future__ import annotations

import marshal
from binascii import crc32

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Any

# For digests. The same value has the same bytes on all versions of Python: version 2 has no references,
# which newer versions place by how often an object happens to be used. They make records load faster.
_STABLE_VERSION = 2
_CHECKSUM = 4  # bytes


def pack(format_number: int, fields: tuple[Any, ...]) -> bytes:
    """Return a record of `fields`, which hold plain values: numbers, text, bytes, tuples, lists, dicts."""
    data = marshal.dumps((format_number, fields))
    return crc32(data).to_bytes(_CHECKSUM, "little") + data


def unpack(format_number: int, content: bytes) -> tuple[Any, ...] | None:
    """Return the fields of a record; None if it is damaged or has another format."""
    data = content[_CHECKSUM:]
    if crc32(data).to_bytes(_CHECKSUM, "little") != content[:_CHECKSUM]:
        return None
    try:
        found, fields = marshal.loads(data)  # noqa: S302 - the caller reads this user's own files
    except (EOFError, ValueError, TypeError):
        return None
    return fields if found == format_number and isinstance(fields, tuple) else None


def digest(value: Any) -> str:
    """Return the SHA-256, in hex, of a plain value."""
    import hashlib  # takes long to import, and entering a jail needs no digest

    return hashlib.sha256(marshal.dumps(value, _STABLE_VERSION)).hexdigest()
