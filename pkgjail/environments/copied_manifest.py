"""How a copied tree differs from its manifest: some mode bits are not given to a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.core.model import FileEntry, Manifest

# Nobody is given a right by a copy that its owner does not have: set-user-ID and set-group-ID bits
# would name whoever copied.
KEPT_BITS = 0o1777


def copied_manifest(manifest: Manifest) -> Manifest:
    """The manifest of a copied tree: that of the host, but for the bits that a copy drops."""
    return replace(manifest, files=tuple(map(_as_copied, manifest.files)))


def drops_bits(entry: FileEntry) -> bool:
    """Whether a copy of this entry has fewer mode bits than the host's."""
    return entry.kind != "symlink" and bool(entry.mode & ~KEPT_BITS)


def _as_copied(entry: FileEntry) -> FileEntry:
    return entry._replace(mode=entry.mode & KEPT_BITS) if drops_bits(entry) else entry
