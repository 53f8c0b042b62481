"""What several forms share: where the host's files are, what a jail has of its own, and refusal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import NamesError
from pkgjail.core.jail_names import KERNEL_DIRECTORIES, SCRATCH_DIRECTORIES, TMP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry, Manifest


def on_host(root: bytes, path: bytes) -> bytes:
    """Where the file of the manifest's `path` is."""
    return root.rstrip(b"/") + path


def is_within(path: bytes, directories: Sequence[bytes]) -> bool:
    """Whether `path` is one of `directories` or below one."""
    return any(path == one or path.startswith(one.rstrip(b"/") + b"/") for one in directories)


def own_entries(manifest: Manifest) -> Iterator[FileEntry]:
    """The entries that are not within what a launcher fills by itself."""
    return (entry for entry in manifest.files if not is_within(entry.path, KERNEL_DIRECTORIES))


def host_files(manifest: Manifest) -> list[FileEntry]:
    """The regular files that the host has; those made at entry are not among them."""
    return [e for e in own_entries(manifest) if e.kind == "regular" and e.origin != "entry"]


def entry_files(manifest: Manifest) -> list[FileEntry]:
    """The files that are made when a jail is entered, and that no host file can stand for."""
    return [e for e in own_entries(manifest) if e.kind == "regular" and e.origin == "entry"]


def scratch_directories(manifest: Manifest) -> list[bytes]:
    """Where a private, writable filesystem belongs: /tmp, and /var/tmp where there is an empty one."""
    kinds = {TMP: "directory", **{entry.path: entry.kind for entry in manifest.files}}
    parents = {path.rpartition(b"/")[0] for path in kinds}
    return [path for path in SCRATCH_DIRECTORIES if path not in parents and kinds.get(path) == "directory"]


def missing_directories(manifest: Manifest) -> list[bytes]:
    """Mount points of the launcher that the manifest does not have."""
    paths = {entry.path for entry in manifest.files}
    return [path for path in (*KERNEL_DIRECTORIES, TMP) if path not in paths]


def refuse_misleading(form: str, manifest: Manifest, root: bytes) -> None:
    """Refuse names by which a launcher would mount something else, or elsewhere: mount(8) follows links.

    Raises:
        NamesError: the manifest has a link or a file where a launcher mounts a filesystem of its own, or
            a file below `root` is now a link, or is behind one.

    """
    mounted = (*KERNEL_DIRECTORIES, TMP)
    taken = [entry.path for entry in manifest.files if entry.path in mounted and entry.kind != "directory"]
    refuse(form, taken, "the jail has a filesystem of its own there, and the manifest has no directory")
    files = [entry.path for entry in host_files(manifest)]
    top = os.path.realpath(root).rstrip(b"/")
    parents = {path.rpartition(b"/")[0] for path in files}
    led = {each for each in parents if os.path.realpath(top + each or b"/") != (top + each or b"/")}
    refuse(
        form,
        [path for path in files if path.rpartition(b"/")[0] in led or os.path.islink(top + path)],
        "it is a symbolic link now, or behind one; make a new manifest with 'pkgjail resolve'",
    )


def refuse(form: str, paths: Sequence[bytes], why: str, cause: str = "") -> None:
    """Refuse the export where there are such `paths`; `cause` is what is likely behind it.

    Raises:
        NamesError: with all of the paths.

    """
    if paths:
        raise NamesError(f"export {{}} to {form}", paths, why, cause)
