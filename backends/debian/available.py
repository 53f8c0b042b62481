"""What apt could install: names of packages, and of their files, from its lists on this machine.

Nothing is fetched, and no program of the root is run. Used only for advice: lists that are damaged, too large
or packed by a program that is not here count as absent.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import subprocess
from functools import cached_property
from typing import IO, TYPE_CHECKING

from pkgjail.core.unpacking import MissingProgramError, UnpackError, unpack
from pkgjail.core.untrusted import METADATA, names_below, opened_below, read_below

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.backends.debian.root import Root

_LISTS = b"/var/lib/apt/lists"
_PACKAGES = re.compile(rb"_Packages(?:\.(?:lz4|gz|xz|bz2|zst))?")
_CONTENTS = re.compile(rb"_Contents-[a-z0-9]+(?:\.(lz4|gz|xz|bz2|zst))?")
_NAME = re.compile(rb"^Package: ([a-z0-9][a-z0-9+.-]*)$", re.MULTILINE)
_PROVIDES = re.compile(rb"^Provides: (.+)$", re.MULTILINE)
_PROGRAMS = {b"lz4": "lz4", b"zst": "zstd"}
_PIECE = 4 << 20
_LONGEST = 1 << 20  # line: a file of many packages
_MOST = 8 * METADATA  # of one list of contents, unpacked: that of Debian's main has some 500 MB
_MOST_FOUND = 200


class Available:
    """The lists of apt(8) below `root`; `Contents` files are there if apt-file(1) is installed."""

    def __init__(self, root: Root) -> None:
        """Do nothing yet."""
        self._root = root

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all packages that apt knows, and those that they provide; empty if it has no lists."""
        found: set[bytes] = set()
        for path in self._lists(_PACKAGES):
            with contextlib.suppress(OSError, UnpackError, MissingProgramError):
                data = unpack(read_below(self._root.path, path), METADATA)
                found.update(_NAME.findall(data))
                for line in _PROVIDES.findall(data):
                    found.update(part.split(b"(")[0].strip() for part in line.split(b","))
        return frozenset(name.decode("ascii", "replace") for name in found)

    def having(self, path: bytes) -> tuple[str, ...]:
        """Return the packages that have a path, or any path that ends in this name, if it has no slash."""
        wanted = path.lstrip(b"/")
        found: set[bytes] = set()
        for file in self._lists(_CONTENTS):
            with contextlib.suppress(OSError, EOFError, lzma.LZMAError):
                for line in self._lines_with(file, wanted):
                    name, _, packages = line.rstrip().rpartition(b" ")
                    name = name.rstrip()
                    if name == wanted or (b"/" not in wanted and name.endswith(b"/" + wanted)):
                        found.update(each.rpartition(b"/")[2] for each in packages.split(b","))
                    if len(found) >= _MOST_FOUND:
                        break
        return tuple(sorted(each.decode("ascii", "replace") for each in found))

    def _lists(self, kind: re.Pattern[bytes]) -> list[bytes]:
        place = self._root.inside(_LISTS)
        try:
            names = names_below(self._root.path, place)
        except OSError:
            return []
        return sorted(
            os.path.join(place, name) for name in names if kind.search(name) and _is_end(kind, name)
        )

    def _lines_with(self, file: bytes, text: bytes) -> Iterator[bytes]:
        """Yield the lines of a packed list that contain `text`, without keeping the list."""
        packing = _CONTENTS.search(file)
        with (
            opened_below(self._root.path, file) as descriptor,
            _unpacked(descriptor, packing and packing[1]) as data,
        ):
            rest, count = b"", 0
            while count < _MOST and (piece := data.read(_PIECE)):
                count += len(piece)
                piece = rest + piece
                end = piece.rfind(b"\n") + 1
                rest = piece[end:][:_LONGEST]
                yield from _matching(piece[:end], text)
            yield from _matching(rest, text)


def _is_end(kind: re.Pattern[bytes], name: bytes) -> bool:
    found = kind.search(name)
    return found is not None and found.end() == len(name)


def _matching(piece: bytes, text: bytes) -> Iterator[bytes]:
    at = piece.find(text)
    while at >= 0:
        begin, end = piece.rfind(b"\n", 0, at) + 1, piece.find(b"\n", at)
        end = len(piece) if end < 0 else end
        yield piece[begin:end]
        at = piece.find(text, end)


@contextlib.contextmanager
def _unpacked(descriptor: int, packing: bytes | None) -> Iterator[IO[bytes]]:
    """Open a packed file for reading. Raises `OSError` if its program is missing."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        if packing in _PROGRAMS:
            program = shutil.which(_PROGRAMS[packing])
            if program is None:
                raise FileNotFoundError(_PROGRAMS[packing])
            with subprocess.Popen(
                [program, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as running:
                try:
                    if running.stdout:
                        yield running.stdout
                finally:
                    running.kill()  # it may have more than was wanted
        elif packing == b"gz":
            with gzip.GzipFile(fileobj=file) as gz:
                yield io.BufferedReader(gz)
        elif packing == b"xz":
            with lzma.LZMAFile(file) as xz:
                yield xz
        elif packing == b"bz2":
            with bz2.BZ2File(file) as bz:
                yield bz
        else:
            yield file
