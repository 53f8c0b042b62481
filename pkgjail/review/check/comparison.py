"""The jail to compare with: the set, and everything else that the host has in its system directories.

A program that fails there in the same way does not fail for a gap of the set. Python, for example, has
standard modules that can be loaded only on another system.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.entries import kind_and_mode
from pkgjail.core.model import FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import Manifest

_SYSTEM = (b"/etc", b"/usr")
_STATE = b"/var/lib"


def whole_host(manifest: Manifest, root: bytes) -> Manifest:
    """Return `manifest` with all other files of `root`, a real path, in /etc and /usr, without digests.

    Of /var/lib it has the directories that the manifest has: others may be whole systems.

    Raises:
        OSError: a directory disappears meanwhile.

    """
    entries = {entry.path: entry for entry in manifest.files}
    state = [e.path for e in manifest.files if e.kind == "directory" and e.path.rpartition(b"/")[0] == _STATE]
    for top in (*_SYSTEM, *state):
        for entry in _entries(root.rstrip(b"/"), top):
            entries.setdefault(entry.path, entry)
    return replace(manifest, files=tuple(entries[path] for path in sorted(entries)), dropped=(), missing=())


def _entries(prefix: bytes, top: bytes) -> Iterator[FileEntry]:
    todo = [top]
    while todo:
        path = todo.pop()
        found = os.lstat(prefix + path)
        kind, mode = kind_and_mode(found.st_mode)
        if kind is None:
            continue
        yield FileEntry(
            path=path,
            kind=kind,
            mode=mode,
            size=found.st_size if kind == "regular" else None,
            target=os.readlink(prefix + path) if kind == "symlink" else None,
        )
        if kind == "directory" and os.access(prefix + path, os.R_OK | os.X_OK):
            todo.extend(path + b"/" + name for name in os.listdir(prefix + path))
