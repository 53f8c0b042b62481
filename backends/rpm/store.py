"""Find a root's rpm database and its format, and copy it for rpm to read.

rpm makes files beside a database even if it only reads it, and a new database if it finds none that it
knows. So it reads a copy. A copy also stays the same while it is read, and needs only read permission.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from pkgjail.backends.root import normal_path
from pkgjail.core.model import record
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import RPM_DATABASE, opened_below, too_large

if TYPE_CHECKING:
    from pkgjail.backends.root import Root

_T = TypeVar("_T")
DIRECTORIES = (b"/usr/lib/sysimage/rpm", b"/var/lib/rpm", b"/usr/share/rpm")
"""`%_dbpath` of Fedora since 36 and openSUSE, of all others, and of systems made by ostree."""

# Files with macros, of which a later one takes precedence: the path in rpm's lib/rpmrc.c, without what is
# for one architecture or one user. Each pattern is a directory and a name in it.
_MACRO_FILES = (
    (b"/usr/lib/rpm", re.compile(rb"macros")),
    (b"/usr/lib/rpm/macros.d", re.compile(rb"macros\..*")),
    (b"/usr/lib/rpm/redhat", re.compile(rb"macros")),
    (b"/usr/lib/rpm/suse", re.compile(rb"macros")),
    (b"/etc/rpm", re.compile(rb"macros\..*")),
    (b"/etc/rpm", re.compile(rb"macros")),
)
_DBPATH = re.compile(rb"^%_dbpath[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_MACROS = {b"%{_var}": b"/var", b"%{_usr}": b"/usr", b"%{_prefix}": b"/usr", b"%{_localstatedir}": b"/var"}
_LOCK = b".rpm.lock"
# `struct flock` of fcntl(2): l_type, l_whence, l_start, l_len, l_pid; padded at its end.
_FLOCK = "hhqqi0q"
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_HEADER = 100  # bytes
# Of SQLite's virtual machine, before a statement is given up; a table's first row needs a few dozen.
_MOST_STEPS = 100_000


@record
class Format:
    """One of rpm's formats: rpm's name for it, its file, and the suffixes of files beside that."""

    name: str
    file: bytes
    beside: tuple[bytes, ...] = ()


FORMATS = (
    Format(name="sqlite", file=b"rpmdb.sqlite", beside=(b"-wal",)),
    Format(name="ndb", file=b"Packages.db"),
    Format(name="bdb", file=b"Packages"),
)


@record
class Store:
    """The database of a root: its directory, and the file with the packages, links followed.

    `path` is that of the file inside the root as rpm opens it, links not followed.
    """

    directory: bytes
    file: bytes
    path: bytes
    format: Format

    @property
    def parts(self) -> tuple[tuple[bytes, bytes], ...]:
        """Each file, the main one first, and its name for rpm."""
        return tuple((self.file + end, self.format.file + end) for end in (b"", *self.format.beside))


def find_stores(root: Root) -> list[Store]:
    """Return the databases of a root, the first of which that has packages is the root's.

    They are in rpm's `%_dbpath`, if that is known, or in `DIRECTORIES`. An rpm that looks for another format
    leaves an empty database of its own beside the full one. Of several formats, the newest comes first, and
    files of 0 bytes come last.
    """
    found: dict[bytes, Store] = {}
    for candidate in dict.fromkeys((*database_directories(root), *DIRECTORIES)):
        for form in FORMATS:
            path = candidate + b"/" + form.file
            file = root.inside(path)
            if os.path.lexists(file):
                store = Store(directory=root.inside(candidate), file=file, path=path, format=form)
                found.setdefault(file, store)
    return sorted(found.values(), key=lambda store: _state_of(root, store.file, (0, 0))[1] == 0)


def database_directories(root: Root) -> tuple[bytes, ...]:
    """Return the directory that the root's own rpm looks in, `%_dbpath`; none if that is not known.

    A value that only rpm can expand is not known, such as that of Debian's rpm, which is in the user's home.
    """
    value = b""
    for directory, pattern in _MACRO_FILES:
        place = root.inside(directory)
        for name in sorted(filter(pattern.fullmatch, root.names(place))):
            value = (_DBPATH.findall(root.read(os.path.join(place, name), b"")) or [value])[-1]
    for macro, expanded in _MACROS.items():
        value = value.replace(macro, expanded)
    try:
        return () if b"%" in value else (normal_path(value),)
    except ValueError:
        return ()


def has_no_packages(file: bytes) -> bool:
    """Check whether a regular file is an SQLite database of rpm's that has no packages.

    One that cannot be read is none, and neither is one with a write-ahead log, which may have packages.
    """
    import sqlite3  # slow to import, and needed on few hosts

    log = file + b"-wal"
    if os.path.lexists(log) and os.stat(log).st_size:
        return False
    address = f"file:{quote(file)}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            connection.set_progress_handler(lambda: True, _MOST_STEPS)
            connection.execute("PRAGMA trusted_schema = OFF")
            ((found,),) = connection.execute("SELECT EXISTS (SELECT 1 FROM Packages)")
    # Of a damaged file, a message may have a name that is not UTF-8, and a size may be beyond all memory.
    except (sqlite3.Error, ValueError, MemoryError):
        return False
    return not found


def copy_store(root: Root, store: Store, place: bytes) -> None:
    """Copy the database into the directory `place`. Raises `DatabaseError` if rpm is writing to it."""
    _refuse_locked(root, store)
    before = _fingerprint(root, store)
    for source, name in store.parts:
        _copy(root, source, os.path.join(place, name), required=source == store.file)
    _refuse_locked(root, store)
    if _fingerprint(root, store) != before:
        raise _busy(root, store, "it changed while it was read")
    _refuse_damaged(root, store, os.path.join(place, store.format.file))


def _copy(root: Root, source: bytes, target: bytes, *, required: bool) -> None:
    try:
        with opened_below(root.path, source) as original, open(target, "xb") as copy:
            _copy_data(original, copy.fileno(), source)
    except FileNotFoundError as error:
        if required:
            raise root.unreadable(error) from error
    except OSError as error:
        raise root.unreadable(error) from error


def _copy_data(original: int, copy: int, name: bytes) -> None:
    """Copy a file with its holes. Raises `OSError` if it is too large."""
    size = os.fstat(original).st_size
    if size > RPM_DATABASE:
        raise too_large(name, RPM_DATABASE)
    os.truncate(copy, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(original, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # a hole up to the end
            raise
        end = min(os.lseek(original, start, os.SEEK_HOLE), size)
        os.lseek(copy, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(copy, original, start, end - start)
            if not sent:
                return  # the file became shorter, which the fingerprint shows
            start += sent


def _refuse_locked(root: Root, store: Store) -> None:
    """Refuse a database that rpm has locked for a transaction, because it is in an intermediate state."""
    request = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with opened_below(root.path, os.path.join(store.directory, _LOCK)) as descriptor:
            answer = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, request))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES}:
            return  # there never was a transaction, or we may not read the lock
        raise root.unreadable(error) from error
    if answer[0] != fcntl.F_UNLCK:
        raise _busy(root, store, f"the process {answer[4]} is installing or removing packages")


def _busy(root: Root, store: Store, why: str) -> Exception:
    return root.error(f"{text_path(store.directory)}: {why}", "try again when that has ended")


def _fingerprint(root: Root, store: Store) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(_state_of(root, source, None) for source, _ in store.parts)


def _state_of(root: Root, path: bytes, missing: _T) -> tuple[int, ...] | _T:
    """Return values that change when the file does, the second of which is its size."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return missing
    except OSError as error:
        raise root.unreadable(error) from error
    return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _refuse_damaged(root: Root, store: Store, copy: bytes) -> None:
    """Refuse a file that rpm would take for an empty database, or repair. Its header has the right size.

    https://www.sqlite.org/fileformat.html, section 1.3: the page size is at offset 16, and the number of
    pages at 28; the latter is valid if the numbers at 24 and 92 are equal.
    """
    with open(copy, "rb") as file:
        head = file.read(_SQLITE_HEADER)
    fault = ""
    if not head:
        fault = "it is empty"
    elif store.format.name == "sqlite":
        size = os.path.getsize(copy)
        if not head.startswith(_SQLITE_MAGIC) or len(head) < _SQLITE_HEADER:
            fault = "it is not an SQLite database"
        else:
            page, pages = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
            page = 65536 if page == 1 else page
            is_complete = head[24:28] != head[92:96] or pages * page <= size
            fault = "" if is_complete else f"it has {size} bytes of {pages * page}"
    if fault:
        raise root.error(
            f"{text_path(store.file)}: {fault}", "restore it from a backup, or try 'rpmdb --rebuilddb' there"
        )
