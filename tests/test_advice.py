"""Advice about what is not installed: alternatives, last names of files, apt's lists, and nearest names."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail import why
from pkgjail.backends import open_database
from pkgjail.cli.main import main
from pkgjail.cli.why_text import text
from pkgjail.core.model import AlternativeChoice, AlternativeGroup
from pkgjail.core.nearest import nearest_names, suggestion
from pkgjail.manifest import write_manifest
from tests.debian_roots import make_root
from tests.manifest_text import manifest_of
from tests.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LISTS = "var/lib/apt/lists"
PACKAGES = b"""\
Package: gfortran
Version: 4:12.2.0-3

Package: libopenmpi-dev
Provides: mpi-default-dev (= 1), libmpi-dev
Description: not
 Package: this

Package: openmpi-bin
"""
CONTENTS = b"""\
usr/bin/mpicc.openmpi                       devel/libopenmpi-dev
usr/include/openmpi/mpi.h                   libdevel/libopenmpi-dev
usr/include/zlib.h                          libdevel/zlib1g-dev,libdevel/zlib-ng
usr/include/zlib.hpp                        libdevel/other
usr/include/xzlib.h                         libdevel/third
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root of Debian with the package gcc, and a directory for apt's lists."""
    lists = {f"var/lib/dpkg/info/{name}.list": "/.\n" for name in ("dpkg", "gcc")}
    make_root(tmp_path, "gcc 12 amd64", files=lists)
    (tmp_path / LISTS).mkdir(parents=True)
    return tmp_path


def _lz4(data: bytes) -> bytes:
    return subprocess.run(["lz4", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


PACKED = pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".lz4", _lz4)],
)


@PACKED
def test_names_that_apt_knows(suffix: str, pack: Callable[[bytes], bytes], root: Path) -> None:
    """However its lists are packed: packages and what they provide, and nothing of a description."""
    (root / LISTS / f"a_main_binary-amd64_Packages{suffix}").write_bytes(pack(PACKAGES))
    (root / LISTS / "a_InRelease").write_text("Package: no\n")
    names = open_database(bytes(root)).available_names()
    assert set(names) == {"gfortran", "libopenmpi-dev", "mpi-default-dev", "libmpi-dev", "openmpi-bin"}


@PACKED
def test_packages_that_have_a_file(suffix: str, pack: Callable[[bytes], bytes], root: Path) -> None:
    """By path, or by its last name alone; names that only contain it do not count."""
    (root / LISTS / f"a_main_Contents-amd64{suffix}").write_bytes(pack(CONTENTS))
    database = open_database(bytes(root))
    assert database.available_with(b"zlib.h") == ("zlib-ng", "zlib1g-dev")
    assert database.available_with(b"/usr/include/zlib.h") == ("zlib-ng", "zlib1g-dev")
    assert database.available_with(b"/include/zlib.h") == ()
    assert database.available_with(b"mpi.h") == ("libopenmpi-dev",)


@pytest.mark.parametrize(
    "name", ["a_Packages.gz", "a_Packages.xz", "a_Contents-amd64.gz", "a_Contents-amd64.lz4"]
)
def test_a_damaged_list_is_no_list(name: str, root: Path) -> None:
    """Advice never fails what it is for."""
    (root / LISTS / name).write_bytes(b"damaged" * 99)
    database = open_database(bytes(root))
    assert (list(database.available_names()), database.available_with(b"x")) == ([], ())


def test_without_lists_or_their_programs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that never fetched any, or has no lz4."""
    database = open_database(bytes(root))
    assert not database.available_names()
    (root / LISTS / "a_Packages.lz4").write_bytes(_lz4(PACKAGES))
    (root / LISTS / "a_Contents-amd64.lz4").write_bytes(_lz4(CONTENTS))
    monkeypatch.setattr("shutil.which", lambda _: None)
    database = open_database(bytes(root))
    assert (list(database.available_names()), database.available_with(b"zlib.h")) == ([], ())
    shutil.rmtree(root / LISTS)
    assert not open_database(bytes(root)).available_names()


def test_lines_across_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is read in pieces; a line that two of them share is found, and the last one without its end."""
    monkeypatch.setattr("pkgjail.backends.debian.available._PIECE", 50)
    (root / LISTS / "a_Contents-amd64").write_bytes(CONTENTS + b"usr/bin/last utils/last")
    database = open_database(bytes(root))
    assert database.available_with(b"zlib.h") == ("zlib-ng", "zlib1g-dev")
    assert database.available_with(b"last") == ("last",)


NO_SUCH = "is not installed, and no repository that this host knows has it"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param("gfortan", f"{NO_SUCH}; did you mean 'gfortran' (not installed)?", id="misspelt"),
        pytest.param(
            "openmpi",
            f"{NO_SUCH}; did you mean 'libopenmpi-dev' (not installed) or 'openmpi-bin' (not installed)?",
            id="a project's name",
        ),
        pytest.param("gc", f"{NO_SUCH}; did you mean 'gcc'?", id="installed names come first"),
        pytest.param(
            "libmpi-dev", "is not installed; install it with 'apt-get install libmpi-dev'", id="it exists"
        ),
        pytest.param("qqq", NO_SUCH, id="nothing near"),
    ],
)
def test_a_whitelist_names_what_is_not_installed(
    entry: str, said: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects users from commands that cannot work."""
    (root / LISTS / "a_Packages").write_bytes(PACKAGES)
    (tmp_path / "w.toml").write_text(f'[packages]\ndebian = ["{entry}"]\n')
    assert main(["resolve", "--root", str(root), str(tmp_path / "w.toml")]) == 2
    err = capsys.readouterr().err.replace(f" in {root}", "").replace(f" --root={root}", "")
    assert err.startswith(f"w.toml:2: cannot satisfy '{entry}': '{entry}' {said}"), err


MANIFEST = manifest_of(
    r"""
    gcc 12
    w.toml:3 -> gcc [whitelist] gcc
    /usr/ of gcc
    /usr/bin/ of gcc
    /usr/bin/gcc 100 of gcc
    /usr/share/ of gcc
    /usr/share/gcc/ of gcc
    /usr/share/gcc/gcc 100 of gcc
    """
)
ALTERNATIVES = (
    AlternativeGroup(
        name="mpi",
        links=(
            (b"/usr/bin/mpicc", b"/etc/alternatives/mpicc"),
            (b"/usr/bin/mpirun", b"/etc/alternatives/mpirun"),
        ),
        choices=(
            AlternativeChoice(priority=10, targets=(b"/usr/bin/mpicc.low", b"")),
            AlternativeChoice(priority=50, targets=(b"/usr/bin/mpicc.openmpi", b"/usr/bin/orterun")),
        ),
    ),
)
HOST = """
    libopenmpi-dev 4 amd64
     /usr/bin/mpicc.openmpi
    openmpi-bin 4 amd64
     /usr/bin/orterun
    zlib1g-dev 1 amd64
     /usr/include/zlib.h
     /usr/share/doc/examples/zlib.h
    """


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(
            "/usr/bin/mpicc",
            "/usr/bin/mpicc: not in the manifest; the host has it from libopenmpi-dev:amd64, by the "
            "alternative mpi",
            id="an alternative, by the candidate of the highest priority",
        ),
        pytest.param(
            "/usr/bin/mpirun",
            "/usr/bin/mpirun: not in the manifest; the host has it from openmpi-bin:amd64, by the "
            "alternative mpi",
            id="a slave, by its own target",
        ),
        pytest.param("mpicc", "mpicc is /usr/bin/mpicc", id="an alternative's last name"),
        pytest.param("zlib.h", "zlib.h is /usr/include/zlib.h", id="a header's last name: the shortest path"),
        pytest.param("zlib.h", "  so are named too: /usr/share/doc/examples/zlib.h", id="and the others"),
        pytest.param(
            "zlib.h",
            '  to add it, write in a whitelist: packages.debian = ["zlib1g-dev"]',
            id="and its remedy",
        ),
        pytest.param("gcc", "gcc:amd64 12", id="a package before a file of its name"),
        pytest.param(
            "openmpi",
            "openmpi: not in the manifest; no package of the host has it; did you mean 'libopenmpi-dev' or "
            "'openmpi-bin'?",
            id="the nearest names",
        ),
    ],
)
def test_why(asked: str, said: str) -> None:
    """What the host has under another name than its package's, as people read it."""
    database = MemoryDatabase.from_text(HOST, alternatives=ALTERNATIVES)
    (answer,) = why(MANIFEST, [asked], database=database, exists=lambda _: True)
    assert said in list(text(answer))


def test_a_last_name_in_the_manifest() -> None:
    """Needs no database: a path of the manifest is an answer, and counts as found."""
    manifest = manifest_of("/usr/\n/usr/bin/\n/usr/bin/env, include: w.toml:1\n")
    (answer,) = why(manifest, ["env"])
    assert (answer.path, answer.is_in, answer.also) == (b"/usr/bin/env", True, ())
    (answer,) = why(manifest, ["nope"])
    assert not answer.is_in


INSTALL = "not in the manifest; no package of the host has it; packages to install that have it: "


def test_why_of_what_could_be_installed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By apt's lists: a package, a path and a last name, and in JSON."""
    (root / LISTS / "a_Packages").write_bytes(PACKAGES)
    (root / LISTS / "a_Contents-amd64").write_bytes(CONTENTS)
    database = open_database(bytes(root))
    for asked, said in (
        ("openmpi-bin", "not in the manifest, and not installed; install the package to use it"),
        ("mpi.h", f"{INSTALL}libopenmpi-dev"),
        ("/usr/include/zlib.h", f"{INSTALL}zlib-ng, zlib1g-dev"),
    ):
        (answer,) = why(MANIFEST, [asked], database=database, exists=lambda _: False)
        assert list(text(answer)) == [f"{asked}: {said}"]
    write_manifest(MANIFEST, tmp_path / "m.jsonl")
    assert main(["why", str(tmp_path / "m.jsonl"), "gcc", "--json"]) == 0
    assert '"verdict": "package"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "names", "found"),
    [
        pytest.param("gfortan", ["gfortran", "gawk"], ["gfortran"], id="misspelt"),
        pytest.param(
            "openmpi",
            ["openhpi", "libopenmpi3", "libopenmpi-dev"],
            ["libopenmpi-dev", "openhpi", "libopenmpi3"],
            id="a project",
        ),
        pytest.param("gcc", ["gcc"], [], id="not itself"),
        pytest.param("gc", ["xgcx"], [], id="too short to be contained"),
    ],
)  # fmt: skip
def test_nearest(name: str, names: list[str], found: list[str]) -> None:
    assert nearest_names(name, names) == found


def test_suggestion() -> None:
    """Installed names alone, if one of them is near."""
    assert suggestion("gfortan", ["gfortran"], ["gfortran-14"]) == "; did you mean 'gfortran'?"
    assert suggestion("gfortan", [], []) == ""
