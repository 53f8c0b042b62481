"""A cache of the SHA-256 digests of files between runs, looked up by what stat(2) reports of a file.

The cache is a convenience: if anything is wrong with it (locked, damaged, read-only, on a file system
without locks), the caller is warned once and continues without it. Several processes may use it at the
same time, thanks to SQLite.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.locations import cache_directory
from pkgjail.storage.own_files import open_own_file, opened_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from pkgjail.core.reporter import Reporter

    T = TypeVar("T")


class Identity(NamedTuple):
    """The state of a file from stat(2), some of which changes with its content; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the identity of a file from its status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# WITHOUT ROWID: one tree to search instead of an index and a table.
_MAKE = """
CREATE TABLE IF NOT EXISTS hashes (
    device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, sha256 BLOB,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID
"""
_FULL = 200_000  # rows: about 20 MB

# SQLite before 3.32 takes 999 parameters at most.
_AT_ONCE = 900
_FIND = (
    "SELECT inode, size, mtime, ctime, sha256 FROM hashes "  # noqa: S608 - only question marks are put in
    f"WHERE device = ? AND inode IN ({','.join('?' * _AT_ONCE)})"
)

_WAIT_SECONDS = 2.0
_SHA256_BYTES = 32


class HashCache:
    """A cache in one SQLite file, which is opened or made at the first use."""

    def __init__(self, path: Path) -> None:
        """Use the file at `path`; its directory is made when there is something to store."""
        self.path = path

    @classmethod
    def default(cls) -> HashCache | None:
        """Return the user's own cache, in the cache directory; None for a user without a home."""
        try:
            return cls(Path(cache_directory(), "hashes.sqlite"))
        except RuntimeError:
            return None

    def lookup(self, identities: Sequence[Identity], reporter: Reporter) -> dict[Identity, str] | None:
        """Return the digests (hex) of the files that are in the cache; None if it cannot be used."""
        return self._attempt("read", lambda: self._read(identities), reporter)

    def store(self, digests: Mapping[Identity, str], reporter: Reporter) -> None:
        """Store `digests`. If the cache would grow too large, everything else is deleted from it."""
        if digests:
            self._attempt("write", lambda: self._write(digests), reporter)

    def _attempt(self, verb: str, action: Callable[[], T], reporter: Reporter) -> T | None:
        try:
            return action()
        except (sqlite3.Error, OSError) as error:
            advice = "this run goes on without it"
            # The class itself means SQLITE_CORRUPT or SQLITE_NOTADB; its subclasses mean other errors.
            if type(error) is sqlite3.DatabaseError and self._remove():
                advice = "it was removed and the next run begins a new one"
            reporter.warn(f"cannot {verb} the cache of hashes {self.path}: {error}; {advice}")
            return None

    def _remove(self) -> bool:
        try:
            with opened_directory(str(self.path.parent)) as directory:
                os.unlink(self.path.name, dir_fd=directory)
        except OSError:
            return False
        return True

    def _read(self, identities: Sequence[Identity]) -> dict[Identity, str]:
        if not self.path.exists():
            return {}
        self._refuse_foreign()
        inodes: dict[int, dict[int, Identity]] = {}
        for identity in identities:
            inodes.setdefault(_signed(identity.device), {})[_signed(identity.inode)] = identity
        found = {}
        with closing(self._connect("ro")) as connection:
            for device, by_inode in inodes.items():
                for some in _slices(sorted(by_inode)):
                    for inode, size, mtime, ctime, sha256 in connection.execute(_FIND, (device, *some)):
                        identity = by_inode[inode]
                        if identity[2:] == (size, mtime, ctime) and _is_digest(sha256):
                            found[identity] = sha256.hex()
        return found

    def _write(self, digests: Mapping[Identity, str]) -> None:
        self._make()
        rows = [
            (_signed(identity.device), _signed(identity.inode), *identity[2:], bytes.fromhex(digest))
            for identity, digest in digests.items()
        ]
        with closing(self._connect("rwc")) as connection, connection:
            connection.execute(_MAKE)
            [(count,)] = connection.execute("SELECT count(*) FROM hashes")
            if count + len(rows) > _FULL:
                connection.execute("DELETE FROM hashes")
            connection.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)

    def _make(self) -> None:
        """Make the empty file, private to this user: SQLite would go by the umask."""
        parent = str(self.path.parent)
        with opened_directory(parent, make=True) as directory, contextlib.suppress(FileExistsError):
            os.close(open_own_file(directory, self.path.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        """Raise `OSError` if another user could have put hashes into the cache.

        That happens with sudo, if HOME stays that of the user. SQLite opens its files by their paths; after
        this check nobody but this user can put others there (`pkgjail.storage.locations`).
        """
        with opened_directory(str(self.path.parent)) as directory:
            for ending in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.close(open_own_file(directory, self.path.name + ending, os.O_RDONLY))


def _signed(number: int) -> int:
    """Return an unsigned 64-bit number as a signed one, for SQLite; some file systems use the highest bit."""
    return number - 2**64 if number >= 2**63 else number


def _slices(inodes: list[int]) -> Iterator[list[int]]:
    """Split `inodes` into lists as long as `_FIND` needs; the last is filled up with its last number."""
    for start in range(0, len(inodes), _AT_ONCE):
        some = inodes[start : start + _AT_ONCE]
        yield some + some[-1:] * (_AT_ONCE - len(some))


def _is_digest(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == _SHA256_BYTES
