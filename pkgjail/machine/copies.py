"""Copy a directory of the host into a file system image, and remember what was copied.

The image is a squashfs, from which a guest makes a directory that commands can change. What they change comes
back at the end (`pkgjail.machine.changes`), and only to names that are still as they were copied.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import kind_of
from pkgjail.core.errors import os_error_text
from pkgjail.core.model import FileEntry, record
from pkgjail.core.reporter import warn_each
from pkgjail.core.text import printable
from pkgjail.export.image import squashfs
from pkgjail.export.image.tar import END, Stamp, member_header, padding
from pkgjail.machine.model import MachineError
from pkgjail.storage.atomic import write_all
from pkgjail.storage.digests import FILE_FLAGS
from pkgjail.storage.locations import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.reporter import Reporter

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COMPRESSION = "lz4"
_MOST_AT_ONCE = 1 << 30


class Seen(NamedTuple):
    """A name as it was copied: what tells whether it has changed since, and what a changed one gets back."""

    mode: int
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    links: int
    uid: int
    gid: int

    @property
    def is_directory(self) -> bool:
        """Return whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def is_same(self, found: os.stat_result) -> bool:
        """Check whether what is there now is what was copied.

        Names come and go in a directory, and other names of a file change the file's ctime.
        """
        now = seen_as(found)
        if (now.device, now.inode) != (self.device, self.inode):
            return False
        if self.is_directory:
            return now.is_directory
        if self.links > 1:
            return now[:_UNTIL_MTIME] == self[:_UNTIL_MTIME]
        return now[:_UNTIL_CTIME] == self[:_UNTIL_CTIME]


_UNTIL_MTIME, _UNTIL_CTIME = 5, 6  # fields


@record
class Copy:
    """A copy of a directory.

    `disk` is a descriptor of the image, and `seen` has each name that was copied, relative to the directory;
    b"" is the directory itself.
    """

    directory: bytes
    disk: int
    seen: Mapping[bytes, Seen]


def seen_as(found: os.stat_result) -> Seen:
    """Return what is remembered of a name in this state."""
    return Seen(
        found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
        found.st_nlink, found.st_uid, found.st_gid,
    )  # fmt: skip


def open_directory(top: int, path: bytes) -> int:
    """Open a directory below the directory `top`, b"" for that. Raises `OSError` if a link is on the way."""
    here = os.dup(top)
    for name in filter(None, path.split(b"/")):
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = inner
    return here


@contextlib.contextmanager
def copied_disk(directory: bytes, reporter: Reporter) -> Iterator[Copy]:
    """Copy a directory; the copy is gone after the `with` block.

    Names are any bytes, and owners, modes, times (of whole seconds) and hard links are the same. Sockets,
    FIFOs, devices, and what this user may not read are left out, with a warning.

    Raises:
        MachineError: it cannot be read, or there is no room for the copy.
        PkgjailError: tar2sqfs is missing, or failed.

    """
    place = ""
    with contextlib.ExitStack() as stack:
        try:
            place = temporary_directory()
            image = stack.enter_context(tempfile.TemporaryFile(dir=place))
            with tempfile.TemporaryFile(dir=place) as archive, _opened(directory) as top:
                packing = _Packing(archive.fileno())
                packing.pack(top)
                squashfs.write(archive.fileno(), image.fileno(), _COMPRESSION)
        except OSError as error:
            raise MachineError(
                f"cannot copy {printable(directory)} into a machine: {os_error_text(error, place)}"
            ) from error
        name = printable(directory)
        left_out = [f"not copied into the machine: {name}/{each}" for each in packing.left_out]
        warn_each(reporter, left_out, f"names of {name} that are not copied")
        yield Copy(directory=directory, disk=image.fileno(), seen=packing.seen)


@contextlib.contextmanager
def _opened(directory: bytes) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Packing:
    """A directory while it is written as a tar archive."""

    def __init__(self, archive: int) -> None:
        self.seen: dict[bytes, Seen] = {}
        self.left_out: list[str] = []
        self._archive = archive
        self._first: dict[tuple[int, int], bytes] = {}  # of hard links

    def pack(self, top: int) -> None:
        """Write the archive."""
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            try:
                here = open_directory(top, path)
            except OSError as error:
                if not path:
                    raise
                self._leave_out(path, error.strerror or "")
                continue
            try:
                self._add(path, os.fstat(here))
                waiting += self._pack_names(here, path)
            finally:
                os.close(here)
        write_all(self._archive, END)

    def _pack_names(self, here: int, path: bytes) -> list[bytes]:
        """Write what is in a directory, and return the directories in it."""
        inner = []
        for name in sorted(map(os.fsencode, os.listdir(here))):
            whole = path + b"/" + name if path else name
            try:
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    inner.append(whole)
                else:
                    self._pack_name(here, name, whole, found)
            except FileNotFoundError:  # it went away
                continue
            except PermissionError as error:
                self._leave_out(whole, error.strerror or "")
        return inner[::-1]

    def _pack_name(self, here: int, name: bytes, path: bytes, found: os.stat_result) -> None:
        if stat.S_ISLNK(found.st_mode):
            self._add(path, found, target=os.readlink(name, dir_fd=here))
        elif stat.S_ISREG(found.st_mode):
            self._pack_file(here, name, path)
        else:
            self._leave_out(path, "it is no file, directory or link")

    def _pack_file(self, here: int, name: bytes, path: bytes) -> None:
        file = os.open(name, FILE_FLAGS, dir_fd=here)
        try:
            found = os.fstat(file)
            identity = (found.st_dev, found.st_ino)
            first = self._first.setdefault(identity, path) if found.st_nlink > 1 else path
            if first != path:
                self._add(path, found, link=first)
                return
            self._add(path, found)
            self._copy(file, found.st_size, path)
        finally:
            os.close(file)

    def _copy(self, file: int, size: int, path: bytes) -> None:
        """Write the content of a file, as long as it was when it was opened."""
        at = 0
        while at < size:
            copied = os.sendfile(self._archive, file, at, min(size - at, _MOST_AT_ONCE))
            if not copied:
                raise MachineError(
                    f"cannot copy {printable(path)} into a machine: it became shorter meanwhile; "
                    "end what writes to it"
                )
            at += copied
        write_all(self._archive, padding(size))

    def _add(self, path: bytes, found: os.stat_result, *, target: bytes = b"", link: bytes = b"") -> None:
        kind = kind_of(found.st_mode)
        assert kind is not None  # noqa: S101 - others are left out
        mode = stat.S_IMODE(found.st_mode)
        entry = FileEntry(path=b"/" + path, kind=kind, mode=mode, size=found.st_size, target=target or None)
        time = max(0, int(found.st_mtime_ns // 10**9))
        stamp = Stamp(found.st_uid, found.st_gid, time, b"/" + link if link else b"")
        size = found.st_size if kind == "regular" else 0
        write_all(self._archive, member_header(entry, size, stamp))
        self.seen[path] = seen_as(found)

    def _leave_out(self, path: bytes, why: str) -> None:
        self.left_out.append(f"{printable(path)}: {why}")
