"""The files of the host that a copy is made from, each held against its manifest while it is read."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import PkgjailError
from pkgjail.core.model import text_path
from pkgjail.core.text import first_of
from pkgjail.environments.compare import content_digest
from pkgjail.environments.file_copy import copy_content
from pkgjail.environments.tree import copied_files
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_WITHIN = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS
_NO_SUCH_FILE = {
    errno.ELOOP: "is reached through a symbolic link",
    errno.ENOENT: "is gone",
    errno.ENOTDIR: "is gone",
}


def refuse_unreadable(manifest: Manifest, root: bytes) -> None:
    """Refuse to copy where the caller may not read some of the files.

    Raises:
        PkgjailError: with all of them.

    """
    base = root.rstrip(b"/")
    paths = [
        text_path(path)
        for path in copied_files(manifest)
        if not os.access(base + path, os.R_OK, effective_ids=True) and os.path.lexists(base + path)
    ]
    if paths:
        shown = "".join(f"\n  {row}" for row in first_of(paths))
        raise PkgjailError(
            f"cannot copy {len(paths)} of the manifest's files: this user may not read them:{shown}\n"
            "take them away with a blacklist, or build as a user who may read them"
        )


class Sources:
    """Opens files below `root` and copies them; `changes` gathers what is not as the manifest says."""

    def __init__(self, root: bytes, changes: dict[bytes, str], reporter: Reporter) -> None:
        self.changes = changes
        self._reporter = reporter
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._done = self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    def filling(self, entries: Mapping[bytes, FileEntry]) -> dict[bytes, Callable[[int], str | None]]:
        """For each path, what copies its content into a descriptor and returns the SHA-256 of that.

        It returns None, and adds to `changes`, where the file is not as the manifest says.
        """
        self._total = len(entries)
        return {path: partial(self._fill, entry) for path, entry in entries.items()}

    def _fill(self, entry: FileEntry, destination: int) -> str | None:
        self._done += 1
        self._reporter.progress("copying", self._done, self._total)
        if entry.path in self.changes:
            return None
        try:
            return self._copy(entry, destination)
        except _ChangedError as change:
            self.changes[entry.path] = str(change)
        return None

    def _copy(self, entry: FileEntry, destination: int) -> str:
        """Copy one file, and compare what was copied: the host's file may change the next moment."""
        try:
            source = sc.openat2(self._root, entry.path[1:], _FILE, _WITHIN)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                raise _ChangedError(_NO_SUCH_FILE[error.errno]) from error
            raise
        try:
            found = os.fstat(source)
            if not stat.S_ISREG(found.st_mode):
                raise _ChangedError("is no longer a regular file")
            copy_content(source, destination)
        finally:
            os.close(source)
        size = os.fstat(destination).st_size
        if entry.size is not None and size != entry.size:
            raise _ChangedError(f"has {size} bytes, not {entry.size}")
        digest = content_digest(destination)
        if entry.sha256 is not None and digest != entry.sha256:
            raise _ChangedError("has another SHA-256")
        os.utime(destination, ns=(found.st_mtime_ns, found.st_mtime_ns))
        return digest


class _ChangedError(Exception):
    """A file is not as the manifest says; the message ends a sentence that begins with its path."""
