"""Decompress untrusted data up to a limit: gzip, bzip2 and xz, and zstd and lz4 with their programs.

A few hundred kilobytes can decompress to gigabytes. Metadata does not: data that grows by more than
`MOST_TIMES` is refused as soon as it has, and so is data that has more bytes than the caller wants.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import zlib
from typing import TYPE_CHECKING

from pkgjail.core.untrusted import MIB, in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TIMES = 200
"""The most that a file may grow by decompression, as a factor, beyond the first `ALWAYS` bytes."""
ALWAYS = 16 * MIB

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file."""

_XZ_MEMORY = 256 * MIB  # of its dictionary: the largest preset has 64 MiB
_PIECE = MIB


class UnpackError(ValueError):
    """The data is damaged, or decompresses to too much; the text says which, for a message."""


class MissingProgramError(Exception):
    """The program of this name is needed for decompression, and is not in PATH."""


def unpack(data: bytes, limit: int) -> bytes:
    """Return `data` decompressed, by its first bytes; unchanged if they are of no known format.

    Raises:
        UnpackError: it is damaged, or has more than `limit` bytes.
        MissingProgramError: a program is missing.

    """
    open_packed = next((each for magic, each in _FORMS if data.startswith(magic)), None)
    if open_packed is None:
        return data
    bound = min(limit, max(ALWAYS, MOST_TIMES * len(data)))
    try:
        return open_packed(data, bound)
    except (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, UnpackError):
            raise
        raise UnpackError(f"it is damaged ({error})") from error


def _gzip(data: bytes, bound: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return _bounded(file.read, bound)


def _bzip2(data: bytes, bound: int) -> bytes:
    with bz2.BZ2File(io.BytesIO(data)) as file:
        return _bounded(file.read, bound)


def _xz(data: bytes, bound: int) -> bytes:
    """Decompress each stream: lzma's file object has no limit for the memory of the dictionary."""
    out, rest = io.BytesIO(), data
    while rest:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        piece = rest
        while not stream.eof:
            if stream.needs_input and not piece:
                raise EOFError("it ends within a stream")
            out.write(stream.decompress(piece, _PIECE))
            _refuse_more(out.tell(), bound)
            piece = b""
        rest = stream.unused_data.lstrip(b"\0")  # the padding between streams
    return out.getvalue()


def _program(name: str) -> Callable[[bytes, int], bytes]:
    """Return a function that decompresses with the program `name`, for formats that Python lacks."""

    def by_program(data: bytes, bound: int) -> bytes:
        """Return `data` decompressed by the program, at most `bound` bytes."""
        found = shutil.which(name)
        if found is None:
            raise MissingProgramError(name)
        command = [found, "-dc"]
        with in_memory(data) as packed, in_memory(b"") as said:
            with subprocess.Popen(command, stdin=packed, stdout=subprocess.PIPE, stderr=said) as process:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                try:
                    unpacked = _bounded(process.stdout.read, bound)
                except BaseException:
                    process.kill()
                    raise
            if process.returncode:
                said.seek(0)
                words = " ".join(said.read(1000).decode("utf-8", "replace").split())
                raise UnpackError(f"it is damaged ({words})")
            return unpacked

    return by_program


def _bounded(read: Callable[[int], bytes], bound: int) -> bytes:
    """Return everything that `read` returns. Raises `UnpackError` for more than `bound` bytes."""
    out = io.BytesIO()
    while piece := read(_PIECE):
        out.write(piece)
        _refuse_more(out.tell(), bound)
    return out.getvalue()


def _refuse_more(count: int, bound: int) -> None:
    if count > bound:
        raise UnpackError(f"it unpacks to more than {bound // MIB} MiB, the most that is read of such a file")


# By the first bytes of a file: its name may not tell the format (pacman's do not).
_FORMS: tuple[tuple[bytes, Callable[[bytes, int], bytes]], ...] = (
    (GZIP, _gzip),
    (b"\xfd7zXZ\0", _xz),
    (b"BZh", _bzip2),
    (b"\x28\xb5\x2f\xfd", _program("zstd")),
    (b"\x04\x22\x4d\x18", _program("lz4")),
)
