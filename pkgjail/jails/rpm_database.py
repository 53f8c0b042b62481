"""rpm's database of a jail: the host's, without the packages that the manifest does not have.

rpm keeps everything in one SQLite file: each package's header, and indexes whose rows name the number of a
header (rpm's lib/backend/sqlite.c). So the rows of other packages are deleted from a copy.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import DatabaseError, JailError, os_error_text
from pkgjail.core.text import text_path
from pkgjail.jails.scratch import runtime_scratch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

# The numbers of tags in a header: rpm's include/rpm/rpmtag.h.
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
# All statements together may take so long, which is looked at after so many steps of SQLite's.
_MOST_SECONDS, _STEPS = 60, 100_000
_INDEX_ENTRY = 16  # bytes: tag, type, offset and count, each a number of four bytes

Identity = tuple[str, str, str]


class RpmDatabase(NamedTuple):
    """A database of some packages: its content, and those that it should have and the host has not."""

    content: bytes
    absent: frozenset[Identity]


@lru_cache(maxsize=1)
def filtered_database(
    root: bytes, path: bytes, packages: frozenset[Identity], state: tuple[object, ...]
) -> RpmDatabase:
    """Return the database of `packages`: name, version and architecture as a manifest has them.

    Args:
        root: the directory of the host's files, a real path.
        path: the database's path in it.
        packages: those that stay.
        state: a fingerprint of the file; with the same one, the last result is returned.

    Raises:
        JailError: the database cannot be read, or the copy cannot be written.

    """
    del state
    import sqlite3  # slow to import, and needed on few hosts

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.store import copy_store, find_stores

    try:
        place_on_host = Root(root).inside(path)
        store = next((one for one in find_stores(Root(root)) if one.file == place_on_host), None)
        if store is None:
            raise _failed(path, "the host has its packages in another database")
        with runtime_scratch() as place:
            copy_store(Root(root), store, os.fsencode(place))
            copy = f"{place}/{text_path(store.format.file)}"
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                found = _keep(connection, packages)
            with open(copy, "rb") as file:
                return RpmDatabase(file.read(), packages - found)
    except (DatabaseError, sqlite3.Error, struct.error, ValueError, MemoryError) as error:
        raise _failed(path, str(error) or "it is damaged") from error
    except OSError as error:
        raise _failed(path, os_error_text(error)) from error


def _failed(path: bytes, why: str) -> JailError:
    return JailError(
        f"cannot make {text_path(path)} for the jail: {why}; mend the database, or make the manifest again "
        "without it (package_database = false in its whitelist)"
    )


def _keep(connection: sqlite3.Connection, packages: frozenset[Identity]) -> frozenset[Identity]:
    """Delete the rows of all but these packages, and return those that are there."""
    latest = time.monotonic() + _MOST_SECONDS  # a view or a trigger may be endless
    connection.set_progress_handler(lambda: time.monotonic() > latest, _STEPS)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA journal_mode = DELETE")  # a reader of a database with a WAL must write, too
    numbers = {
        number: identity
        for number, header in connection.execute("SELECT hnum, blob FROM Packages")
        if (identity := _identity(header)) in packages
    }
    connection.execute("CREATE TEMPORARY TABLE kept (hnum INTEGER PRIMARY KEY)")
    connection.executemany("INSERT INTO kept VALUES (?)", ((number,) for number in numbers))
    for table in list(_tables(connection)):
        quoted = table.replace('"', '""')
        connection.execute(f'DELETE FROM "{quoted}" WHERE hnum NOT IN (SELECT hnum FROM kept)')  # noqa: S608 - quoted
    connection.execute("VACUUM")
    return frozenset(numbers.values())


def _tables(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield the tables whose rows belong to a header."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in names:
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        if ("hnum",) in columns:
            yield name


def _identity(header: object) -> Identity:
    """Return the name, version and architecture of a package by its header. Raises `ValueError`.

    It has two numbers of four bytes, those of index entries and of data bytes; then the index, then the data.
    """
    if not isinstance(header, bytes):  # a column of SQLite's may have a value of any type
        raise ValueError("the header of a package is no data")  # noqa: TRY004 - of the file, not of the caller
    count, size = struct.unpack_from(">II", header)
    data = header[8 + count * _INDEX_ENTRY :][:size]
    found: dict[int, str] = {}
    for at in range(8, 8 + count * _INDEX_ENTRY, _INDEX_ENTRY):
        tag, _, offset, _ = struct.unpack_from(">IIII", header, at)
        if tag == _EPOCH:
            found[tag] = str(struct.unpack_from(">I", data, offset)[0])
        elif tag in {_NAME, _VERSION, _RELEASE, _ARCH}:
            found[tag] = text_path(data[offset : data.index(b"\0", offset)])
    epoch = found.get(_EPOCH, "0")
    version = f"{found.get(_VERSION, '')}-{found.get(_RELEASE, '')}"
    return (
        found.get(_NAME, ""),
        version if epoch == "0" else f"{epoch}:{version}",
        found.get(_ARCH, ""),
    )
