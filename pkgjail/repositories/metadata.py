"""Files of a repository's metadata: find them, unpack them, and pass them to libsolv."""

from __future__ import annotations

import glob
import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pkgjail.core import unpacking, untrusted
from pkgjail.core.errors import DatabaseError
from pkgjail.core.untrusted import METADATA, in_memory, read_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

PACKED = ("", ".xz", ".gz", ".bz2", ".zst", ".lz4")
"""The suffixes of packed files, in the order of preference."""

_FETCH = "fetch the metadata again"


def fault(path: str, why: str, remedy: str = _FETCH, *, line: int = 0) -> DatabaseError:
    """Return the error for the metadata at `path`, with the `line` (from 1) if it is known."""
    where = f"{path}:{line}" if line else path
    return DatabaseError(f"cannot read the repository metadata {where}: {untrusted.shortened(why)}; {remedy}")


class Metadata:
    """Reads the files of one repository, and makes their digest."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def read(self, path: str, limit: int = METADATA) -> bytes:
        """Return the content of a file. Raises `DatabaseError`, also for more than `limit` bytes."""
        try:
            data = read_named(path, limit)
        except OSError as error:
            remedy = "name a file of your mirror, or of the package manager's cache; nothing is fetched"
            raise fault(path, error.strerror or str(error), remedy) from error
        self._digest.update(hashlib.sha256(data).digest())
        return data

    def unpacked(self, path: str, limit: int = METADATA) -> bytes:
        """Return the unpacked content of a file, of at most `limit` bytes. Raises `DatabaseError`."""
        return unpack(path, self.read(path), limit)

    @property
    def sha256(self) -> str:
        """The digest in hex of the digests of all files that were read, in that order."""
        return self._digest.hexdigest()


def unpack(path: str, data: bytes, limit: int = METADATA) -> bytes:
    """Return `data` of `path`, unpacked according to its first bytes. Raises `DatabaseError`."""
    try:
        return unpacking.unpack(data, limit)
    except unpacking.UnpackError as error:
        raise fault(path, str(error)) from error
    except unpacking.MissingProgramError as error:
        why = f"it is packed by {error}, which is not in PATH"
        raise fault(path, why, f"install {error}, or unpack it") from error


def parsing(path: str) -> AbstractContextManager[None]:
    """Return a context in which any exception of a parser becomes a `DatabaseError` that names `path`."""
    return untrusted.parsing(lambda why: fault(path, why))


def first_packed(stem: str) -> str:
    """Return the first of the files `stem`, `stem.xz` and so on that exists; "" if none does."""
    return next((stem + end for end in PACKED if os.path.isfile(stem + end)), "")


def matching(directory: str, pattern: str, ends: Iterable[str] = PACKED) -> list[str]:
    """Return the files below `directory` that match `pattern` (glob(3)), each in its first packing."""
    stems: dict[str, str] = {}
    for end in ends:
        for path in glob.glob(os.path.join(glob.escape(directory), pattern + end)):
            if os.path.isfile(path):
                stems.setdefault(path[: len(path) - len(end)] if end else path, path)
    return [stems[stem] for stem in sorted(stems)]


@contextmanager
def as_file(solv: Any, data: bytes) -> Iterator[Any]:
    """Yield `data` as a C file, which libsolv reads."""
    with in_memory(data) as file:
        opened = solv.xfopen_fd("metadata", file.fileno())
        try:
            yield opened
        finally:
            opened.close()
