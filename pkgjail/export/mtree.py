r"""Export a specification for mtree(8) and libarchive, one full path per line; mtree(5).

A byte that is not printable is written as a backslash and three octal digits, as by vis(3). So are `#` and
`=`, which have a meaning in a line, and wild cards.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.text import escape_octal

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest

_SPECIAL = re.compile(rb"[^!-~]|[\\#=*?\[\]]")
_TYPES = {"regular": b"file", "directory": b"dir", "symlink": b"link"}


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the specification, relative to the root; a file made at entry has no size and no digest."""
    del root, at
    return b"#mtree\n" + b"".join(_line(entry) for entry in manifest.files)


def _line(entry: FileEntry) -> bytes:
    words = [
        b"." + _escape(entry.path.rstrip(b"/")),
        b"type=" + _TYPES[entry.kind],
        b"mode=%04o" % entry.mode,
    ]
    if entry.size is not None:
        words.append(b"size=%d" % entry.size)
    if entry.sha256 is not None:
        words.append(b"sha256digest=" + entry.sha256.encode())
    if entry.target is not None:
        words.append(b"link=" + _escape(entry.target))
    return b" ".join(words) + b"\n"


def _escape(path: bytes) -> bytes:
    return escape_octal(path, _SPECIAL)
