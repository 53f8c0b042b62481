"""Write a manifest's files as a directory tree, each compared with the manifest as it is read."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import COPIED_BITS
from pkgjail.core.parallel import in_processes
from pkgjail.export.common import missing_directories
from pkgjail.export.image.content import Buffer, copy_file, cost, processes_for, shares_of
from pkgjail.export.image.tar import TIME
from pkgjail.storage.atomic import write_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TIMES = (TIME, TIME)


def write_tree(
    manifest: Manifest, content: Mapping[bytes, bytes], root: bytes, tree: bytes, reporter: Reporter
) -> tuple[Change, ...]:
    """Write all names of a manifest, and the mount points that every jail has, below `tree`.

    Set-user-ID and set-group-ID bits are left out: they would apply to the user who writes the tree.

    Args:
        manifest: what the tree has.
        content: the content of the files made at entry, by path.
        root: the real path of the directory of the others.
        tree: the directory to fill. It is made unless it exists, and then it must be empty.
        reporter: receives the progress ("exporting").

    Returns:
        The files that are not as the manifest says. If there are any, the tree is of no use.

    Raises:
        OSError: something cannot be read or written.

    """
    modes = {entry.path: entry.mode & COPIED_BITS for entry in manifest.files if entry.kind == "directory"}
    modes.update(dict.fromkeys([b"/", *missing_directories(manifest)], 0o755) | modes)
    os.makedirs(tree, 0o700, exist_ok=True)
    for path in sorted(modes.keys() - {b"/"}):
        os.mkdir(tree + path, 0o700)
    if changes := _write_files(manifest, content, root, tree, reporter):
        return tuple(sorted(changes))
    # Modes come last, deepest first, so that a directory without write permission can be filled.
    for path in sorted(modes, reverse=True):
        os.chmod(tree + path, modes[path])
        os.utime(tree + path, _TIMES)
    return ()


class _Share(NamedTuple):
    entries: tuple[FileEntry, ...]
    content: Mapping[bytes, bytes]


def _write_files(
    manifest: Manifest, content: Mapping[bytes, bytes], root: bytes, tree: bytes, reporter: Reporter
) -> list[Change]:
    """Write all but directories, in several processes if that is worth it; return what differs."""
    entries = [entry for entry in manifest.files if entry.kind != "directory"]
    shares = [
        _Share(share, {e.path: content[e.path] for e in share if e.path in content})
        for share in shares_of(entries)
    ]
    work = partial(_write_share, root.rstrip(b"/"), tree)
    processes = processes_for(cost(entries))
    changes: list[Change] = []
    for done, found in enumerate(
        in_processes(work, shares, processes, "exporting") if processes > 1 else map(work, shares), start=1
    ):
        changes += found
        reporter.progress("exporting", done, len(shares))
    return changes


def _write_share(prefix: bytes, tree: bytes, share: _Share) -> list[Change]:
    changes = []
    buffer = Buffer(len)
    for entry in share.entries:
        place = tree + entry.path
        if entry.kind == "symlink":
            os.symlink(entry.target or b"", place)
            os.utime(place, _TIMES, follow_symlinks=False)
            continue
        descriptor = os.open(place, _NEW, 0o600)
        try:
            buffer.flush(partial(write_all, descriptor))
            if entry.origin == "entry":
                buffer.write(share.content.get(entry.path, b""))
            elif mismatch := copy_file(entry, prefix + entry.path, buffer):
                changes.append((entry.path, mismatch))
            buffer.flush()
            os.fchmod(descriptor, entry.mode & COPIED_BITS)
            os.utime(descriptor, _TIMES)
        finally:
            os.close(descriptor)
    return changes
