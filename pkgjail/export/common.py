"""Helpers of several formats: the host's files, the jail's own directories, and refusals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.entries import drops_bits
from pkgjail.core.errors import NamesError
from pkgjail.core.jail_names import KERNEL_DIRECTORIES, SCRATCH_DIRECTORIES, TMP
from pkgjail.core.text import counted, first_of, text_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter


def on_host(root: bytes, path: bytes) -> bytes:
    """Return the path on the host of the manifest's `path`."""
    return root.rstrip(b"/") + path


def is_within(path: bytes, directories: Sequence[bytes]) -> bool:
    """Return whether `path` is one of `directories` or below one."""
    return any(path == one or path.startswith(one.rstrip(b"/") + b"/") for one in directories)


def own_entries(manifest: Manifest) -> Iterator[FileEntry]:
    """Yield the entries outside the directories that a launcher fills itself."""
    return (entry for entry in manifest.files if not is_within(entry.path, KERNEL_DIRECTORIES))


def host_files(manifest: Manifest) -> list[FileEntry]:
    """Return the regular files of the host, without those made at entry."""
    return [e for e in own_entries(manifest) if e.kind == "regular" and e.origin != "entry"]


def entry_files(manifest: Manifest) -> list[FileEntry]:
    """Return the files that are made at entry, which no file of the host can replace."""
    return [e for e in own_entries(manifest) if e.kind == "regular" and e.origin == "entry"]


def scratch_directories(manifest: Manifest) -> list[bytes]:
    """Return the mount points of private, writable file systems: /tmp, and an empty /var/tmp."""
    kinds = {TMP: "directory", **{entry.path: entry.kind for entry in manifest.files}}
    parents = {path.rpartition(b"/")[0] for path in kinds}
    return [path for path in SCRATCH_DIRECTORIES if path not in parents and kinds.get(path) == "directory"]


def missing_directories(manifest: Manifest) -> list[bytes]:
    """Return mount points of the launcher that the manifest lacks."""
    paths = {entry.path for entry in manifest.files}
    return [path for path in (*KERNEL_DIRECTORIES, TMP) if path not in paths]


def refuse_misleading(form: str, manifest: Manifest, root: bytes) -> None:
    """Refuse names for which a launcher would mount another file, or mount elsewhere: mount(8) follows links.

    Raises:
        NamesError: the manifest has a link or a file where a launcher mounts its own file system, or
            a file below `root` is now a link, or is reached through one.

    """
    refuse_other_kinds(form, manifest)
    files = [entry.path for entry in host_files(manifest)]
    top = os.path.realpath(root).rstrip(b"/")
    parents = {path.rpartition(b"/")[0] for path in files}
    led = {each for each in parents if os.path.realpath(top + each or b"/") != (top + each or b"/")}
    refuse(
        form,
        [path for path in files if path.rpartition(b"/")[0] in led or os.path.islink(top + path)],
        "it is now a symbolic link, or reached through one; make a new manifest with 'pkgjail resolve'",
    )


def refuse_other_kinds(form: str, manifest: Manifest) -> None:
    """Refuse a manifest with a link or a file where the jail mounts a file system of its own.

    Raises:
        NamesError: lists all of them.

    """
    mounted = (*KERNEL_DIRECTORIES, TMP)
    taken = [entry.path for entry in manifest.files if entry.path in mounted and entry.kind != "directory"]
    refuse(form, taken, "the jail mounts its own file system there, but the manifest has no directory")


def warn_of_dropped_bits(manifest: Manifest, reporter: Reporter) -> None:
    """Warn of names whose copies have fewer mode bits than the host's files."""
    if dropped := [text_path(entry.path) for entry in manifest.files if drops_bits(entry)]:
        reporter.warn(
            f"{counted(len(dropped), 'name')} copied without their set-user-ID and set-group-ID bits: "
            f"{', '.join(first_of(dropped))}"
        )


def refuse(form: str, paths: Sequence[bytes], why: str, cause: str = "") -> None:
    """Refuse the export if there are such `paths`; `cause` is the likely reason.

    Raises:
        NamesError: lists all the paths.

    """
    if paths:
        raise NamesError(f"export {{}} to {form}", paths, why, cause)
