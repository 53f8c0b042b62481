"""Unpack the kernel and the modules of a Debian package, without installing it, into the cache.

A package is an archive of ar(1), deb(5); its files are in the member `data.tar`, compressed or not. It may
say anything: what is unpacked is bounded, and nothing leads out of its directory (`pkgjail.images.tree`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import printable
from pkgjail.core.untrusted import opened_below
from pkgjail.images.archives import members_of
from pkgjail.images.model import ImageLimits
from pkgjail.images.streams import DamagedError, Packed, unpacked
from pkgjail.images.tree import ImageTree
from pkgjail.jails.layer_cache import Recipe, ensure_layer
from pkgjail.machine.model import MachineError
from pkgjail.storage.digests import sha256_of
from pkgjail.storage.locations import cache_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import FileEntry

ARCHIVE = b"!<arch>\n"
"""The first bytes of a package."""

_KIND = "kernel"
_WANTED = (b"boot/", b"lib/modules/", b"usr/lib/modules/")
_HEADER = 60  # of a member: its name, four numbers, its size, and two bytes that end it
_NAME, _SIZE, _END = slice(16), slice(48, 58), b"`\n"
_MOST_MEMBERS = 16
_LIMITS = ImageLimits(names=100_000, bytes=4 << 30)


def unpacked_package(path: bytes) -> bytes:
    """Return a directory with the kernel and the modules of a package, made once.

    Raises:
        MachineError: it is damaged, there is no room, or a program that unpacks it is missing.
        OSError: it cannot be read.

    """
    with opened_below(b"/", path) as descriptor:

        def make(place: bytes, _entries: Sequence[FileEntry], _root: bytes) -> None:
            """Unpack the package."""
            _unpack(descriptor, path, place)

        recipe = Recipe(kind=_KIND, entries=(), root=b"/", make=make, content=sha256_of(descriptor))
        cache = Path(cache_directory())
        try:
            return ensure_layer(recipe, cache.resolve(), thorough=True).path
        except OSError as error:
            why = os_error_text(error, str(cache))
            raise MachineError(f"cannot unpack {printable(path)}: {why}; set XDG_CACHE_HOME") from error


class _Part(Packed):
    """The next bytes of a descriptor, as many as a member has."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._left = size
        super().__init__(descriptor)

    def _read(self, size: int) -> bytes:
        piece = super()._read(min(size, self._left))
        self._left -= len(piece)
        return piece


def _unpack(descriptor: int, path: bytes, place: bytes) -> None:
    name = printable(path)
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        packed = _Part(descriptor, _find_data(descriptor))
        tree = ImageTree(directory, _LIMITS, lambda: packed.consumed, SILENT)
        with unpacked(packed) as file:
            wanted = (each for each in members_of(file) if each.path.removeprefix(b"./").startswith(_WANTED))
            tree.add_layer(wanted, name)
            file.drain()  # to its checksum
        tree.finish()
    except DamagedError as error:
        raise MachineError(f"cannot unpack {name}: {error}; download it again") from error
    finally:
        os.close(directory)
    if tree.problems:
        raise MachineError(f"cannot unpack {tree.problems[0]}; download it again")


def _find_data(descriptor: int) -> int:
    """Go to the content of the member `data.tar`, whatever its compression, and return its size."""
    at = len(ARCHIVE)
    for _ in range(_MOST_MEMBERS):
        header = os.pread(descriptor, _HEADER, at)
        if len(header) < _HEADER or not header.endswith(_END) or not header[_SIZE].strip().isdigit():
            break
        at, size = at + _HEADER, int(header[_SIZE])
        if header[_NAME].startswith(b"data.tar"):
            os.lseek(descriptor, at, os.SEEK_SET)
            return size
        at += size + size % 2
    raise DamagedError("it is no package of Debian, or damaged")
