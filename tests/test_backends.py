"""The choice of a backend, and the messages if none fits."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail import backends
from pkgjail.backends import ENTRY_POINTS, available, debian, open_database
from pkgjail.backends.dpkg import DpkgReader
from pkgjail.core.errors import DatabaseError
from tests.debian_roots import USABLE, every_backend, make_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def test_guard() -> None:
    """Protects against a second copy of the types, imported by the directory's own name."""
    path = os.fspath(Path(backends.__file__).resolve())
    spec = importlib.util.spec_from_file_location("backends", path)
    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
    with pytest.raises(ImportError, match=r"import 'pkgjail\.backends'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hide a module, as on a host where it is not installed, with the backends that have it."""

    def hide(module: str) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        for name in ("apt", "dpkg"):
            monkeypatch.delitem(sys.modules, f"pkgjail.backends.{name}", raising=False)
            monkeypatch.delattr(backends, name, raising=False)

    return hide


def test_auto_falls_back_to_dpkg(without: Callable[[str], None], tmp_path: Path) -> None:
    """Protects hosts whose Python has no python-apt: the dpkg backend is used by default."""
    without("apt_pkg")
    root = make_root(tmp_path)
    assert open_database(root).backend == "dpkg"
    found = [(status.name, status.usable) for status in available(root)]
    assert found == [("apt", False), ("dpkg", True), ("rpm", False), ("pacman", False)]
    assert "'apt' cannot be imported" in available(root)[0].reason
    with pytest.raises(DatabaseError, match=r"backend 'apt' cannot be imported .*; install python3-apt and"):
        open_database(root, "apt")


def test_nothing_to_read_with(without: Callable[[str], None], tmp_path: Path) -> None:
    """Protects the message on a host that has neither library."""
    without("apt_pkg")
    without("debian.deb822")
    root = make_root(tmp_path)
    with pytest.raises(DatabaseError, match=r"'apt' cannot be .*'dpkg' cannot be .*; install python-debian"):
        open_database(root)
    assert {status.usable for status in available(root)} == {False}


def test_no_database(tmp_path: Path) -> None:
    """Protects the message on a system of another family."""
    root = os.fsencode(tmp_path)
    with pytest.raises(DatabaseError) as caught:
        open_database(root)
    assert str(caught.value) == (
        f"cannot read the package database of {tmp_path}: it has no var/lib/dpkg/status or "
        "usr/lib/sysimage/rpm or usr/share/rpm or var/lib/rpm or var/lib/pacman/local; "
        "name the root directory of a system that a backend serves"
    )
    assert available(root)[0].reason == f"{tmp_path} has no var/lib/dpkg/status"


def test_unknown_backend() -> None:
    """Protects against a misspelt name being taken for a choice."""
    with pytest.raises(
        DatabaseError, match="there is no backend 'yam'; use one of auto, apt, dpkg, rpm, dnf, yum,"
    ):
        open_database(b"/", "yam")


@every_backend
def test_unreadable(backend: str, tmp_path: Path) -> None:
    """Protects the message if the status file is not a file."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").mkdir()
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: Is a directory; repair it"):
        open_database(root, backend)


@every_backend
def test_looping_status(backend: str, tmp_path: Path) -> None:
    """Protects against following a loop of links for ever."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").symlink_to("status")
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: Too many levels of symbolic links"):
        open_database(root, backend)


@every_backend
def test_a_reader_that_gives_up(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects callers from the libraries' own errors, whatever the next version of one refuses."""
    root = make_root(tmp_path)
    open_database(root, backend)
    module = sys.modules[f"pkgjail.backends.{backend}"]
    path = {"apt": "apt_pkg.TagSection", "dpkg": "Packages.iter_paragraphs"}[backend]
    fault = {"apt": SystemError("no more"), "dpkg": ValueError("no more")}[backend]

    def give_up(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(f"{module.__name__}.{path}", give_up)
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: no more; restore the file"):
        open_database(root, backend)


class Forgetful(DpkgReader):
    """A reader that loses the last stanza."""

    def stanzas(self, data: bytes) -> Iterator[dict[str, str]]:
        """Return all but the last stanza."""
        yield from list(super().stanzas(data))[:-1]


def test_a_reader_that_loses_a_stanza(tmp_path: Path) -> None:
    """Protects against a library that one day stops at what it does not know: never fewer packages."""
    with pytest.raises(DatabaseError, match=r"the backend 'dpkg' found 1 of 2 stanzas; use another backend"):
        debian.DebianDatabase(make_root(tmp_path, "a 1 amd64"), Forgetful())


@every_backend
def test_dangling_status(backend: str, tmp_path: Path) -> None:
    """Protects the message if the status file is a link to nothing in the root."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").symlink_to("/etc/hostname")
    with pytest.raises(DatabaseError, match=r"it has no var/lib/dpkg/status"):
        open_database(root, backend)


# --- which one is chosen ------------------------------------------------------------------------


def test_of_several_databases_the_distributions_own(tmp_path: Path) -> None:
    """Protects a Fedora on which somebody has used dpkg, and the other way round."""
    root = make_root(tmp_path, files={"etc/os-release": 'ID=nobara\nID_LIKE="fedora"\n'})
    (tmp_path / "usr/lib/sysimage/rpm").mkdir(parents=True)
    (tmp_path / "usr/lib/sysimage/rpm/rpmdb.sqlite").write_text("packages")
    (tmp_path / "var/lib/pacman/local/a-1").mkdir(parents=True)
    assert [status.name for status in available(root)] == ["rpm", "apt", "dpkg", "pacman"]
    (tmp_path / "etc/os-release").write_text("ID=arch\n")
    assert available(root)[0].name == "pacman"
    (tmp_path / "etc/os-release").write_text("ID=none-that-we-know\n")
    assert available(root)[0].name == "apt"
    (tmp_path / "etc/os-release").unlink()
    assert open_database(root).backend == USABLE[0]


def _rpm_database(path: Path, *statements: str) -> None:
    """Make an SQLite database with rpm's table of packages, and run statements on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in ("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)", *statements):
            connection.execute(statement)


_ONE = "INSERT INTO Packages VALUES (1, x'00')"
_ENDLESS = (
    "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i FROM n WHERE i < 0"
)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "is there, but has no packages"),
        (_rpm_database, "is there, but has no packages"),
        (lambda path: _rpm_database(path, _ONE), "is read with rpm"),
        (lambda path: _rpm_database(path, "DROP TABLE Packages"), "is read with rpm"),
        (lambda path: _rpm_database(path, "DROP TABLE Packages", _ENDLESS), "is read with rpm"),
        (lambda path: path.write_text("damaged"), "is read with rpm"),
        (lambda path: path.symlink_to("rpmdb.sqlite"), "is read with rpm"),
    ],
    ids=["no bytes", "no packages", "a package", "no table", "an endless table", "damaged", "a loop"],
)
def test_an_empty_database_is_none(make: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    """Protects from the file that rpm leaves on a system of others. The backend reports a damaged one."""
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    make(path)
    (rpm,) = (status for status in available(os.fsencode(tmp_path)) if status.name == "rpm")
    assert rpm.reason == f"{path} {reason}"
    assert rpm.usable == ("no packages" not in reason)


def test_an_empty_database_comes_after_a_full_one(tmp_path: Path) -> None:
    """Protects the file that is named, and the backend that is chosen, in any format and of any manager."""
    rpm = tmp_path / "var/lib/rpm"
    _rpm_database(rpm / "rpmdb.sqlite")
    (rpm / "Packages.db").touch()
    (rpm / "Packages").write_text("full")
    first = available(os.fsencode(tmp_path))[0]
    assert (first.name, first.reason) == ("rpm", f"{rpm}/Packages is read with rpm")
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").touch()
    (tmp_path / "var/lib/pacman/local").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    found = available(os.fsencode(tmp_path))
    assert [(status.name, status.usable) for status in found] == [
        ("rpm", True),
        ("apt", False),
        ("dpkg", False),
        ("pacman", False),
    ]


class _Apk:
    """The object of an entry point."""

    SERVES = "Alpine Linux"
    MARKERS = (b"/lib/apk/db/installed",)

    @staticmethod
    def open_database(root: bytes) -> object:
        """Return something that can be recognized."""
        return ("apk", root)


class _Point:
    """An entry point, as importlib.metadata has it."""

    def __init__(self, name: str, target: object) -> None:
        self.name = name
        self._target = target

    def load(self) -> object:
        """Import it, or fail as an import may."""
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


class _Points(list[_Point]):
    """What `entry_points()` returns from Python 3.10 on."""

    def select(self, *, group: str) -> _Points:
        """Return all: here they are of one group."""
        assert group == ENTRY_POINTS
        return self


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other people's backends: one that serves, one that takes a name of ours, one that is broken."""
    points = _Points([_Point("rpm", _Apk), _Point("apk", _Apk), _Point("broken", RuntimeError("no luck"))])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda: points)


@pytest.mark.usefixtures("others")
def test_a_backend_of_others(tmp_path: Path) -> None:
    """Protects entry points for other package managers, and our backends from them."""
    (tmp_path / "lib/apk/db").mkdir(parents=True)
    (tmp_path / "lib/apk/db/installed").touch()
    root = os.fsencode(tmp_path)
    found = {status.name: status for status in available(root)}
    assert list(found) == ["apk", "apt", "dpkg", "rpm", "pacman", "broken"]
    assert (found["apk"].usable, found["apk"].serves) == (True, "Alpine Linux")
    assert found["apk"].reason == f"{tmp_path}/lib/apk/db/installed is read with apk"
    assert found["broken"].serves == "nothing: it cannot be loaded (no luck)"
    assert found["broken"].reason == f"{tmp_path} has no database for a backend that cannot be loaded"
    for name in ("auto", "apk"):
        opened: object = open_database(root, name)
        assert opened == ("apk", root)
    with pytest.raises(DatabaseError, match=r"no backend 'yam'; use one of auto, .*, pacman, apk, broken"):
        open_database(root, "yam")
    with pytest.raises(DatabaseError, match="has no database for a backend that cannot be loaded"):
        open_database(root, "broken")


def test_entry_points_of_python_3_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the oldest Python, where entry points come as a dictionary."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda: {ENTRY_POINTS: [_Point("apk", _Apk)]})
    assert "apk" in [status.name for status in available(os.fsencode(tmp_path))]
