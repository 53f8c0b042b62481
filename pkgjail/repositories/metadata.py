"""Files of a repository's metadata: found below a path, unpacked, and handed to libsolv."""

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
"""The ends of names that packed files have, in the order of preference."""

_FETCH = "fetch the metadata again"


def fault(path: str, why: str, remedy: str = _FETCH, *, line: int = 0) -> DatabaseError:
    """The error to raise for the metadata at `path`, in the `line` (from 1) where that is known."""
    where = f"{path}:{line}" if line else path
    return DatabaseError(f"cannot read the repository metadata {where}: {untrusted.shortened(why)}; {remedy}")


class Metadata:
    """The files that were read of one repository, and their digest."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def read(self, path: str, limit: int = METADATA) -> bytes:
        """The content of a file as it is. Raises `DatabaseError`, for more than `limit` bytes too."""
        try:
            data = read_named(path, limit)
        except OSError as error:
            remedy = "name what your mirror, or the package manager's own cache, has; nothing is fetched"
            raise fault(path, error.strerror or str(error), remedy) from error
        self._digest.update(hashlib.sha256(data).digest())
        return data

    def unpacked(self, path: str, limit: int = METADATA) -> bytes:
        """The content of a file, unpacked where it is packed, up to `limit` bytes. Raises `DatabaseError`."""
        return unpack(path, self.read(path), limit)

    @property
    def sha256(self) -> str:
        """The digest in hex of the digests of all files that were read, in that order."""
        return self._digest.hexdigest()


def unpack(path: str, data: bytes, limit: int = METADATA) -> bytes:
    """`data` of `path`, unpacked by what it begins with. Raises `DatabaseError`."""
    try:
        return unpacking.unpack(data, limit)
    except unpacking.UnpackError as error:
        raise fault(path, str(error)) from error
    except unpacking.MissingProgramError as error:
        why = f"it is packed by {error}, which is not in PATH"
        raise fault(path, why, f"install {error}, or unpack it") from error


def parsing(path: str) -> AbstractContextManager[None]:
    """A context in which whatever a parser of `path` raises becomes a `DatabaseError` that names it."""
    return untrusted.parsing(lambda why: fault(path, why))


def first_packed(stem: str) -> str:
    """The first of the files `stem`, `stem.xz` and so on that is there; "" for none."""
    return next((stem + end for end in PACKED if os.path.isfile(stem + end)), "")


def matching(directory: str, pattern: str, ends: Iterable[str] = PACKED) -> list[str]:
    """The files that match `pattern` (glob(3)) below `directory` by stem: of each the first form, sorted."""
    stems: dict[str, str] = {}
    for end in ends:
        for path in glob.glob(os.path.join(glob.escape(directory), pattern + end)):
            if os.path.isfile(path):
                stems.setdefault(path[: len(path) - len(end)] if end else path, path)
    return [stems[stem] for stem in sorted(stems)]


@contextmanager
def as_file(solv: Any, data: bytes) -> Iterator[Any]:
    """`data` as a file of C's, which libsolv reads."""
    with in_memory(data) as file:
        opened = solv.xfopen_fd("metadata", file.fileno())
        try:
            yield opened
        finally:
            opened.close()
