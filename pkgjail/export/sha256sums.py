r"""Export a list of digests for `sha256sum --check`, with names relative to the root; sha256sum(1).

A line whose name has a backslash or a line end begins with a backslash, and these characters are written as
\\, \n and \r (the last by coreutils 9.0 and newer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the list of all regular files that have a digest.

    Raises:
        InputError: the manifest has no digests.

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
    # With "./", no name can be "-", which means standard input.
    return b"%s%s  .%s\n" % (mark, digest.encode(), name)
