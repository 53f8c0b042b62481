r"""A list of digests that `sha256sum --check` reads, names relative to the root; sha256sum(1).

A line whose name holds a backslash or a line end begins with a backslash, and those are written as
\\, \n and \r in it (the last by coreutils 9.0 and newer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """The list of all regular files whose digest the manifest has.

    Raises:
        InputError: it has none at all.

    """
    del root, at
    lines = [_line(entry.path, entry.sha256) for entry in manifest.files if entry.sha256 is not None]
    if not lines:
        raise InputError(
            [Problem("", "cannot export to sha256sums: the manifest has no digests; resolve it with them")]
        )
    return b"".join(lines)


def _line(path: bytes, digest: str) -> bytes:
    name = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"" if name == path else b"\\"
    # With "./" no name can be "-", which would stand for the standard input.
    return b"%s%s  .%s\n" % (mark, digest.encode(), name)
