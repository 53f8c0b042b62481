"""Files below the root of another system, and the errors that reading them ends in: for every backend."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pkgjail.core.errors import DatabaseError, os_error_text
from pkgjail.core.paths import resolve_inside
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import SETTINGS, names_below, parsing, read_below, shortened

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

CORRECT = "correct the file, or install the package that it belongs to again"


class Root:
    """The directory `path`, which stands for `/`; every failure is a `DatabaseError` that names it."""

    def __init__(self, path: bytes) -> None:
        """Keep the absolute `path`."""
        self.path = path

    def inside(self, path: bytes) -> bytes:
        """Return where the absolute `path` of that system is on this one."""
        try:
            return resolve_inside(self.path, path)
        except OSError as error:
            raise self.unreadable(error) from error

    def names(self, directory: bytes) -> list[bytes]:
        """The names in a directory; none where it is not there."""
        try:
            return names_below(self.path, directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self.unreadable(error) from error

    def read(self, path: bytes, missing: bytes | None = None, *, limit: int = SETTINGS) -> bytes:
        """The content of a regular file, `missing` where there is none and that is no error.

        Links are followed inside the root. One with more than `limit` bytes is refused.
        """
        try:
            return read_below(self.path, path, limit)
        except FileNotFoundError as error:
            if missing is not None:
                return missing
            raise self.unreadable(error) from error
        except OSError as error:
            raise self.unreadable(error) from error

    def normal_paths(self, file: bytes, lines: list[bytes], *, first: int, step: int = 1) -> list[bytes]:
        """The paths in `lines` of `file`, the first of which has the number `first`, made normal."""
        paths: list[bytes] = []
        try:
            for line in lines:
                paths.append(normal_path(line))  # noqa: PERF401  (their number tells the line of a fault)
        except ValueError as error:
            where = f"{text_path(file)}:{first + step * len(paths)}"
            raise self.error(f"{where}: {error}", CORRECT) from error
        return paths

    def parsing(self, file: bytes, remedy: str = CORRECT) -> AbstractContextManager[None]:
        """A context in which whatever a parser of `file` raises becomes a `DatabaseError` that names it."""
        return parsing(lambda why: self.error(f"{text_path(file)}: {why}", remedy))

    def command(self, command: str) -> str:
        """A command for the user to run, and where."""
        return f"'{command}'" if self.path == b"/" else f"'{command}' in {text_path(self.path)}"

    def unreadable(self, error: OSError) -> DatabaseError:
        """The error to raise for one of the system's."""
        remedies = {
            errno.ENOENT: "the database is incomplete: install the package that the file belongs to again",
            errno.EACCES: "make it readable, or run as a user who may read it",
            errno.ELOOP: "correct the links",
            errno.EINVAL: "put the file there that the package manager wrote",
            errno.EFBIG: "the package manager writes smaller ones: restore it from a backup",
        }
        return self.error(os_error_text(error, "a file of it"), remedies.get(error.errno or 0, "repair it"))

    def error(self, why: str, remedy: str) -> DatabaseError:
        """The error to raise, with what the user can do."""
        return DatabaseError(
            f"cannot read the package database of {text_path(self.path)}: {shortened(why)}; {remedy}"
        )


def normal_path(path: bytes) -> bytes:
    """An absolute `path` without doubled slashes, final slash or `.`. Raises `ValueError`."""
    parts = path.split(b"/")
    if not path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise ValueError(f"{path!r} is not an absolute path without '..'")
    if b"" not in parts[1:] and b"." not in parts:
        return path
    return b"/" + b"/".join(part for part in parts if part not in {b"", b"."})
