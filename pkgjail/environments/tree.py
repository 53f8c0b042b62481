"""What an environment's tree is put together from, by its form: pure data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.environments.copied_manifest import KEPT_BITS, copied_manifest
from pkgjail.export.skeleton import Piece, pieces_of_skeleton

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import FileEntry, Manifest


def copied_files(manifest: Manifest) -> dict[bytes, FileEntry]:
    """The entries, by path, whose content is the host's."""
    return {e.path: e for e in manifest.files if e.kind == "regular" and e.origin != "entry"}


def pieces_of_copy(manifest: Manifest, content: Mapping[bytes, bytes]) -> Iterator[Piece]:
    """The names of a copied tree, parents first; the content of `copied_files` is not in it."""
    for entry in sorted(copied_manifest(manifest).files, key=lambda entry: entry.path):
        if entry.path == b"/":
            continue
        data = content.get(entry.path, b"") if entry.origin == "entry" else b""
        yield Piece(entry.path, entry.kind, entry.mode, data, entry.target or b"")


def pieces_of_fstab(manifest: Manifest, content: Mapping[bytes, bytes]) -> Iterator[Piece]:
    """The names of a tree that fstab(5) mounts the host's files in, parents first."""
    pieces = pieces_of_skeleton(manifest, content, mount_points=True)
    return iter(sorted((piece for piece in pieces if piece.path != b"/"), key=lambda piece: piece.path))


def mode_of_root(manifest: Manifest) -> int:
    """The mode of the tree itself."""
    return next((entry.mode & KEPT_BITS for entry in manifest.files if entry.path == b"/"), 0o755)
