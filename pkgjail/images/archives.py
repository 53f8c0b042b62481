"""The members of tar archives, in every form that tarfile reads, without trust in what they say."""

from __future__ import annotations

import math
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from pkgjail.core.untrusted import parsing
from pkgjail.images.model import Member
from pkgjail.images.streams import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from pkgjail.images.model import MemberKind
    from pkgjail.images.streams import Unpacked

_KINDS: dict[bytes, MemberKind] = {
    tarfile.REGTYPE: "regular",
    tarfile.AREGTYPE: "regular",
    tarfile.CONTTYPE: "regular",
    tarfile.GNUTYPE_SPARSE: "regular",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
}
_ATTRIBUTES = ("SCHILY.xattr.", "LIBARCHIVE.xattr.", "SCHILY.acl.")


class _Info(tarfile.TarInfo):
    """A member whose damaged header is an error: tarfile would take it for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Self:
        """Read a member's header."""
        return cast("Self", _read_header(super().fromtarfile, tarfile))


def _read_header(read: Callable[[Any], object], archive: Any) -> object:
    try:
        return read(archive)
    except tarfile.HeaderError as error:
        block = archive.fileobj.last
        if block == bytes(
            tarfile.BLOCKSIZE
        ):  # the archive's end, or that of one that lacks a member's header
            raise
        if len(block) == tarfile.BLOCKSIZE:
            raise DamagedError(f"it is damaged, or no tar archive ({error})") from None
        why = "within a header" if block else "it ends without the block of zeros that ends an archive"
        raise DamagedError(f"it is truncated: {why}") from None


def members_of(file: Unpacked) -> Iterator[Member]:
    """Yield the members of an archive in their order. Their content must be read before the next one.

    Raises:
        DamagedError: it is no tar archive, damaged or truncated.

    """
    file.allow_headers()
    with parsing(DamagedError):
        try:
            archive = tarfile.TarFile(
                fileobj=cast("Any", file), tarinfo=_Info, encoding="utf-8", errors="surrogateescape"
            )
        except tarfile.ReadError as error:  # nothing but the end
            raise DamagedError(f"it is damaged, or no tar archive ({error})") from error
    if cast("Any", archive).firstmember is None:  # it begins with its end, before which Python 3.9 would go
        return
    while True:
        file.allow_headers()
        with parsing(DamagedError):
            info = _next(archive)
        file.allowance = None
        if info is None:
            return
        cast("Any", archive).members.clear()  # it would keep all of them
        with parsing(DamagedError):
            member = _member(archive, info, file)
        yield member


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return archive.next()
    except tarfile.ReadError as error:
        raise DamagedError(f"it is truncated ({error})") from error


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo, file: Unpacked) -> Member:
    kind = _KINDS.get(info.type)
    if kind is None:
        raise DamagedError(f"{info.name}: it has the unknown type {info.type!r}")
    size = info.size if kind == "regular" else 0
    hole = _hole(info) if info.sparse is not None else 0
    return Member(
        path=_bytes(info.name),
        kind=kind,
        mode=info.mode,
        uid=info.uid,
        gid=info.gid,
        size=size,
        mtime_ns=_nanoseconds(info.mtime),
        target=_bytes(info.linkname),
        read=_reader(archive, info, file) if size > 0 else None,
        hole=hole,
        attributes=any(name.startswith(_ATTRIBUTES) for name in info.pax_headers),
    )


def _reader(archive: tarfile.TarFile, info: tarfile.TarInfo, file: Unpacked) -> Callable[[int], bytes]:
    """Return a function that reads the content, of which nothing was read yet."""
    if info.sparse is None:
        file.seek(info.offset_data)
        return file.read  # what tarfile puts around it takes as long as a small file takes to be written
    inner = archive.extractfile(info)
    assert inner is not None  # noqa: S101 - it is a regular file

    def read(size: int) -> bytes:
        """Return the next bytes, zeros for a hole."""
        with parsing(DamagedError):
            try:
                return inner.read(size)
            except tarfile.ReadError as error:
                raise DamagedError(f"{info.name}: it is truncated ({error})") from error

    return read


def _hole(info: tarfile.TarInfo) -> int:
    """Return the bytes of a sparse file that the archive does not have; refuse a map that is none.

    tarfile would never end with some of them.
    """
    # Empty parts end a map in some forms.
    parts = [(offset, size) for offset, size in cast("list[tuple[int, int]]", info.sparse) if size]
    end = 0
    for offset, size in parts:
        if offset < end or size < 0:
            raise DamagedError(f"{info.name}: its map of a sparse file is wrong")
        end = offset + size
    if end > info.size:
        raise DamagedError(f"{info.name}: its map of a sparse file is wrong")
    cast("Any", info).sparse = parts
    return info.size - sum(size for _, size in parts)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _nanoseconds(time: float) -> int:
    with suppress(OverflowError, ValueError):
        return int(time) * 10**9 + (round((time - math.floor(time)) * 10**9) if time % 1 else 0)
    return 0
