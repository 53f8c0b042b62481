"""Find whitelists and blacklists, which are shipped with pkgjail or files of the user.

A name with a slash, or one that ends in `.toml` or `.ignore`, is a path. Any other is the name of a
shipped list. So the meaning of a name never depends on the directory in which pkgjail runs.
"""

from __future__ import annotations

import errno
import os
from difflib import get_close_matches
from importlib.resources import files
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from pkgjail.core.errors import Problem
from pkgjail.core.model import Rule, record
from pkgjail.core.recognise import LIST_FILE, WHAT_TO_DO, kind_of
from pkgjail.core.untrusted import LIST, opened_below, read_named, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SUFFIXES = (".toml", ".ignore")
_AS_PATHS = (*_SUFFIXES, ".jsonl")  # no "./" is needed before them
_MAX_PROBLEMS = 100
_MAX_NAMES = 1000  # of a directory, that are compared with a misspelt one


class Readable(Protocol):
    """A file, or a shipped list, which may be inside an archive."""

    def read_bytes(self) -> bytes:
        """Return the content. Raises `OSError`."""
        ...


@record
class ListKind:
    """A kind of list: its noun in messages, its folder in the package, its suffix, and its size limit."""

    noun: str
    folder: str
    suffix: str
    limit: int

    def shipped(self) -> tuple[str, ...]:
        """Return the names of the shipped lists, sorted."""
        names = (entry.name for entry in (files("pkgjail") / self.folder).iterdir())
        return tuple(sorted(name[: -len(self.suffix)] for name in names if name.endswith(self.suffix)))


WHITELIST = ListKind(noun="whitelist", folder="whitelists", suffix=".toml", limit=LIST)
BLACKLIST = ListKind(noun="blacklist", folder="blacklists", suffix=".ignore", limit=LIST)


@record
class Source:
    """A list that was found and is not yet read.

    `name` and `file` are its names in policies and origins, without a directory. `identity` is the same
    for one list however it was named. Names in it are relative to `folder`, which is None for a shipped
    list.
    """

    kind: ListKind
    name: str
    file: str
    identity: str
    location: Readable
    folder: Path | None = None

    def read(self) -> bytes:
        """Return the content. Raises `ValueError` with a message."""
        try:
            return self._unpacked(self._content())
        except OSError as error:
            hint = ""
            file = PurePath(self.file)
            if file.suffix == self.kind.suffix and file.stem in self.kind.shipped():
                hint = f"; the shipped one is called {file.stem!r}"
            where = str(self.location)
            raise ValueError(f"cannot read the {self.kind.noun} {where!r}: {error.strerror}{hint}") from error

    def _unpacked(self, data: bytes) -> bytes:
        """Return a list's text, also if it is kept packed by gzip(1). Raises `ValueError` with a message."""
        if not data.startswith(b"\x1f\x8b"):
            return data
        from pkgjail.core.unpacking import UnpackError, unpack  # loads what packed files alone need

        try:
            return unpack(data, self.kind.limit)
        except UnpackError as error:
            raise ValueError(f"cannot unpack the {self.kind.noun} {str(self.location)!r}: {error}") from error

    def _content(self) -> bytes:
        if self.folder is None:
            return self.location.read_bytes()
        try:
            return read_named(str(self.location), self.kind.limit)
        except OSError as error:
            start = _start_of(str(self.location)) if error.errno == errno.EFBIG else b""
            if kind_of(start) in {"", self.kind.noun}:
                raise
            return start  # readers say what it is, as of a small one


def find(kind: ListKind, name: str, folder: Path | None) -> Source:
    """Find the list that is called `name` in a file of `folder` (None: in a shipped list).

    Raises `ValueError` with a message if there can be none.
    """
    if "\0" in name:
        raise ValueError(f"{name!r} is not a path: it has a NUL byte")
    if "/" not in name and not name.endswith(_SUFFIXES):
        return _find_shipped(kind, name, folder)
    if folder is None:
        raise ValueError(f"{name!r} is a path, and a shipped list may name only shipped lists")
    path = folder / name
    return Source(
        kind=kind,
        name=path.name,
        file=path.name,
        identity=os.path.realpath(path),
        location=path,
        folder=path.parent,
    )


def _find_shipped(kind: ListKind, name: str, folder: Path | None) -> Source:
    known = kind.shipped()
    if name not in known:
        hint = _as_file(kind, name, folder) or _like_shipped(name, known) or _like_file(name, folder)
        raise ValueError(f"unknown {kind.noun} {name!r}{hint or nearest(name, known)}")
    file = name + kind.suffix
    return Source(
        kind=kind,
        name=name,
        file=file,
        identity=f"shipped {file}",
        location=files("pkgjail") / kind.folder / file,
    )


def _as_file(kind: ListKind, name: str, folder: Path | None) -> str:
    """Say how to name a file that the user may have meant, for the end of a message; "" if there is none."""
    if folder is not None and name:
        for file in (name, name + kind.suffix):
            if os.path.isfile(folder / file):  # false if the name is too long for a file
                other = kind_at(folder / file)
                if other in {"", LIST_FILE}:
                    return f"; write {'./' + file!r} for the file"
                return f"; the file {file!r} is a {other}: {WHAT_TO_DO[other]}"
    return ""


def _like_file(name: str, folder: Path | None) -> str:
    """Suggest a file of `folder` with a name that is like `name`, for the end of a message; "" if none is."""
    if folder is None:
        return ""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, _MAX_NAMES) if entry.is_file()]
    except OSError:
        return ""
    return did_you_mean(name, [file if file.endswith(_AS_PATHS) else f"./{file}" for file in names], count=1)


def kind_at(path: Path) -> str:
    """Return what the file at `path` is, as `kind_of` does; "" also if it cannot be read."""
    return kind_of(_start_of(str(path)))


def _start_of(name: str) -> bytes:
    """Return the first bytes of a regular file, as many as a list may have; none if it cannot be read."""
    try:
        with opened_below(b"/", os.fsencode(os.path.realpath(name))) as descriptor:
            return os.pread(descriptor, LIST, 0)
    except OSError:
        return b""


@record
class Entry:
    """A string in a list, and the line (from 1) on which it begins."""

    text: str
    line: int


class ListProblems:
    """The problems of one list; `file` is "" for the command line."""

    def __init__(self, file: str, *, shipped: bool = False) -> None:
        """Begin without problems."""
        self.file = file
        self.shipped = shipped
        self.is_full = False
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Note a problem of the line (from 1); after a hundred, note only that there are more."""
        if len(self._found) < _MAX_PROBLEMS:
            self._found.append((line, shortened(message)))
        elif not self.is_full:
            self.is_full = True
            self._found.append((line, "there are more problems than these"))

    def rule(self, entry: Entry) -> Rule:
        """Return an entry of this list as a rule."""
        return Rule(pattern=entry.text, origin=self.origin(entry.line), shipped=self.shipped)

    def origin(self, line: int) -> str:
        """Return file and line as in `spack.toml:7`; the file alone for line 0, "" for the command line."""
        return f"{self.file}:{line}" if self.file and line else self.file

    def in_order(self) -> list[Problem]:
        """Return the problems by line, and within one line in the order in which they were noted."""
        return [
            Problem(self.origin(line), text) for line, text in sorted(self._found, key=lambda each: each[0])
        ]


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the one of the few `known` that is like `name`, or list them, for the end of a message."""
    names = sorted(known)
    choices = f"; use {'one of ' if len(names) > 1 else ''}{', '.join(names)}"
    return _like_shipped(name, names) or choices


def _like_shipped(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known, count=1, likeness=0.7)


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3, likeness: float = 0.8) -> str:
    """Suggest those of `known` that are most like `name`, for the end of a message; "" if none is.

    `likeness` is difflib's ratio, from 0 to 1 for equal names.
    """
    close = [repr(each) for each in get_close_matches(name, known, n=count, cutoff=likeness)]
    if not close:
        return ""
    *rest, last = close
    return f"; did you mean {', '.join(rest) + ' or ' if rest else ''}{last}?"
