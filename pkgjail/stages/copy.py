"""The copy of a manifest's files that an engine shows: made once, kept in the user's cache.

An engine needs a directory with the files and nothing else. The copy is made like a layer of the jail
(`pkgjail.jails.layer_cache`): it is complete or not there, one process makes it, and before each use every
name of it is compared with what was made. Its content was compared with the manifest's digests as it was
read. The host may change afterwards: the copy has the manifest's files all the same.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import DriftError, JailError, os_error_text
from pkgjail.core.sources import refuse_other_source
from pkgjail.export.copied import as_copied, refuse_undigested
from pkgjail.export.image.tree import write_tree
from pkgjail.jails.drift import DriftCheck, compare_host
from pkgjail.jails.layer_cache import Recipe, lock_layer
from pkgjail.jails.run import content_for_anyone
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.storage.locations import cache_directory
from pkgjail.storage.locks import unlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter

_KIND = "copy"


@contextlib.contextmanager
def copied_files(manifest: Manifest, root: bytes, reporter: Reporter) -> Iterator[tuple[Manifest, bytes]]:
    """Make the copy of a manifest's files, or find it, and keep it from being removed in a `with` block.

    Args:
        manifest: what is copied, with digests.
        root: the directory with the files, which is read only if there is no copy yet.
        reporter: receives the progress.

    Yields:
        The manifest of the copy, and its directory. No file has a set-user-ID or set-group-ID bit. A file
        that others may not read, so that the manifest has no digest of it, is empty, and nobody may read it.

    Raises:
        NamesError: files have no digest.
        DriftError: the files differ from the manifest.
        JailError: there is no room for the copy.
        SourceError: the manifest was made from another source.

    """
    refuse_undigested("a stage of copied files", manifest)
    place, locks = _locked(manifest, os.path.realpath(root), reporter)
    try:
        yield as_copied(manifest), place
    finally:
        unlock(locks)


def _locked(manifest: Manifest, root: bytes, reporter: Reporter) -> tuple[bytes, list[int]]:
    """Return the directory of the copy, and locks that keep it from being removed."""

    def make(place: bytes, _entries: Sequence[FileEntry], _root: bytes) -> None:
        """Copy the files, each compared with the manifest."""
        refuse_other_source(manifest, root)
        compare_host(manifest, root, DriftCheck(reporter=reporter))
        content = content_for_anyone(manifest, root)
        if changes := write_tree(as_copied(manifest), content, root, place, reporter):
            raise DriftError(changes)

    # Without entries: no state of the host matters to a copy, once it is right.
    content = manifest_digest(dump_manifest(manifest))
    recipe = Recipe(kind=_KIND, entries=(), root=root, make=make, content=content)
    cache = Path(cache_directory())
    try:
        return lock_layer(recipe, cache.resolve())
    except OSError as error:
        why = os_error_text(error, str(cache))
        raise JailError(f"cannot copy the files of the manifest: {why}; set XDG_CACHE_HOME") from error
