"""The root disk of a machine: a squashfs file system of a manifest's files, made once, kept in the cache.

It is made like a layer of the jail (`pkgjail.jails.layer_cache`): it is complete or not there, one process
makes it, and a file that was changed since is not used. Its content was compared with the manifest's digests
as it was read. The host may change afterwards: the disk has the manifest's files all the same.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.architectures import is_host_word
from pkgjail.core.errors import DriftError, ExportDriftError, os_error_text
from pkgjail.core.jail_names import LD_CACHE
from pkgjail.core.model import FileEntry
from pkgjail.core.sources import refuse_other_source
from pkgjail.export.common import missing_directories, refuse_other_kinds
from pkgjail.export.copied import as_copied, refuse_undigested
from pkgjail.export.image.layers import layers_of
from pkgjail.export.image.oci import default_name, describe_manifest
from pkgjail.export.image.writing import Work, write_files
from pkgjail.jails.drift import DriftCheck, compare_host
from pkgjail.jails.layer_cache import Recipe, lock_layer
from pkgjail.jails.run import content_for_anyone
from pkgjail.machine.model import MachineError
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.storage.locations import cache_directory
from pkgjail.storage.locks import unlock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter

NAME = "root.squashfs"
"""The name of the file in its directory."""

_KIND = "disk"
_FORM = "a machine's disk"
# A guest without hardware to run it unpacks slowly, and lz4 is the fastest by far, here and there.
_COMPRESSION = "lz4"


@contextlib.contextmanager
def root_disk(manifest: Manifest, root: bytes, reporter: Reporter) -> Iterator[str]:
    """Make the disk of a manifest's files, or find it, and keep it from being removed in a `with` block.

    Every name belongs to root. No file has a set-user-ID or set-group-ID bit. A file that others may not
    read, so that the manifest has no digest of it, is empty, and nobody may read it. The directories that
    every jail has are there too.

    Args:
        manifest: what the disk has, with digests.
        root: the directory with the files, which is read only if there is no disk yet.
        reporter: receives the progress.

    Yields:
        The path of the file system, which must not be changed.

    Raises:
        NamesError: files have no digest, or something that is no directory is where a jail mounts its own.
        DriftError: the files differ from the manifest.
        MachineError: there is no room for the disk.
        PkgjailError: tar2sqfs is missing, or failed.
        SourceError: the manifest was made from another source.

    """
    refuse_undigested(_FORM, manifest)
    refuse_other_kinds(_FORM, manifest)
    directory, locks = _locked(manifest, os.path.realpath(root), reporter)
    try:
        yield os.path.join(os.fsdecode(directory), NAME)
    finally:
        unlock(locks)


def write_root_disk(manifest: Manifest, root: bytes, path: str, reporter: Reporter) -> None:
    """Write the disk of `root_disk` to a file.

    Args:
        manifest: what the disk has, with digests.
        root: the real path of the directory with the files.
        path: where to; it is complete afterwards, or as it was before.
        reporter: receives the progress.

    Raises:
        DriftError: the files differ from the manifest.
        PkgjailError: tar2sqfs is missing, or failed.
        SourceError: the manifest was made from another source.
        OSError: something cannot be read or written.

    """
    refuse_other_source(manifest, root)
    compare_host(manifest, root, DriftCheck(reporter=reporter))
    content = content_for_anyone(_without_foreign_cache(manifest), root)
    copied = _with_mount_points(as_copied(manifest))
    layers = layers_of(copied)
    work = Work(
        layers=layers,
        content=content,
        stamps={},
        root=root,
        description=describe_manifest(copied, default_name(copied), layers),
        bill=None,
        compression=_COMPRESSION,
        reporter=reporter,
    )
    try:
        write_files(work, "squashfs", path)
    except ExportDriftError as error:
        raise DriftError(error.changes) from error


def _locked(manifest: Manifest, root: bytes, reporter: Reporter) -> tuple[bytes, list[int]]:
    """Return the directory of the disk, and locks that keep it from being removed."""

    def make(place: bytes, _entries: Sequence[FileEntry], _root: bytes) -> None:
        """Write the file."""
        write_root_disk(manifest, root, os.path.join(os.fsdecode(place), NAME), reporter)

    # Without entries: no state of the host matters to a disk, once it is right.
    content = manifest_digest(dump_manifest(manifest))
    recipe = Recipe(kind=_KIND, entries=(), root=root, make=make, content=content)
    cache = Path(cache_directory())
    try:
        return lock_layer(recipe, cache.resolve())
    except OSError as error:
        why = os_error_text(error, str(cache))
        raise MachineError(f"cannot make the disk of a machine: {why}; set XDG_CACHE_HOME") from error


def _without_foreign_cache(manifest: Manifest) -> Manifest:
    """Leave out an ld.so cache that this host's processor cannot make: the guest makes it (`boot`)."""
    if not makes_own_cache(manifest):
        return manifest
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path != LD_CACHE))


def makes_own_cache(manifest: Manifest) -> bool:
    """Return whether the guest makes the ld.so cache, since the manifest is for another architecture."""
    if not manifest.header.architecture or is_host_word(manifest.header.architecture):
        return False
    return any(entry.path == LD_CACHE and entry.origin == "entry" for entry in manifest.files)


def _with_mount_points(manifest: Manifest) -> Manifest:
    made = [FileEntry(path=path, kind="directory", mode=0o755) for path in missing_directories(manifest)]
    return replace(manifest, files=(*manifest.files, *made))
