"""Where whitelists and blacklists are found: shipped with pkgjail, or files of the user's.

A name with a slash, or one that ends in `.toml` or `.ignore`, is a path; any other is a shipped
list's. Thus what a name means never depends on the directory in which pkgjail runs.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Protocol

from pkgjail.core.errors import Problem
from pkgjail.core.model import Rule, record
from pkgjail.core.untrusted import LIST, read_named, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SUFFIXES = (".toml", ".ignore")
_MOST_PROBLEMS = 100


class Readable(Protocol):
    """What a shipped list, perhaps inside an archive, and a file have in common."""

    def read_bytes(self) -> bytes:
        """Return the content. Raises `OSError`."""
        ...


@record
class Kind:
    """A kind of list: its name in messages, its folder in the package, its files' suffix and most bytes."""

    word: str
    folder: str
    suffix: str
    limit: int

    def shipped(self) -> tuple[str, ...]:
        """Return the names of the shipped lists, sorted."""
        names = (entry.name for entry in (files("pkgjail") / self.folder).iterdir())
        return tuple(sorted(name[: -len(self.suffix)] for name in names if name.endswith(self.suffix)))


WHITELIST = Kind(word="whitelist", folder="whitelists", suffix=".toml", limit=LIST)
BLACKLIST = Kind(word="blacklist", folder="blacklists", suffix=".ignore", limit=LIST)


@record
class Source:
    """A list that was found, not yet read.

    `name` and `file` are what policies and origins call it: never a directory. `identity` is the
    same for one list however it was named. `folder` is what its own names are relative to; None
    for a shipped list.
    """

    kind: Kind
    name: str
    file: str
    identity: str
    location: Readable
    folder: Path | None = None

    def read(self) -> bytes:
        """Return the content. Raises `ValueError` with a message."""
        try:
            return self._content()
        except OSError as error:
            hint = ""
            file = PurePath(self.file)
            if file.suffix == self.kind.suffix and file.stem in self.kind.shipped():
                hint = f"; the shipped one is called {file.stem!r}"
            where = str(self.location)
            raise ValueError(f"cannot read the {self.kind.word} {where!r}: {error.strerror}{hint}") from error

    def _content(self) -> bytes:
        if self.folder is None:
            return self.location.read_bytes()
        return read_named(str(self.location), self.kind.limit)


def find(kind: Kind, name: str, folder: Path | None) -> Source:
    """Find the list that `name` means in a file of `folder` (None: in a shipped list).

    Raises `ValueError` with a message where there can be none.
    """
    if "\0" in name:
        raise ValueError(f"{name!r} is no path: it holds a NUL byte")
    if "/" not in name and not name.endswith(_SUFFIXES):
        return _find_shipped(kind, name, folder)
    if folder is None:
        raise ValueError(f"{name!r} is a path, and a shipped list may name shipped lists alone")
    path = folder / name
    return Source(
        kind=kind,
        name=path.name,
        file=path.name,
        identity=os.path.realpath(path),
        location=path,
        folder=path.parent,
    )


def _find_shipped(kind: Kind, name: str, folder: Path | None) -> Source:
    known = kind.shipped()
    if name not in known:
        raise ValueError(
            f"unknown {kind.word} {name!r}{_as_file(kind, name, folder) or nearest(name, known)}"
        )
    file = name + kind.suffix
    return Source(
        kind=kind,
        name=name,
        file=file,
        identity=f"shipped {file}",
        location=files("pkgjail") / kind.folder / file,
    )


def _as_file(kind: Kind, name: str, folder: Path | None) -> str:
    """How to name the file that the user may have meant, for the end of a message; else ""."""
    if folder is not None and name:
        for file in (name, name + kind.suffix):
            if os.path.isfile(folder / file):  # also where the name is longer than a file's may be
                return f"; write {'./' + file!r} for the file"
    return ""


@record
class Entry:
    """A string of a list and the line (from 1) in which it begins."""

    text: str
    line: int


class Page:
    """What was found wrong with one file; `file` is "" for the command line."""

    def __init__(self, file: str, *, shipped: bool = False) -> None:
        """Begin with nothing found."""
        self.file = file
        self.shipped = shipped
        self.is_full = False
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, message: str) -> None:
        """Note a problem of the line (from 1); of more than a hundred that there are more."""
        if len(self._found) < _MOST_PROBLEMS:
            self._found.append((line, shortened(message)))
        elif not self.is_full:
            self.is_full = True
            self._found.append((line, "there is more wrong than these lines say"))

    def rule(self, entry: Entry) -> Rule:
        """Make the rule that `entry` of this file is."""
        return Rule(pattern=entry.text, origin=self.origin(entry.line), shipped=self.shipped)

    def origin(self, line: int) -> str:
        """`spack.toml:7`; "" on the command line."""
        return f"{self.file}:{line}" if self.file else ""

    def problems(self) -> list[Problem]:
        """Return what was found by line, in the order of finding within one."""
        return [
            Problem(self.origin(line), text) for line, text in sorted(self._found, key=lambda each: each[0])
        ]


def nearest(name: str, known: Iterable[str]) -> str:
    """Say for the end of a message which of the few `known` is like `name`, else which there are."""
    names = sorted(known)
    return did_you_mean(name, names, count=1, likeness=0.7) or f"; known are {', '.join(names)}"


def did_you_mean(name: str, known: Iterable[str], *, count: int = 3, likeness: float = 0.8) -> str:
    """Say for the end of a message which of `known` are most like `name`; "" where none is.

    `likeness` is difflib's ratio, from 0 to 1 for the same.
    """
    close = [repr(each) for each in get_close_matches(name, known, n=count, cutoff=likeness)]
    if not close:
        return ""
    *rest, last = close
    return f"; did you mean {', '.join(rest) + ' or ' if rest else ''}{last}?"
