"""Export an image as a tar archive: what was imported, with its owners and set-user-ID bits.

Members are in the order of their paths, in the POSIX format (pax). Times are those of the files in the store.
Device nodes and extended attributes, which an import leaves out, are not in it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from typing import TYPE_CHECKING, BinaryIO

from pkgjail.core.errors import PkgjailError
from pkgjail.core.model import text_path
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import printable
from pkgjail.core.untrusted import refuse_irregular
from pkgjail.images.store import read_listing
from pkgjail.storage.digests import FILE_FLAGS

if TYPE_CHECKING:
    from pkgjail.core.reporter import Reporter
    from pkgjail.images.model import Image, ImageEntry

_PIECE = 1 << 20
_TYPES = {"regular": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE}
_NANOSECONDS = 10**9
_PER_REPORT = 256


def archive_image(image: Image, stream: BinaryIO, *, reporter: Reporter = SILENT) -> None:
    """Write an image to a stream as a tar archive; imported again, it has the same digest.

    Args:
        image: the image, which the caller keeps from being removed (`used_image`).
        stream: a binary file, open for writing.
        reporter: receives progress, in names ("exporting").

    Raises:
        PkgjailError: a file of the store is not as the image's list says; what was written is no archive.
        OSError: a file cannot be read, or the stream cannot be written.

    """
    entries = read_listing(image)
    first: dict[tuple[int, int], bytes] = {}
    for number, (path, entry) in enumerate(sorted(entries.items()), 1):
        if number % _PER_REPORT == 0 or number == len(entries):
            reporter.progress("exporting", number, len(entries))
        place = image.root + b"/" + path if path else image.root
        found = os.lstat(place)
        info = _header(path, entry, found)
        if entry.kind == "regular" and found.st_nlink > 1:
            other = first.setdefault((found.st_dev, found.st_ino), path)
            if other != path and entries[other] == entry:
                info.type, info.size, info.linkname = tarfile.LNKTYPE, 0, f"./{text_path(other)}"
        stream.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        if info.type == tarfile.REGTYPE:
            _write_content(place, path, entry, stream)
    stream.write(bytes(2 * tarfile.BLOCKSIZE))


def _header(path: bytes, entry: ImageEntry, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"./{text_path(path)}" if path else ".")
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.size = entry.size or 0
    info.linkname = text_path(entry.target or b"")
    info.mtime = found.st_mtime_ns // _NANOSECONDS
    return info


def _write_content(place: bytes, path: bytes, entry: ImageEntry, stream: BinaryIO) -> None:
    descriptor = os.open(place, FILE_FLAGS)
    try:
        refuse_irregular(os.fstat(descriptor), place)
        digest, size = hashlib.sha256(), 0
        while size <= (entry.size or 0) and (piece := os.read(descriptor, _PIECE)):
            digest.update(piece)
            size += len(piece)
            stream.write(piece)
        stream.write(bytes(-size % tarfile.BLOCKSIZE))
    finally:
        os.close(descriptor)
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        raise PkgjailError(
            f"cannot export the image: /{printable(path)} is not as it was imported; see what else is not "
            "with 'pkgjail image verify', and import it again"
        )
