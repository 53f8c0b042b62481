"""Databases that cannot be read, or not now: one clear error, and nothing written anywhere."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.backends import available, open_database
from pkgjail.backends.rpm import query
from pkgjail.core.errors import DatabaseError
from tests.real_roots import QUIET, RPM, copy_of, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Caller

pytestmark = pytest.mark.gate


class Fault(NamedTuple):
    """How a root is spoilt, and what is then said (a pattern)."""

    summary: str
    spoil: Callable[[Path], object]
    said: str


def state(root: Path) -> dict[str, tuple[int, ...]]:
    """All that writing to a root would change."""
    found: dict[str, tuple[int, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(folder, name)
            about = os.lstat(path)
            found[path] = (about.st_ino, about.st_mode, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    return found


def refusal(root: Path) -> str:
    """Return the error of reading `root`, which must be one and leave the root unchanged."""
    before = state(root)
    with pytest.raises(DatabaseError) as caught:
        open_database(os.fsencode(root))
    assert state(root) == before
    opening, _, said = str(caught.value).partition(f" of {root}: ")
    assert opening == "cannot read the package database"
    return said


# --- rpm ------------------------------------------------------------------------------------------


def database(root: Path) -> Path:
    """The rpm database of a root."""
    return root / "var/lib/rpm/rpmdb.sqlite"


def as_format(name: str, content: bytes) -> Callable[[Path], object]:
    """Put another of rpm's formats into the database's place."""

    def spoil(root: Path) -> None:
        shutil.rmtree(root / "var/lib/rpm")
        (root / "var/lib/rpm").mkdir()
        (root / "var/lib/rpm" / name).write_bytes(content)

    return spoil


def bend(statement: str) -> Callable[[Path], object]:
    """Change the database by SQL."""

    def spoil(root: Path) -> None:
        connection = sqlite3.connect(database(root))
        connection.execute(statement)
        connection.commit()
        connection.close()

    return spoil


def truncate(size: int) -> Callable[[Path], object]:
    """Cut the database off."""
    return lambda root: os.truncate(database(root), size)


RPM_FAULTS = [
    Fault("empty", truncate(0), r"rpmdb\.sqlite: it is empty; restore it"),
    Fault("cut in the header", truncate(50), r"rpmdb\.sqlite: it is not an SQLite database"),
    Fault("cut off", truncate(40960), r"rpmdb\.sqlite: it has 40960 bytes of \d+; restore it"),
    Fault("garbage", lambda root: database(root).write_bytes(b"x" * 5000), "it is not an SQLite database"),
    Fault("a broken page", lambda root: overwrite(database(root)), r"rpm failed: error: .*; .*newer rpm"),
    Fault("no table", bend("DROP TABLE Packages"), "rpm failed: error: sqlite failure: "),
    Fault("no packages", bend("DELETE FROM Packages"), "it has no packages, or rpm cannot read it"),
    Fault("one broken package", bend("UPDATE Packages SET blob = substr(blob, 1, 300) WHERE hnum = 5"),
          r"rpm failed: error: .*skipping h#.*BAD"),
    Fault("one package of nothing", bend("UPDATE Packages SET blob = zeroblob(0) WHERE hnum = 5"),
          r"rpm failed: error: "),
    Fault("a broken old format", as_format("Packages", b"\0" * 4096), r"Packages: rpm failed: error: "),
    Fault("a loop of links", lambda root: loop(database(root)), "Too many levels of symbolic links"),
    Fault("a dangling link", lambda root: dangle(database(root)), "it has no var/lib/dpkg/status or"),
]  # fmt: skip


def overwrite(path: Path) -> None:
    """Garbage in the middle, the size as it was."""
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(60000))


def loop(path: Path) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def dangle(path: Path) -> None:
    """A link to nothing."""
    path.unlink()
    path.symlink_to("gone")


@pytest.mark.parametrize(
    ("spoil", "said"), [fault[1:] for fault in RPM_FAULTS], ids=[fault.summary for fault in RPM_FAULTS]
)
def test_a_damaged_rpm_database(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    """Protects against a jail of what could be read of a damaged database, and against mending it."""
    root = copy_of("rpm", tmp_path)
    spoil(root)
    assert re.search(said, refusal(root))


def test_a_format_that_rpm_may_lack(tmp_path: Path) -> None:
    """Protects the advice on ndb, which Debian 12's rpm lacks. Debian 13's has it, and finds no packages."""
    root = copy_of("rpm", tmp_path)
    as_format("Packages.db", b"RpmP" + b"\0" * 4096)(root)
    new = ("--dbpath", tmp_path / "new", "--define", "_db_backend ndb", "--initdb")
    made = subprocess.run(["rpm", *new], check=False, capture_output=True, text=True, env=QUIET)
    assert ("using dummy database" in made.stderr) != (tmp_path / "new/Packages.db").exists()
    if "using dummy database" in made.stderr:
        why = "rpm failed: warning: using dummy database, installs not possible"
    else:
        why = "it has no packages, or rpm cannot read it"
    assert refusal(root).startswith(f"{root}/var/lib/rpm/Packages.db: {why}; many programs rpm are built")


def test_rpm_is_installing(tmp_path: Path) -> None:
    """Protects against the state in the middle of a transaction; after it the root is read again."""
    root = copy_of("rpm", tmp_path)
    hold = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(root / "var/lib/rpm/.rpm.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert re.search(
            rf"var/lib/rpm: the process {holder.pid} is installing or removing.*; try again", refusal(root)
        )
        holder.communicate()
    assert open_database(os.fsencode(root)).packages


def test_a_package_is_installed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a copy that is of two states."""
    root = copy_of("rpm", tmp_path)
    copy = os.sendfile

    def interrupted(target: int, source: int, start: int, count: int) -> int:
        os.utime(database(root), ns=(1, 1))
        return copy(target, source, start, count)

    monkeypatch.setattr(os, "sendfile", interrupted)
    with pytest.raises(DatabaseError, match="it changed while it was read; try again"):
        open_database(os.fsencode(root))


FAKES = {
    "ends half-way": ('cat "$0.out" | head -c 5000', "what rpm printed ends within a package"),
    "fails half-way": ('head -c 5000 "$0.out"; echo error: no >&2; exit 1', "rpm failed: error: no"),
    "fails without a word": ("exit 7", "rpm failed: it ended with 7 and said nothing"),
    "is killed half-way": ('head -c 5000 "$0.out"; kill -9 $$', "rpm was killed by signal 9"),
    "skips a package": ('cat "$0.out"; echo error: skipped one >&2', "rpm failed: error: skipped one"),
    "prints something else": ("printf \"hello\\036''\"", "rpm printed a package without all its fields"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "said"), FAKES.values(), ids=FAKES)
def test_an_rpm_that_fails(script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a database of as much as rpm could print."""
    root = copy_of("rpm", tmp_path)
    fake = tmp_path / "bin" / "rpm"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    answer = run(*RPM, "--root", copy_of("rpm", tmp_path / "other"), "-qa", "--qf", query.FORMAT)
    (tmp_path / "bin" / "rpm.out").write_text(answer, errors="surrogateescape")
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    assert re.search(said, refusal(root))


def test_without_rpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the message on a host that has such a root and no rpm."""
    root = copy_of("rpm", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert re.search(
        "the backend 'rpm' needs the program rpm, which is not in PATH; install rpm", refusal(root)
    )
    found = available(os.fsencode(root))[0]
    assert (found.name, found.usable) == ("rpm", False)
    assert found.reason.endswith("not in PATH; install rpm; it need not be the root's own")


def test_an_rpm_that_cannot_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the message where what is called rpm is no program."""
    root = copy_of("rpm", tmp_path)
    fake = tmp_path / "bin" / "rpm"
    fake.parent.mkdir()
    fake.write_text("no program\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    assert re.search(r"bin/rpm: Exec format error; install rpm; it need not be the root's own", refusal(root))


def test_a_lock_that_one_may_not_look_at(user: Caller) -> None:
    """Protects users of roots whose lock is the administrator's alone: the copy's check still stands."""
    root = copy_of("rpm", user.home)
    (root / "var/lib/rpm/.rpm.lock").touch(0o600)
    (user.home / "list.toml").write_text('[packages]\nrhel = ["app"]\n')
    made = user.pkgjail("resolve", "./list.toml", "--root", root, "-o", "m.jsonl")
    assert made.returncode == 0, made.stderr


def test_reading_changes_nothing(anyone: Caller) -> None:
    """Protects the host: even root's reading leaves no file beside a database that nobody has open."""
    root = copy_of("rpm", anyone.home)
    for name in ("rpmdb.sqlite-wal", "rpmdb.sqlite-shm", ".rpm.lock"):
        (root / "var/lib/rpm" / name).unlink(missing_ok=True)
    (anyone.home / "list.toml").write_text('[packages]\nrhel = ["app"]\n')
    before = state(root)
    made = anyone.pkgjail("resolve", "./list.toml", "--root", root, "-o", "m.jsonl")
    assert made.returncode == 0, made.stderr
    assert state(root) == before


def test_a_database_that_one_may_not_read(user: Caller) -> None:
    """Protects the message where the administrator keeps the database to himself."""
    root = copy_of("rpm", user.home)
    database(root).chmod(0)
    (user.home / "list.toml").write_text('[packages]\nrhel = ["app"]\n')
    made = user.pkgjail("resolve", "./list.toml", "--root", root, "-o", "m.jsonl")
    assert made.returncode == 3
    assert "rpmdb.sqlite: Permission denied; make it readable, or run as a user who may" in made.stderr


# --- pacman ---------------------------------------------------------------------------------------


def entry(root: Path, name: str = "app") -> Path:
    """The directory of a package in pacman's database."""
    (found,) = (root / "var/lib/pacman/local").glob(f"{name}-[0-9]*")
    return found


def edit(file: str, before: str, after: str) -> Callable[[Path], object]:
    """Change the text of one file of the package `app`."""

    def spoil(root: Path) -> None:
        path = entry(root) / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after, 1))

    return spoil


PACMAN_FAULTS = [
    Fault("locked", lambda root: (root / "var/lib/pacman/db.lck").touch(),
          r"db\.lck exists: pacman is running, or was interrupted; wait for it"),
    Fault("no version", lambda root: (root / "var/lib/pacman/local/ALPM_DB_VERSION").unlink(),
          "has no ALPM_DB_VERSION, but version 9 is supported; run pacman-db-upgrade"),
    Fault("a newer version", lambda root: (root / "var/lib/pacman/local/ALPM_DB_VERSION").write_text("10\n"),
          "has version 10, but version 9 is supported"),
    Fault("no desc", lambda root: (entry(root) / "desc").unlink(), "desc: No such file"),
    Fault("an empty desc", lambda root: (entry(root) / "desc").write_text(""), "desc: it is empty; restore"),
    Fault("desc cut off", lambda root: os.truncate(entry(root) / "desc", 60), "desc: it ends within a field"),
    Fault("desc cut at a field's end", edit("desc", "%ARCH%\nx86_64\n\n", ""), "it does not have one %ARCH%"),
    Fault("no field", edit("desc", "%NAME%", "NAME"), "desc: 'NAME' is not a field"),
    Fault("twice", edit("desc", "%NAME%", "%NAME%\napp\n\n%NAME%"), "'%NAME%' is not a field, or"),
    Fault("another's", edit("desc", "%NAME%\napp", "%NAME%\nlib"), "desc: it is of lib 2:1.0-1"),
    Fault("a size", edit("desc", "%SIZE%\n", "%SIZE%\nx"), "is not a number"),
    Fault("a bad provide", edit("desc", "%PROVIDES%\n", "%PROVIDES%\na=b=c\n"), "%PROVIDES%: 'a=b=c' is not"),
    Fault("a directory that is none", lambda root: (root / "var/lib/pacman/local/x").write_text(""),
          "x/desc: Not a directory"),
    Fault("local is a file", lambda root: as_file(root / "var/lib/pacman/local"), "local.*Not a directory"),
    Fault("a loop", lambda root: as_loop(root / "var/lib/pacman/local"), "Too many levels"),
]  # fmt: skip


def as_file(path: Path) -> None:
    """A file in the place of a directory."""
    shutil.rmtree(path)
    path.write_text("")


def as_loop(path: Path) -> None:
    """A link to itself in the place of a directory."""
    shutil.rmtree(path)
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("spoil", "said"), [fault[1:] for fault in PACMAN_FAULTS], ids=[fault.summary for fault in PACMAN_FAULTS]
)
def test_a_damaged_pacman_database(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    """Protects against a jail of what could be read of a damaged database, and against mending it."""
    root = copy_of("pacman", tmp_path)
    spoil(root)
    assert re.search(said, refusal(root))


LISTS = [
    ("no list", lambda root: (entry(root) / "files").unlink(), "files: No such file"),
    ("cut off", lambda root: os.truncate(entry(root) / "files", 30), "files: it ends within a field"),
    ("absolute", edit("files", "usr/bin/app\n", "/usr/bin/app\n"), "files: '/usr/bin/app' is not a path"),
    ("above", edit("files", "usr/bin/app\n", "usr/../app\n"), r"files: 'usr/\.\./app' is not a path"),
]


@pytest.mark.parametrize(("spoil", "said"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_a_damaged_list_of_files(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    """Protects against a package with fewer files than it has, or with those of another place."""
    root = copy_of("pacman", tmp_path)
    spoil(root)
    known = open_database(os.fsencode(root))
    with pytest.raises(DatabaseError, match=said):
        known.owned_paths(known.packages["app:x86_64"])


def test_a_bad_requirement(tmp_path: Path) -> None:
    """Protects against a requirement that is passed over because it cannot be read."""
    root = copy_of("pacman", tmp_path)
    edit("desc", "%DEPENDS%\n", "%DEPENDS%\na b\n")(root)
    known = open_database(os.fsencode(root))
    with pytest.raises(DatabaseError, match="%DEPENDS%: 'a b' is not a package"):
        known.requirements(known.packages["app:x86_64"], recommends=False)
