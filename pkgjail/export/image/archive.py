"""An archive of a manifest's names, and one of blobs that several processes fill at once.

The sizes of all members are known before they are written, and so is where each of them begins.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.untrusted import MIB
from pkgjail.export.image.content import Part, shares_of, write_parts
from pkgjail.export.image.tar import END, OF_MANIFESTS, file_header, member_size, padding
from pkgjail.storage.atomic import write_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter
    from pkgjail.export.image.tar import Stamp


def opened_again(descriptor: int) -> str:
    """Return a path by which this process and its children open the file of a descriptor once more."""
    return f"/proc/self/fd/{descriptor}"


def archive_size(
    entries: Sequence[FileEntry], content: Mapping[bytes, bytes], stamps: Mapping[bytes, Stamp]
) -> int:
    """Return the bytes of the archive of these entries, with its end."""
    sizes = (
        member_size(entry, size_of(entry, content), stamps.get(entry.path, OF_MANIFESTS)) for entry in entries
    )
    return sum(sizes) + len(END)


def size_of(entry: FileEntry, content: Mapping[bytes, bytes]) -> int:
    """Return the bytes of an entry's content; `content` has the files made at entry."""
    return len(content.get(entry.path, b"")) if entry.origin == "entry" else entry.size or 0


def write_archive(  # noqa: PLR0913, PLR0917 - what, from where, and where to
    entries: Sequence[FileEntry],
    content: Mapping[bytes, bytes],
    stamps: Mapping[bytes, Stamp],
    root: bytes,
    descriptor: int,
    reporter: Reporter,
) -> list[Change]:
    """Write an archive of the entries, in their order, into an empty file; return what differs on the host.

    Raises:
        OSError: a file cannot be read or written.

    """
    parts, offset = [], 0
    for share in shares_of(entries):
        made = {entry.path: content[entry.path] for entry in share if entry.path in content}
        stamped = {entry.path: stamps[entry.path] for entry in share if entry.path in stamps}
        parts.append(Part(opened_again(descriptor), offset, share, made, stamped))
        offset += archive_size(share, made, stamped) - len(END)
    changes = [change for written in write_parts(parts, root, reporter) for change in written.changes]
    os.lseek(descriptor, offset, os.SEEK_SET)
    write_all(descriptor, END)
    return changes


class BlobArchive:
    """An archive of plain files, whose names may be known only after their content was written.

    Every name is short: a header takes one block.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end = 0

    def reserve(self, size: int) -> int:
        """Return the place for a member's content of so many bytes, which `name` names later."""
        start = self._end + len(file_header(b"", size))
        self._end = start + size + len(padding(size))
        return start

    def name(self, start: int, name: str, size: int) -> None:
        """Write the header of the member whose content begins at `start`."""
        header = file_header(name.encode(), size)
        os.lseek(self._descriptor, start - len(header), os.SEEK_SET)
        write_all(self._descriptor, header)

    def add(self, name: str, data: bytes) -> None:
        """Add a member."""
        start = self.reserve(len(data))
        self.name(start, name, len(data))
        write_all(self._descriptor, data)

    def add_file(self, name: str, source: int, size: int) -> None:
        """Add a member with the content of the file of the descriptor `source`."""
        self.name(self.reserve(size), name, size)
        offset = 0
        while block := os.pread(source, MIB, offset):
            write_all(self._descriptor, block)
            offset += len(block)

    def finish(self) -> None:
        """Write the end."""
        os.lseek(self._descriptor, self._end, os.SEEK_SET)
        write_all(self._descriptor, END)
