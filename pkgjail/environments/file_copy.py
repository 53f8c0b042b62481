"""Copies of the host's files in an environment, each compared with the manifest while it is copied."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.entries import COPIED_BITS, MISSING, NOUNS, Mismatch, drops_bits, kind_of, noun_of
from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import first_of, text_path
from pkgjail.sandbox import syscalls as sc
from pkgjail.storage.copying import copy_content
from pkgjail.storage.digests import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.core.reporter import Reporter

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_BENEATH = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS
_NO_SUCH_FILE = {
    errno.ELOOP: Mismatch("linked"),
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
}


def copied_manifest(manifest: Manifest) -> Manifest:
    """Return the manifest of a copied tree: that of the host, without the mode bits that a copy drops."""
    files = (
        entry._replace(mode=entry.mode & COPIED_BITS) if drops_bits(entry) else entry
        for entry in manifest.files
    )
    return replace(manifest, files=tuple(files))


def copied_files(manifest: Manifest) -> dict[bytes, FileEntry]:
    """Return the entries, by path, whose content comes from the host."""
    return {e.path: e for e in manifest.files if e.kind == "regular" and e.origin != "entry"}


def refuse_unreadable(manifest: Manifest, root: bytes) -> None:
    """Refuse to copy a manifest with files that this user may not read.

    Raises:
        PkgjailError: names all of them.

    """
    base = root.rstrip(b"/")
    paths = [
        text_path(path)
        for path in copied_files(manifest)
        if not os.access(base + path, os.R_OK, effective_ids=True) and os.path.lexists(base + path)
    ]
    if paths:
        rows = "".join(f"\n  {row}" for row in first_of(paths))
        raise PkgjailError(
            f"cannot copy {len(paths)} of the manifest's files: this user may not read them:{rows}\n"
            "exclude them by a blacklist, or build as a user who may read them"
        )


class FileCopier:
    """Copies files below `root`; `changes` collects those that are not as the manifest says."""

    def __init__(self, root: bytes, changes: dict[bytes, Mismatch], reporter: Reporter) -> None:
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

    def writers(self, entries: Mapping[bytes, FileEntry]) -> dict[bytes, Callable[[int], str | None]]:
        """Return for each path a function that copies the file into a descriptor, and returns its SHA-256.

        If the file is not as the manifest says, the function adds it to `changes` and returns None.
        """
        self._total = len(entries)
        return {path: partial(self._write, entry) for path, entry in entries.items()}

    def _write(self, entry: FileEntry, destination: int) -> str | None:
        self._done += 1
        self._reporter.progress("copying", self._done, self._total)
        if entry.path in self.changes:
            return None
        try:
            return self._copy(entry, destination)
        except _ChangedError as change:
            self.changes[entry.path] = change.mismatch
        return None

    def _copy(self, entry: FileEntry, destination: int) -> str:
        """Copy one file and compare the copy: the host's file may change in the next moment."""
        try:
            source = sc.openat2(self._root, entry.path[1:], _FILE, _BENEATH)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                raise _ChangedError(_NO_SUCH_FILE[error.errno]) from error
            raise
        try:
            found = os.fstat(source)
            if kind_of(found.st_mode) != "regular":
                raise _ChangedError(Mismatch("kind", NOUNS["regular"], noun_of(found.st_mode)))
            copy_content(source, destination)
        finally:
            os.close(source)
        size = os.fstat(destination).st_size
        if entry.size is not None and size != entry.size:
            raise _ChangedError(Mismatch("size", str(entry.size), str(size)))
        digest = sha256_of(destination)
        if entry.sha256 is not None and digest != entry.sha256:
            raise _ChangedError(Mismatch("content", entry.sha256, digest))
        os.utime(destination, ns=(found.st_mtime_ns, found.st_mtime_ns))
        return digest


class _ChangedError(Exception):
    """A file is not as the manifest says."""

    def __init__(self, mismatch: Mismatch) -> None:
        super().__init__(mismatch)
        self.mismatch = mismatch


def sync_filesystem(descriptor: int) -> None:
    """Wait until all that was written to the filesystem of `descriptor` is on the disk; see syncfs(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(ctypes.c_int(descriptor)) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
