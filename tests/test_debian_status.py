"""The status file: its content, and damage that no reader may ignore."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.backends import open_database
from pkgjail.core.errors import DatabaseError
from tests.debian_roots import USABLE, every_backend, keys, make_root, relation, stanza

GOOD = stanza("dpkg 1 amd64")
DAMAGED = [
    (
        "unknown state",
        GOOD + stanza("a 1 amd64 broken"),
        r"status:6: the package 'a' has no field 'Status' that",
    ),
    (
        "version of two words",
        GOOD + stanza("a 1 amd64").replace(": 1", ": 1 2"),
        r"status:6: .* 'Version' of one",
    ),
    (
        "a field in other case",
        GOOD + stanza("a 1 amd64; depends: b"),
        r"status:10: .* misspelt field 'depends'",
    ),
    (
        "a field twice",
        GOOD + stanza("a 1 amd64; Depends: b; Depends: c"),
        r"status:11: a second .* 'Depends'",
    ),
    ("a carriage return", GOOD[:-2] + "\r\n\n", r"status:5: neither a field nor the continuation"),
    ("an empty line first", "\n" + GOOD, r"status:1: neither a field nor the continuation"),
    ("a stanza of no known field", GOOD + "X: y\n\n", r"status:6: this stanza has no field 'Package'"),
    (
        "no Package",
        GOOD + "Status: install ok installed\nVersion: 1\n\n",
        r"status:6: this stanza has no field 'Package'",
    ),
    ("bad name", GOOD + stanza("../a 1 amd64"), r"status:6: the field 'Package' of a stanza is '../a'"),
    (
        "no Version",
        GOOD + stanza("a 1 amd64").replace("Version: 1\n", ""),
        r"status:6: the package 'a' has no field 'Version'",
    ),
    (
        "no Architecture",
        GOOD + stanza("a 1 amd64").replace("Architecture: amd64\n", ""),
        r"status:6: the package 'a' has no field 'Architecture'",
    ),
    (
        "no Status",
        GOOD + stanza("a 1 amd64").replace("Status: install ok installed\n", ""),
        r"status:6: the package 'a' has no field 'Status'",
    ),
    (
        "size",
        GOOD + stanza("a 1 amd64; Installed-Size: 1x"),
        r"status:6: the field 'Installed-Size' of the pack",
    ),
    ("twice", GOOD + "\n" + stanza("a 1 amd64") * 2, r"status:12: a second stanza for a:amd64"),
    ("two run together", GOOD[:-1] + stanza("a 1 amd64"), r"status:5: a second or misspelt field 'Package'"),
    ("cut in a line", GOOD + "Package: a\nSta", r"status:7: neither a field nor the continuation"),
    (
        "cut in a value",
        GOOD + stanza("a 1 amd64; Depends: libc6")[:-5],
        r"status:10: the file ends within a stanza",
    ),
    ("cut after a line", GOOD + stanza("a 1 amd64")[:-1], r"status:10: the file ends within a stanza"),
    ("a comment", GOOD + "# x\n" + stanza("a 1 amd64"), r"status:6: neither a field nor the continuation"),
    (
        "a blank continuation",
        GOOD[:-1] + "Depends: a,\n \n b\n\n",
        r"status:6: neither a field nor the contin",
    ),
    (
        "a stray continuation",
        GOOD + " x\n" + stanza("a 1 amd64"),
        r"status:6: neither a field nor the contin",
    ),
    ("a continuation first", " x\n" + GOOD, r"status:1: neither a field nor the continuation"),
    ("binary", "\0\1\2\n\n", r"status:1: neither a field nor the continuation"),
    ("a NUL", GOOD + stanza("a 1 amd64; Depends: b\0c"), r"status:10: neither a field nor the continuation"),
    (
        "Provides",
        GOOD + stanza("a 1 amd64; Provides: v, "),
        r"the field Provides of the package a:amd64: a pack",
    ),
]


@every_backend
@pytest.mark.parametrize(("status", "message"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_damaged_status(backend: str, status: str, message: str, tmp_path: Path) -> None:
    """Protects that damage is refused at its line by both readers, and never read as fewer packages."""
    root = make_root(tmp_path, files={"var/lib/dpkg/status": status})
    with pytest.raises(DatabaseError, match=message) as caught:
        open_database(root, backend)
    assert str(caught.value).startswith(f"cannot read the package database of {tmp_path}: ")
    assert "; " in str(caught.value)


DESCRIBED = GOOD + stanza("a 1 amd64; Depends: b; Description: two lines\n of text; Homepage: x")


@every_backend
@pytest.mark.parametrize(
    "status",
    [DESCRIBED, DESCRIBED[:-1], DESCRIBED[:-2], DESCRIBED[:-20], DESCRIBED.partition("\n of")[0]],
    ids=["whole", "no empty line", "no line feed", "cut after all that counts", "a line of description"],
)
def test_without_the_last_empty_line(backend: str, status: str, tmp_path: Path) -> None:
    """Protects a status file that dpkg reads, too, though it would end it with an empty line."""
    database = open_database(make_root(tmp_path, files={"var/lib/dpkg/status": status}), backend)
    package = database.packages["a:amd64"]
    assert [one.text for one in database.requirements(package, recommends=False)] == ["b"]


SEED = (
    stanza("dpkg 1 amd64; Essential: yes; Installed-Size: 3")
    + stanza("a 1:2.0-3 all; Multi-Arch: foreign; Provides: v (= 2), w; Depends: b (>> 1) | c:any, d; X: y")
    + stanza("b 2 i386; Conffiles:\n /etc/a 00\n /etc/Å 11 obsolete; Recommends: x,\n y")
).encode()
# Line ends and spaces by one standard or another, and what a reader might take for syntax.
SPLINTERS = [
    *(b"\n", b"\n\n", b" ", b"\t", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\0", b"\x85", b"\xa0", b"\xff"),
    *("\xa0".encode(), "\u2028".encode(), b":", b"#", b"-", b"_", b",", b"|", b"9", b" .\n", b"Provides:\n"),
    *(b"Depends: q\n", b"depends: q\n", b"Package: z\n", b"-----BEGIN PGP SIGNED MESSAGE-----\n"),
]
EDITS = st.tuples(st.integers(0, len(SEED)), st.integers(0, 5), st.sampled_from([b"", *SPLINTERS]))


def account(root: bytes, backend: str) -> object:
    """Return everything that a database reads from its stanzas, or its error."""
    try:
        database = open_database(root, backend)
        return [
            (package, database.requirements(package, recommends=True))
            for package in database.packages.values()
        ]
    except DatabaseError as error:
        return str(error)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(EDITS, max_size=3))
def test_damage_is_read_alike(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, bytes]]
) -> None:
    """Protects from damage that only one reader notices: both give the same message."""
    status = SEED
    for place, gone, put in edits:
        status = status[:place] + put + status[place + gone :]
    root = make_root(tmp_path_factory.getbasetemp() / "damage")
    Path(os.fsdecode(root), "var/lib/dpkg/status").write_bytes(status)
    assert [account(root, backend) for backend in USABLE] == [account(root, "dpkg")] * len(USABLE)


@every_backend
def test_names_of_any_bytes(backend: str, tmp_path: Path) -> None:
    """Protects conffiles whose names hold what Unicode counts as a space or as the end of a line."""
    name = "/etc/\x0c\x1c\x85\xa0\u2028Å\udc85 \udcff"
    files = {"var/lib/dpkg/info/a.list": f"{name}\n"}
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:\n {name} 00", files=files), backend)
    assert database.conffiles(database.packages["a:amd64"]) == {name.encode("utf-8", "surrogateescape")}


@every_backend
@pytest.mark.parametrize("name", ["updates", "alternatives"])
def test_a_file_for_a_directory(backend: str, name: str, tmp_path: Path) -> None:
    """Protects the message if a directory of dpkg is not a directory."""
    root = make_root(tmp_path, files={f"var/lib/dpkg/{name}": ""})
    with pytest.raises(DatabaseError, match=rf"var/lib/dpkg/{name}: Not a directory; repair it"):
        open_database(root, backend).alternatives()


@every_backend
def test_an_installed_version_that_is_none(backend: str, tmp_path: Path) -> None:
    """Protects comparisons: dpkg warns of such a version and goes on, and no order of it is agreed."""
    database = open_database(make_root(tmp_path, "a 1_2 amd64"), backend)
    assert keys(database.candidates(relation("a"), "amd64")) == "a:amd64"
    with pytest.raises(DatabaseError, match=r"the version '1_2' of what is 'a' is not one by deb-version"):
        database.candidates(relation("a (>= 1)"), "amd64")


@every_backend
def test_packages(backend: str, tmp_path: Path) -> None:
    """Protects what a package is: order by name, bytes from KiB, Essential and Protected, states."""
    database = open_database(
        make_root(
            tmp_path,
            "z 1 amd64; Essential: yes; Installed-Size: 3",
            "a 1 i386; Protected: yes; Essential: no",
            "b 1 amd64 unpacked",
            "c 1 all",
            files={"etc/os-release": "ID=debian\n"},
        ),
        backend,
    )
    shown = [
        f"{key} {one.version} {one.size}{' essential' * one.essential}{' protected' * one.protected}"
        for key, one in database.packages.items()
    ]
    assert shown == ["a:i386 1 0 protected", "c:all 1 0", "dpkg:amd64 1.21.22 0", "z:amd64 1 3072 essential"]
    assert (database.backend, database.family) == (backend, "debian")


@every_backend
def test_what_is_not_installed_needs_no_version(backend: str, tmp_path: Path) -> None:
    """Protects roots that remember removed packages, whose stanzas dpkg writes short."""
    gone = "Package: old\nStatus: purge ok not-installed\nPriority: optional\n\n"
    database = open_database(make_root(tmp_path, files={"var/lib/dpkg/status": GOOD + gone}), backend)
    assert list(database.packages) == ["dpkg:amd64"]
    assert database.unmet_reason(relation("old"), "amd64").startswith("'old' is not installed")


@every_backend
@pytest.mark.parametrize(
    ("names", "refused"), [(["0001", "tmp.i"], True), (["tmp.i"], False), ([], False)], ids=str
)
def test_pending_updates(backend: str, names: list[str], tmp_path: Path, *, refused: bool) -> None:
    """Protects against reading a state that dpkg has half written."""
    root = make_root(tmp_path, files={f"var/lib/dpkg/updates/{name}": "" for name in names})
    if refused:
        with pytest.raises(
            DatabaseError, match=r"dpkg is running or was interrupted .*'dpkg --configure -a'"
        ):
            open_database(root, backend)
    else:
        assert list(open_database(root, backend).packages) == ["dpkg:amd64"]


ARCHITECTURES = [
    ("the package dpkg", "dpkg 1 arm64", "amd64\n", "arm64"),
    ("dpkg, though not configured", "dpkg 1 arm64 unpacked", "amd64\n", "arm64"),
    ("the file, where dpkg is not installed", "a 1 i386", "s390x\namd64\n", "s390x"),
]


@every_backend
@pytest.mark.parametrize(("line", "file", "expected"), [row[1:] for row in ARCHITECTURES],
                         ids=[row[0] for row in ARCHITECTURES])  # fmt: skip
def test_architecture(backend: str, line: str, file: str, expected: str, tmp_path: Path) -> None:
    """Protects the native architecture of a root that is not this host."""
    files = {"var/lib/dpkg/status": stanza(line), "var/lib/dpkg/arch": file}
    assert open_database(make_root(tmp_path, files=files), backend).architecture == expected


@every_backend
def test_architecture_unknown(backend: str, tmp_path: Path) -> None:
    """Protects from guessing the native architecture if nothing says it."""
    database = open_database(make_root(tmp_path, files={"var/lib/dpkg/status": stanza("a 1 i386")}), backend)
    with pytest.raises(DatabaseError, match=r"the native architecture is unknown"):
        assert database.architecture


@pytest.mark.skipif("apt" not in USABLE, reason="its library is not here")
def test_an_apt_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a traceback where dpkg's own tables cannot be read."""
    import apt_pkg  # pyright: ignore[reportMissingImports]

    def init_system() -> None:
        raise apt_pkg.Error("E:Error reading the CPU table")

    make_root(tmp_path, "a 1 amd64")
    monkeypatch.setattr(apt_pkg, "init_system", init_system)
    with pytest.raises(DatabaseError, match=r"Error reading the CPU table; look at /usr/share/dpkg"):
        open_database(bytes(tmp_path), "apt")
