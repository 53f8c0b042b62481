"""Read the files of a build that say what it looks for: logs of its tests, and its sources.

The build wrote them, so they can have anything in them, and links can be in place of them: only regular
files below the directory that was bound are read, and only as many and as much as the limits say.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from pkgjail.core.model import record
from pkgjail.core.untrusted import MIB, read_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Form = Literal[
    "autoconf log", "cmake log", "cmake events", "cmake cache", "meson log",
    "autoconf", "cmake", "meson", "make", "python", "settings", "c",
]  # fmt: skip
"""How a file is written."""

MOST_FILES = 2000
LARGEST = 8 * MIB
MOST_BYTES = 32 * MIB
_LONGEST_LINE = 1000  # characters

# The most telling first, and so read first.
_NAMES: tuple[tuple[Form, str], ...] = (
    ("autoconf log", r"config\.log"),
    ("cmake events", r"CMakeConfigureLog\.yaml"),
    ("cmake log", r"CMake(?:Error|Output)\.log"),
    ("meson log", r"meson-log\.txt"),
    ("cmake cache", r"CMakeCache\.txt"),
    ("autoconf", r"configure\.(?:ac|in)|ac(?:include|local)\.m4"),
    ("cmake", r"CMakeLists\.txt"),
    ("meson", r"meson\.build"),
    ("python", r"setup\.py"),
    ("settings", r"pyproject\.toml|setup\.cfg|requirements[\w.-]*\.txt|cpanfile"),
    ("make", r"(?:GNU)?[Mm]akefile(?:\.(?:am|in|PL))?|[\w.-]+\.(?:mk|sh|pl)"),
    ("autoconf", r"[\w.+-]+\.m4"),
    ("cmake", r"[\w.+-]+\.cmake"),
    ("python", r"[\w.+-]+\.py"),
    ("c", r"[\w.+-]+\.(?:[ch]|cc|cpp|cxx|hpp|hh|pyx)"),
)
_KINDS: tuple[tuple[Form, re.Pattern[str]], ...] = tuple(
    (form, re.compile(pattern)) for form, pattern in _NAMES
)


@record
class BuildFile:
    """One file of a build: path inside, form, and lines, each cut to 1,000 characters."""

    path: bytes
    form: Form
    lines: tuple[str, ...]


def build_file(path: bytes, content: bytes) -> BuildFile | None:
    """Return the file with the path `path` inside, or None if its name is not that of a log or a source."""
    rank = _rank(path)
    if rank is None:
        return None
    text = content.decode("utf-8", "replace").replace("\0", "\ufffd")
    return BuildFile(
        path=path,
        form=_KINDS[rank][0],
        lines=tuple(line.rstrip("\r")[:_LONGEST_LINE] for line in text.split("\n")),
    )


def read_build_files(paths: Iterable[bytes], binds: Mapping[bytes, bytes]) -> tuple[BuildFile, ...]:
    """Read those of a build's files that say what it looks for.

    Args:
        paths: files inside that the build read or wrote, normal and absolute.
        binds: directories inside, with the host's directory of each. Other paths are not read.

    Returns:
        The files, the most telling first: at most 2,000, of at most 8 MiB each and 32 MiB together. What
        cannot be read, or is a link that leads out of its bind, is left out.

    """
    ranked = sorted(
        (rank, path.count(b"/"), path) for path in set(paths) if (rank := _rank(path)) is not None
    )
    found: list[BuildFile] = []
    left = MOST_BYTES
    for _, _, path in ranked[:MOST_FILES]:
        target = max((each for each in binds if _is_below(path, each)), key=len, default=None)
        if target is None:
            continue
        with suppress(OSError):
            source = binds[target].rstrip(b"/") or b"/"
            below = path[len(target.rstrip(b"/")) :].lstrip(b"/")
            content = read_below(source, source.rstrip(b"/") + b"/" + below, min(LARGEST, left))
            left -= len(content)
            made = build_file(path, content)
            found += [made] if made else []
    return tuple(found)


def _rank(path: bytes) -> int | None:
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    return next((rank for rank, (_, pattern) in enumerate(_KINDS) if pattern.fullmatch(name)), None)


def _is_below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory.rstrip(b"/") + b"/")
