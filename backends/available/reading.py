"""Files of a repository's metadata: found below a path, unpacked, and handed to libsolv."""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pkgjail.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PACKED = ("", ".xz", ".gz", ".bz2", ".zst", ".lz4")
"""The ends of names that packed files have, in the order of preference."""

_FETCH = "fetch the metadata again"
# By what a file begins with, as names need not say it (pacman's do not).
_UNPACKERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"\xfd7zXZ\0", lzma.decompress),
    (b"BZh", bz2.decompress),
)
_PROGRAMS = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"))


def fault(path: str, why: str, remedy: str = _FETCH, *, line: int = 0) -> DatabaseError:
    """The error to raise for the metadata at `path`, in the `line` (from 1) where that is known."""
    where = f"{path}:{line}" if line else path
    return DatabaseError(f"cannot read the repository metadata {where}: {why}; {remedy}")


class Metadata:
    """The files that were read of one repository, and their digest."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def read(self, path: str) -> bytes:
        """The content of a file as it is. Raises `DatabaseError`."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            remedy = "name what your mirror, or the package manager's own cache, has; nothing is fetched"
            raise fault(path, os.strerror(error.errno or 0), remedy) from error
        self._digest.update(hashlib.sha256(data).digest())
        return data

    def unpacked(self, path: str) -> bytes:
        """The content of a file, unpacked where it is packed. Raises `DatabaseError`."""
        return unpack(path, self.read(path))

    @property
    def sha256(self) -> str:
        """The digest in hex of the digests of all files that were read, in that order."""
        return self._digest.hexdigest()


def unpack(path: str, data: bytes) -> bytes:
    """Unpack `data` of `path` by what it begins with."""
    try:
        for magic, unpacker in _UNPACKERS:
            if data.startswith(magic):
                return unpacker(data)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise fault(path, f"it is damaged ({error})") from error
    program = next((name for magic, name in _PROGRAMS if data.startswith(magic)), "")
    return _by_program(path, data, program) if program else data


def _by_program(path: str, data: bytes, program: str) -> bytes:
    """Unpack what Python's own library cannot."""
    found = shutil.which(program)
    if found is None:
        raise fault(
            path, f"it is packed by {program}, which is not in PATH", f"install {program}, or unpack it"
        )
    done = subprocess.run([found, "-dc"], input=data, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().replace("\n", " ")
        raise fault(path, f"it is damaged ({said})")
    return done.stdout


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
    descriptor = os.memfd_create("metadata", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        opened = solv.xfopen_fd("metadata", descriptor)
        try:
            yield opened
        finally:
            opened.close()
    finally:
        os.close(descriptor)
