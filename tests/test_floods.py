"""What is said of thousands of names: once, by their number, the likely cause first, and bounded."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.core.entries import MISSING, Mismatch
from pkgjail.core.errors import (
    DriftError,
    InputError,
    ModifiedEnvironmentError,
    NamesError,
    Problem,
)
from pkgjail.core.reporter import warn_each
from pkgjail.core.text import MOST_SHOWN, counted, first_of
from pkgjail.jails import host_mismatch
from pkgjail.jails.host_mismatch import explain_absence
from pkgjail.manifest import read_manifest, write_manifest
from tests.debian_roots import make_root

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

MANY = 300
_MOST_LINES = 30


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of a host of Debian 11 whose names this one does not have, its root, and what it is of."""
    place = tmp_path_factory.mktemp("other")
    names = [f"/opt/other/d{n % 7}/f{n}" for n in range(MANY)]
    directories = ["/opt", "/opt/other", *(f"/opt/other/d{n}" for n in range(7))]
    lists = "\n".join(["/.", *directories, *names]) + "\n"
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="11"\n',
        "var/lib/dpkg/info/other.list": lists,
        "var/lib/dpkg/info/dpkg.list": "/.\n",
        **{name[1:]: name for name in names},
    }
    make_root(place / "root", "other 1 amd64", files=files)
    (place / "other.toml").write_text('[packages]\ndebian = ["other"]\n[options]\nessential = false\n')
    words = ["resolve", str(place / "other.toml"), "--root", str(place / "root")]
    assert main([*words, "-o", str(place / "m.jsonl")]) == 0
    manifest = read_manifest(place / "m.jsonl")  # as if it was made where this root is the host's
    write_manifest(replace(manifest, header=replace(manifest.header, source="", schema=1)), place / "m.jsonl")
    return place


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["check", "M"], id="check"),
        pytest.param(["check", "--static", "M"], id="check --static"),
        pytest.param(["verify", "M"], id="verify"),
        pytest.param(["verify", "--quick", "M"], id="verify --quick"),
        pytest.param(["report", "--check", "M", "-o", "OUT"], id="report"),
        pytest.param(["export", "--format", "fstab", "--at", "/srv/jail", "M", "-o", "OUT"], id="fstab"),
        pytest.param(["export", "--format", "bwrap", "M", "-o", "OUT"], id="bwrap"),
        pytest.param(["export", "--format", "nspawn", "M", "-o", "OUT"], id="nspawn"),
        pytest.param(["export", "--format", "landlock", "M", "-o", "OUT"], id="landlock"),
        pytest.param(["export", "--format", "spdx", "M", "-o", "OUT"], id="spdx", marks=pytest.mark.gate),
    ],
)
def test_a_manifest_of_another_root(
    other: Path, tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The first line says of how many names, and why; all is a screenful. With its root it is silent."""
    places = {"M": str(other / "m.jsonl"), "OUT": str(tmp_path / "out")}
    given = [places.get(word, word) for word in words]
    main(given)
    first, *lines = capfd.readouterr().err.splitlines()
    assert "the manifest was made on debian 11" in first
    assert "--root" in first
    assert any(f"{number:,} of " in first for number in (MANY, MANY + 8))
    assert len(lines) < _MOST_LINES
    assert main([*given, "--root", str(other / "root")]) in {0, 1, 3}
    assert "the manifest was" not in capfd.readouterr().err


@pytest.mark.parametrize("words", [["run", "M", "--", "true"], ["mounts", "M"], ["build", "M", "OUT"]])
def test_drift_of_a_whole_directory(
    other: Path, tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Is one line, with how much went with it."""
    places = {"M": str(other / "m.jsonl"), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) != 0
    assert f"  /opt/other is gone, with {MANY + 7} names below it\n" in capfd.readouterr().err


def test_check_shows_fifty_and_all_of_them_when_asked(other: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["check", "--static", str(other / "m.jsonl")])
    shown = capfd.readouterr().out.splitlines()
    assert f"note: and {MANY - 50} more (--all)" in shown
    main(["check", "--static", "--all", str(other / "m.jsonl")])
    assert sum(line.startswith("note: /") for line in capfd.readouterr().out.splitlines()) == MANY


def test_programs_get_each_name(other: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A list in an object floods nobody."""
    words = ["export", "--json", "--format", "landlock", str(other / "m.jsonl"), "-o", "/no/such"]
    assert main(words) == 2
    told = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert len(told["problems"]) == MANY
    assert told["cause"].startswith(f"{MANY + 8} of {MANY + 16} names are not on this host: ")


def test_a_blacklist_of_another_host(other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a thousand rules that match nothing the first are told, and how many others there are."""
    (tmp_path / "b.ignore").write_text("".join(f"/gone/{n}\n" for n in range(1000)))
    words = ["resolve", str(other / "other.toml"), "--root", str(other / "root"), "-o", str(tmp_path / "m")]
    assert main([*words, "--blacklist", str(tmp_path / "b.ignore")]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == MOST_SHOWN + 1
    assert lines[-1] == f"pkgjail: warning: and {1000 - MOST_SHOWN} more rules that match nothing here"


def test_the_likely_cause(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, another machine, another root; nothing where it is a single name."""
    manifest = read_manifest(other / "m.jsonl")
    root = os.fsencode(other / "root")
    assert explain_absence(manifest, b"/", 0, 300) == ""
    assert explain_absence(manifest, root, 3, 300) == ""
    assert explain_absence(manifest, root, 20, 30) == ""  # all of them can be named
    assert explain_absence(manifest, root, 200, 300).startswith(
        f"200 of 300 names are not on {root.decode()}: the manifest was probably made from another root; "
    )
    assert "the manifest was made on debian 11, and this host is " in explain_absence(manifest, b"/", 1, 300)
    foreign = replace(manifest, header=replace(manifest.header, architecture="sparc64"))
    assert "the manifest was made for sparc64, and this host is " in explain_absence(foreign, b"/", 1, 300)
    monkeypatch.setattr(host_mismatch, "host_architecture", lambda: None)  # a machine that nobody has told of
    assert "sparc64" not in explain_absence(foreign, b"/", 1, 300)
    assert "other root" in explain_absence(foreign, b"/no/such", 200, 300)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(
            NamesError("export {} to x", [b"/a{}\n"], "why"), "cannot export /a{}\\n to x: why", id="one name"
        ),
        pytest.param(
            NamesError("export {} to x", [b"/a", b"/\xff"], "why", "cause"),
            "cause\ncannot export 2 names to x: why:\n  /a\n  /\\xff",
            id="two names and a cause",
        ),
        pytest.param(
            DriftError(
                ((b"/b", MISSING), (b"/b/c/d", MISSING), (b"/bc", MISSING), (b"/b/e", Mismatch("target")))
            ),
            "cannot enter the jail: the host has changed since the manifest was made:\n"
            "  /b is gone, with 1 name below it\n  /bc is gone\n  /b/e is a link to somewhere else\n"
            "make the manifest again with 'pkgjail resolve' and review what differs, or accept the host as "
            "it is with `allow_drift=True`",
            id="names below one that is gone",
        ),
    ],
)
def test_errors_of_names(error: Exception, told: str) -> None:
    assert str(error) == told


@pytest.mark.parametrize(
    "error",
    [
        NamesError("export {} to x", [b"/a%d" % n for n in range(5000)], "why"),
        DriftError(tuple((b"/a%d" % n, MISSING) for n in range(5000))),
        ModifiedEnvironmentError(
            "remove x",
            tuple((b"/a%d" % n, Mismatch("extra")) for n in range(5000)),
            "leave it",
        ),
        InputError([Problem(f"a:{n}", "is wrong") for n in range(5000)]),
    ],
    ids=["names", "drift", "a modified environment", "problems"],
)
def test_errors_are_bounded(error: Exception) -> None:
    lines = str(error).splitlines()
    assert len(lines) <= 201
    assert any(" more" in line for line in lines)


def test_warnings_of_a_kind_are_bounded() -> None:
    class Hearing:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def progress(self, task: str, done: int, total: int) -> None:
            """Nothing."""

        def warn(self, message: str) -> None:
            """Remember."""
            self.heard.append(message)

    for count, last in ((0, ""), (MOST_SHOWN, "w19"), (MOST_SHOWN + 1500, "and 1,500 more of these")):
        hearing = Hearing()
        warn_each(hearing, [f"w{n}" for n in range(count)], "of these")
        assert (hearing.heard or [""])[-1] == last
        assert len(hearing.heard) == min(count, MOST_SHOWN + 1)


def test_counts() -> None:
    assert [counted(n, "file") for n in (0, 1, 2, 2000)] == ["0 files", "1 file", "2 files", "2,000 files"]
    assert first_of(["a", "b", "c"], 2) == ["a", "b", "and 1 more"]


def test_one_finding_is_no_plural(
    base_manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tuple(e for e in base_manifest.files if not e.path.endswith(b"/libselinux.so.1"))
    write_manifest(replace(base_manifest, files=files), tmp_path / "m")
    assert main(["check", "--static", str(tmp_path / "m")]) == 1
    told = capsys.readouterr().out.splitlines()
    found = [line for line in told if not line.startswith((" ", "note: ", "not closed"))]
    found = [line for line in found if " settles " not in line]
    assert told[-1].startswith(f"not closed: {counted(len(found), 'finding')} in ")
