"""Write a manifest's names as members of tar archives, each file compared with the manifest as it is read.

Archives are written by several processes, each of which writes a part at its place in a file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from contextlib import contextmanager
from functools import partial
from stat import S_ISREG
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import MISSING, NOUNS, Mismatch, failure, noun_of
from pkgjail.core.errors import PkgjailError
from pkgjail.core.parallel import in_processes
from pkgjail.export.image.tar import END, OF_MANIFESTS, member_header, padding
from pkgjail.storage.atomic import write_all
from pkgjail.storage.digests import FILE_FLAGS, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from typing_extensions import TypeAlias

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter
    from pkgjail.export.image.tar import Stamp

    Sink: TypeAlias = Callable[[memoryview], object]

_ABSENT = {errno.ENOENT: MISSING, errno.ENOTDIR: MISSING, errno.ELOOP: Mismatch("linked")}
# Opening a file costs about as much time as reading this many bytes of it.
_OPENING_BYTES = 1 << 15
# A process takes about as long to start as this many bytes take to be copied.
_WORTH_A_PROCESS = 1 << 25
_SHARES = 16
_BUFFER = 1 << 18  # bytes
_GZIP_FORMAT = 31  # of zlib: a gzip header, without a name and a time, and the largest window
ZSTD = "zstd"


class Part(NamedTuple):
    """A part of an archive: entries of a manifest, and the place in a file where they are written.

    `content` has the files made at entry, and `stamps` the owners and times that are not a manifest's, by
    path. A part that is `whole` has an archive's end, and is hashed and compressed (`compression` is "",
    "gzip" or "zstd").
    """

    file: str
    offset: int
    entries: tuple[FileEntry, ...]
    content: Mapping[bytes, bytes]
    stamps: Mapping[bytes, Stamp]
    whole: bool = False
    compression: str = ""


class Written(NamedTuple):
    """What was written of a part: what differs on the host and, of a whole archive, digests and the size.

    The digests, in hex, are those before and after the compression.
    """

    changes: tuple[Change, ...]
    compression: str = ""
    diff_id: str = ""
    sha256: str = ""
    size: int = 0


def cost(entries: Iterable[FileEntry]) -> int:
    """Return how much time entries take, in the bytes that could be copied meanwhile."""
    return sum((entry.size or 0) + _OPENING_BYTES for entry in entries)


def shares_of(entries: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, ...]]:
    """Split entries into consecutive shares that take about the same time."""
    most, taken = cost(entries) // _SHARES, 0
    share: list[FileEntry] = []
    for entry in entries:
        share.append(entry)
        taken += cost([entry])
        if taken > most:
            yield tuple(share)
            share, taken = [], 0
    if share:
        yield tuple(share)


def processes_for(work: int) -> int:
    """Return how many processes are worth it for work of this cost; fewer than two if none are."""
    return min(len(os.sched_getaffinity(0)), work // _WORTH_A_PROCESS)


def write_parts(parts: Sequence[Part], root: bytes, reporter: Reporter) -> list[Written]:
    """Write parts of archives, in several processes if that is worth it; return what was written of each.

    Args:
        parts: their files exist, and are empty or have these places.
        root: the real path of the directory that the entries' files are in.
        reporter: receives the progress in names ("exporting").

    Raises:
        OSError: a file cannot be read or written.
        PkgjailError: a process died, or zstd failed.

    """
    largest_first = sorted(enumerate(parts), key=lambda item: cost(item[1].entries), reverse=True)
    work = partial(_write_part, root.rstrip(b"/"))
    processes = processes_for(sum(cost(part.entries) for part in parts))
    if processes > 1 and len(parts) > 1:
        results = in_processes(work, largest_first, processes, "exporting")
    else:
        results = (work(item) for item in largest_first)
    done, total = 0, sum(len(part.entries) for part in parts)
    reporter.progress("exporting", done, total)
    written: dict[int, Written] = {}
    for number, each in results:
        written[number] = each
        done += len(parts[number].entries)
        reporter.progress("exporting", done, total)
    return [written[number] for number in range(len(parts))]


def _write_part(prefix: bytes, numbered: tuple[int, Part]) -> tuple[int, Written]:
    """Write a part at its place."""
    number, part = numbered
    descriptor = os.open(part.file, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.lseek(descriptor, part.offset, os.SEEK_SET)
        if part.whole:
            return number, _write_whole(part, descriptor, prefix)
        buffer = Buffer(partial(write_all, descriptor))
        changes = write_members(part.entries, part.content, part.stamps, prefix, buffer)
        buffer.flush()
        return number, Written(tuple(changes))
    finally:
        os.close(descriptor)


def _write_whole(part: Part, descriptor: int, prefix: bytes) -> Written:
    hashed = hashlib.sha256()
    with _COMPRESSIONS[part.compression](descriptor) as compress:

        def sink(data: memoryview) -> None:
            """Hash what is written."""
            hashed.update(data)
            compress(data)

        buffer = Buffer(sink)
        changes = write_members(part.entries, part.content, part.stamps, prefix, buffer)
        buffer.write(END)
        buffer.flush()
    diff_id = hashed.hexdigest()
    sha256 = sha256_of(descriptor) if part.compression else diff_id
    size = os.lseek(descriptor, 0, os.SEEK_CUR) - part.offset
    return Written(tuple(changes), part.compression, diff_id, sha256, size)


class Buffer:
    """Passes on what is written to it, in pieces that fit into a processor's cache.

    There is one piece of memory for all: new memory for each piece would cost more time than the copying.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._data = memoryview(bytearray(_BUFFER))
        self._used = 0

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            taken = min(len(rest), _BUFFER - self._used)
            self._data[self._used : self._used + taken] = rest[:taken]
            self._take(taken)
            rest = rest[taken:]

    def copy(self, descriptor: int, size: int, digest: hashlib._Hash) -> int:
        """Write `size` bytes of a file, and hash them; return how many are missing at its end."""
        left = size
        while left:
            piece = self._data[self._used : self._used + min(left, _BUFFER - self._used)]
            count = os.readv(descriptor, [piece])
            if not count:
                break
            digest.update(piece[:count])
            self._take(count)
            left -= count
        return left

    def flush(self, sink: Sink | None = None) -> None:
        """Pass on what is here; what follows goes to `sink`, if it is given."""
        self._sink(self._data[: self._used])
        self._used = 0
        self._sink = sink or self._sink

    def _take(self, count: int) -> None:
        self._used += count
        if self._used == _BUFFER:
            self.flush()


def write_members(
    entries: Iterable[FileEntry],
    content: Mapping[bytes, bytes],
    stamps: Mapping[bytes, Stamp],
    prefix: bytes,
    buffer: Buffer,
) -> list[Change]:
    """Write entries as members of an archive; return those whose files are not as the manifest says.

    If there are any, what was written is no archive.
    """
    changes = []
    for entry in entries:
        stamp = stamps.get(entry.path, OF_MANIFESTS)
        if entry.kind != "regular" or stamp.link:
            buffer.write(member_header(entry, 0, stamp))
        elif entry.origin == "entry":
            data = content.get(entry.path, b"")
            buffer.write(member_header(entry, len(data)) + data + padding(len(data)))
        else:
            size = entry.size or 0
            buffer.write(member_header(entry, size, stamp))
            if mismatch := copy_file(entry, prefix + entry.path, buffer):
                changes.append((entry.path, mismatch))
            buffer.write(padding(size))
    return changes


def copy_file(entry: FileEntry, path: bytes, buffer: Buffer) -> Mismatch | None:
    """Write the content of the regular file at `path`, if it is the entry's; otherwise return what differs.

    Raises:
        OSError: it cannot be read to its end, or not be written.

    """
    try:
        descriptor = os.open(path, FILE_FLAGS)
    except OSError as error:
        return _ABSENT.get(error.errno or 0) or failure("unreachable", error)
    try:
        found = os.fstat(descriptor)
        if not S_ISREG(found.st_mode):
            return Mismatch("kind", NOUNS["regular"], noun_of(found.st_mode))
        digest = hashlib.sha256()
        missing = buffer.copy(descriptor, found.st_size, digest) if found.st_size == entry.size else 0
    finally:
        os.close(descriptor)
    if found.st_size - missing != entry.size:
        return Mismatch("size", str(entry.size), str(found.st_size - missing))
    if digest.hexdigest() != entry.sha256:
        return Mismatch("content", entry.sha256 or "", digest.hexdigest())
    return None


@contextmanager
def _plain(descriptor: int) -> Iterator[Sink]:
    yield partial(write_all, descriptor)


@contextmanager
def _gzip(descriptor: int) -> Iterator[Sink]:
    """Compress with zlib: the program gzip, if it is another one, gives other bytes."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_FORMAT)
    yield lambda data: write_all(descriptor, packer.compress(data))
    write_all(descriptor, packer.flush())


@contextmanager
def _zstd(descriptor: int) -> Iterator[Sink]:
    """Compress with the program zstd, as Python before 3.14 has none."""
    with Popen([ZSTD, "-q", "-c"], stdin=PIPE, stdout=descriptor, stderr=DEVNULL) as process:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        yield process.stdin.write
    if process.returncode:
        raise PkgjailError(
            f"cannot compress a layer: zstd ended with status {process.returncode}; "
            "look whether there is room, or use gzip"
        )


_COMPRESSIONS = {"": _plain, "gzip": _gzip, "zstd": _zstd}
COMPRESSIONS = tuple(filter(None, _COMPRESSIONS))
"""The names of compressions."""
