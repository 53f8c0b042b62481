"""An image with as many names as are accepted, and with one more: bounds of memory, and nothing is left."""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.images.model import MOST_NAMES
from tests.bounded import within_bounds
from tests.tars import END, file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

pytestmark = [pytest.mark.gate, pytest.mark.long]  # the kernel makes the files, whichever Python it is

_IN_A_DIRECTORY = 999  # with the directory itself, a thousand names
_CHECKSUM = slice(148, 156)


def write_names(place: Path, names: int, more: bytes = b"") -> Path:
    """Write an archive of so many names, a multiple of a thousand, and then `more`."""
    block = bytearray(tarfile.TarInfo("d0000/000").tobuf(tarfile.GNU_FORMAT))
    block[:9] = bytes(9)
    block[_CHECKSUM] = b" " * 8
    total, before, after = sum(block), block[9 : _CHECKSUM.start], block[_CHECKSUM.stop :]
    with gzip.open(place, "wb", compresslevel=1) as packed:
        for directory in range(names // (_IN_A_DIRECTORY + 1)):
            paths = (b"d%04d/%03d" % (directory, number) for number in range(_IN_A_DIRECTORY))
            packed.write(b"".join(b"%s%s%06o\0 %s" % (p, before, total + sum(p), after) for p in paths))
        packed.write(more + END)
    return place


class Importer:
    """Imports archives within a gigabyte of memory into one store, and notes what that took."""

    def __init__(self, store: Path, record: Callable[[str, object], None]) -> None:
        self.store = store
        self._record = record

    def __call__(self, source: Path) -> CompletedProcess[str]:
        """Import it."""
        words = ["image", "import", "--json", str(source), "big", "--store", str(self.store)]
        began = time.monotonic()
        done = within_bounds([sys.executable, "-m", "pkgjail", *words], 600, timeout=1800)
        self._record("seconds", round(time.monotonic() - began))
        self._record("MiB", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
        return done


@pytest.fixture
def importer(tmp_path: Path, record_property: Callable[[str, object], None]) -> Iterator[Importer]:
    """An importer whose store is in memory, if a million names fit there: a disk takes minutes."""
    in_memory = Path(os.environ["XDG_RUNTIME_DIR"])
    fits = os.statvfs(in_memory).f_favail > MOST_NAMES + 1000
    with tempfile.TemporaryDirectory(dir=in_memory if fits else tmp_path) as made:
        yield Importer(Path(made, "store"), record_property)


def test_a_million_names(importer: Importer, tmp_path: Path) -> None:
    """Protects the memory of whoever imports the largest image that is accepted."""
    done = importer(write_names(tmp_path / "big.tar.gz", MOST_NAMES))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["names"] == MOST_NAMES + 1  # the root, which has no name


def test_one_name_more(importer: Importer, tmp_path: Path) -> None:
    """Protects the disk: it is refused by name, with the option that accepts it, and nothing of it stays."""
    done = importer(write_names(tmp_path / "big.tar.gz", MOST_NAMES, file("more")))
    assert done.returncode == 2, done.stderr
    assert "more: the image has more than 1,000,000 names" in done.stderr
    assert "raise --max-names" in done.stderr
    assert set(os.listdir(importer.store)) <= {"lock", "names"}
