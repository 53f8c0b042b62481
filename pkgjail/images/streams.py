"""The bytes of an archive, decompressed as they are read, with bounds on their number.

An archive may be a file, a pipe, or a part of another archive. Nothing of it is kept in memory but a piece.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import shutil
import subprocess
import threading
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from pkgjail.core.errors import PkgjailError
from pkgjail.core.untrusted import MIB, shortened
from pkgjail.images import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = MIB
"""The bytes that are read at a time."""
SQUASHFS = b"hsqs"
"""The first bytes of a squashfs image."""
MAGIC = 6
"""The number of first bytes by which a form is recognized."""

_XZ_MEMORY = 256 * MIB  # of its dictionary: the largest preset has 64 MiB
_HEADERS = MIB  # of one member: names, and attributes in pax headers


class DamagedError(ValueError):
    """The archive cannot be read to its end; the text says why, for a message that has named it."""


class _Decompressor(Protocol):
    """What the objects of zlib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class Packed:
    """The bytes of a descriptor in pieces: how many were `consumed`, and with `digest` their SHA-256."""

    def __init__(self, descriptor: int, *, digest: bool = False) -> None:
        self.consumed = 0
        self.first = b""
        self._descriptor = descriptor
        self._digest = hashlib.sha256() if digest else None
        while len(self.first) < MAGIC and (piece := self._read(PIECE)):
            self.first += piece
        self._waiting = self.first

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes, the first ones too."""
        while piece := self._waiting or self._read(PIECE):
            self._waiting = b""
            yield piece

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was read."""
        return "" if self._digest is None else self._digest.hexdigest()

    def _read(self, size: int) -> bytes:
        piece = os.read(self._descriptor, size)
        self.consumed += len(piece)
        if self._digest is not None:
            self._digest.update(piece)
        return piece


class Unpacked:
    """A file for tarfile: the decompressed bytes, which it can only read forwards.

    `allowance` is the number of bytes that may be read as headers; None is any number, for contents.
    `last` is what was read last.
    """

    def __init__(self, pieces: Iterator[bytes], *, digest: bool = False) -> None:
        self.allowance: int | None = None
        self.last = b""
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._position = 0
        self._digest = hashlib.sha256() if digest else None

    def allow_headers(self) -> None:
        """Allow the headers of one member."""
        self.allowance = _HEADERS

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Go forwards to a position. Raises `DamagedError` for one that was passed."""
        if position < self._position:
            raise DamagedError("a member has a negative size")
        allowance, self.allowance = self.allowance, None
        while position > self._position and self._some(position - self._position):
            pass
        self.allowance = allowance

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end."""
        if self.allowance is not None:
            self.allowance -= size
            if self.allowance < 0:
                raise DamagedError(f"a member has more than {_HEADERS // MIB} MiB of headers")
        some = self._some(size)
        self.last = bytes(some)
        while len(self.last) < size and (some := self._some(size - len(self.last))):
            self.last += some
        return self.last

    def drain(self) -> None:
        """Read to the end, so that digests and checksums are of everything."""
        while self._some(PIECE):
            pass

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was read."""
        return "" if self._digest is None else self._digest.hexdigest()

    def _some(self, size: int) -> memoryview:
        """Return at least one byte and at most `size`; nothing at the end."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return self._piece
            if self._digest is not None:
                self._digest.update(piece)
            self._piece = memoryview(piece)
        some, self._piece = self._piece[:size], self._piece[size:]
        self._position += len(some)
        return some


@contextmanager
def unpacked(packed: Packed, *, digest: bool = False) -> Iterator[Unpacked]:
    """Decompress by the first bytes: gzip, bzip2, xz, or zstd with its program; otherwise as they are.

    Raises, also while it is read:
        DamagedError: the data is damaged, or unpacks to far more than its size.
        PkgjailError: zstd(1) is missing.

    """
    form = next((each for magic, each in _FORMS.items() if packed.first.startswith(magic)), None)
    if form is not None:
        yield Unpacked(_bounded(_inflated(packed, form), packed), digest=digest)
    elif packed.first.startswith(_ZSTD):
        with through_program(("zstd", "-dc"), packed) as pieces:
            yield Unpacked(_bounded(pieces, packed), digest=digest)
    else:
        yield Unpacked(packed.pieces(), digest=digest)


@contextmanager
def through_program(command: tuple[str, ...], packed: Packed | None) -> Iterator[Iterator[bytes]]:
    """Yield the pieces that a program writes, which reads `packed`, or nothing if that is None.

    Raises, also while they are read:
        DamagedError: the program failed.
        PkgjailError: there is no such program, or no room for another thread.

    """
    found = shutil.which(command[0])
    if found is None:
        raise PkgjailError(
            f"cannot unpack the image: the program {command[0]} is not in PATH; install it "
            f"({_PACKAGES.get(command[0], command[0])})"
        )
    feeding = subprocess.PIPE if packed is not None else subprocess.DEVNULL
    with subprocess.Popen(
        (found, *command[1:]), stdin=feeding, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        said: list[bytes] = []
        threads: list[threading.Thread] = []
        try:
            threads.append(started(_listen, process, said))
            if packed is not None:
                threads.append(started(_feed, process, packed))
            yield _written(command[0], process, threads, said)
        finally:
            process.kill()
            for thread in threads:
                thread.join()


def started(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread. Raises `PkgjailError` if there is no room for one."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise PkgjailError(
            "cannot unpack the image: no thread can be started; raise the limit of processes (ulimit -u), or "
            "end some"
        ) from error
    return thread


def _written(
    program: str, process: subprocess.Popen[bytes], threads: list[threading.Thread], said: list[bytes]
) -> Iterator[bytes]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    while piece := process.stdout.read(PIECE):
        yield piece
    for thread in threads:
        thread.join()
    if status := process.wait():
        words = " ".join(b"".join(said).decode("utf-8", "replace").split())
        if status < 0:
            raise PkgjailError(f"cannot unpack the image: {program} was killed by signal {-status}")
        raise DamagedError(f"it is damaged ({shortened(words)})")


def _listen(process: subprocess.Popen[bytes], said: list[bytes]) -> None:
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    while piece := process.stderr.read(1 << 12):
        if len(said) < 10:  # noqa: PLR2004 - enough for a message; the rest is dropped
            said.append(piece)


def _feed(process: subprocess.Popen[bytes], packed: Packed) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    with suppress(BrokenPipeError), process.stdin as pipe:
        for piece in packed.pieces():
            view = memoryview(piece)
            while view:
                view = view[pipe.write(view) or 0 :]


def _bounded(pieces: Iterator[bytes], packed: Packed) -> Iterator[bytes]:
    """Yield pieces until they are far more than was read for them."""
    count = 0
    for piece in pieces:
        count += len(piece)
        if count > max(tree.ALWAYS, tree.MOST_TIMES * packed.consumed):
            raise DamagedError(f"it unpacks to more than {tree.MOST_TIMES} times its size")
        yield piece


def _inflated(packed: Packed, form: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Decompress one stream after the other: archives are often made of several."""
    pieces, rest = packed.pieces(), b""
    while rest := rest or next(pieces, b""):
        stream = form()
        inflate = _ZlibSteps(stream) if isinstance(stream, _Zlib) else _Steps(stream)
        try:
            while not stream.eof:
                yield from inflate(rest)
                if not stream.eof and not (rest := next(pieces, b"")):
                    raise DamagedError("it is truncated")
        except (OSError, ValueError, EOFError, MemoryError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, DamagedError):
                raise
            raise DamagedError(f"it is damaged ({error})") from error
        rest = stream.unused_data.lstrip(b"\0")  # the padding between streams, or at the end


class _Steps:
    """Decompress a piece in steps of a bounded size: bz2 and lzma keep what they have not yet used."""

    def __init__(self, stream: _Decompressor) -> None:
        self._stream: bz2.BZ2Decompressor | lzma.LZMADecompressor = stream  # type: ignore[assignment]

    def __call__(self, piece: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(piece, PIECE)
        while not self._stream.eof and not self._stream.needs_input:
            yield self._stream.decompress(b"", PIECE)


class _ZlibSteps:
    """The same for zlib, which returns what it has not yet used."""

    def __init__(self, stream: _Decompressor) -> None:
        self._stream: zlib._Decompress = stream  # type: ignore[assignment]

    def __call__(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            yield self._stream.decompress(piece, PIECE)
            piece = self._stream.unconsumed_tail


_Zlib = type(zlib.decompressobj())
_ZSTD = b"\x28\xb5\x2f\xfd"
_FORMS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}
_PACKAGES = {"sqfs2tar": "squashfs-tools-ng"}
