"""Images that mmdebstrap makes: what it is told, what its failures leave, and a real one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import create_image, resolve
from pkgjail.backends.debian.archive import host_sources, host_suite
from pkgjail.cli.main import main
from pkgjail.cli.verbs import image as verb
from pkgjail.core.errors import ImageError, PkgjailError, PolicyError, UsageError
from pkgjail.images.creating import VARIANTS, Recipe, command_of
from pkgjail.images.importing import import_image
from pkgjail.images.model import ImageLimits
from pkgjail.images.store import list_images
from tests.tars import END, directory, file

if TYPE_CHECKING:
    from tests.conftest import Caller

TREE = directory("etc") + file("etc/x", b"abc") + END
MIRROR, LINE = "http://mirror/debian", "deb [trusted=yes] http://mirror/debian sid main"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with programs of the test's own before all others, and a store."""
    monkeypatch.setenv("PKGJAIL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    (tmp_path / "tree.tar").write_bytes(TREE)
    return tmp_path


def fake(place: Path, script: str) -> None:
    """Put a program in the place of mmdebstrap."""
    program = place / "mmdebstrap"
    program.write_text(f"#!/bin/sh\ncd {place}\n{script}\n")
    program.chmod(0o755)


def left_in(place: Path) -> set[str]:
    """Return what is in the store, but for its own files."""
    return set(os.listdir(place / "store")) - {"lock", "names"} if (place / "store").exists() else set()


# --- what mmdebstrap is told --------------------------------------------------------------------

MODE = "--mode=auto" if os.geteuid() == 0 else "--mode=unshare"
COMMANDS = {
    "only a suite": (Recipe(suite="sid", variant="minbase"), [MODE, "--variant=minbase"], ["--", "sid", "-"]),
    "everything": (
        Recipe(
            suite="sid", variant="apt", include=["a,b", "c"], mirrors=[MIRROR, LINE], architecture="arm64"
        ),
        [MODE, "--variant=apt", "--architectures=arm64", "--skip=check/qemu", "--include=a,b", "--include=c"],
        ["--", "sid", "-", MIRROR, LINE],
    ),
    "words of other systems": (
        Recipe(suite="sid", variant="apt", architecture="aarch64,x86_64"),
        [MODE, "--variant=apt", "--architectures=arm64,amd64", "--skip=check/qemu"],
        ["--", "sid", "-"],
    ),
    "a file of sources": (
        Recipe(suite="sid", variant="apt", mirrors=[__file__]),
        [MODE, "--variant=apt"],
        ["--", "sid", "-", __file__],
    ),
    "no options": (Recipe(suite="-x", variant="apt"), [MODE, "--variant=apt"], ["--", "-x", "-"]),
}  # fmt: skip


@pytest.mark.parametrize("summary", COMMANDS)
def test_the_command_line(summary: str) -> None:
    """Protects what is installed, from where, and that nothing of the caller's is taken for an option."""
    recipe, options, rest = COMMANDS[summary]
    program, *words = command_of(recipe)
    assert program == "mmdebstrap"
    assert words[: len(options)] == options
    assert words[len(options)].startswith("--customize-hook=")
    assert words[len(options) + 1 :] == rest


def test_wrong_recipes(place: Path) -> None:
    """Protects from a mirror that mmdebstrap would take for standard input, and variants without dpkg."""
    for mirror in ("-", "mirror/debian", "/no/such.list"):
        with pytest.raises(UsageError, match=f"cannot use the mirror '{mirror}': name an address"):
            command_of(Recipe(suite="sid", variant="apt", mirrors=[mirror]))
    with pytest.raises(UsageError, match="the variants are apt, buildd,"):
        command_of(Recipe(suite="sid", variant="extract"))
    assert VARIANTS == verb.VARIANTS
    with pytest.raises(UsageError, match="cannot name an image"):
        create_image("-x", suite="sid")
    assert left_in(place) == set()


def test_what_a_whitelist_brings(place: Path) -> None:
    """Protects the requirements: all syntax of Depends goes to apt as it is, and paths are no packages."""
    fake(
        place,
        'for each in "$PKGJAIL_REQUIREMENTS" "$PKGJAIL_RECOMMENDS" "$SOURCE_DATE_EPOCH"\n'
        'do echo "$each"; done >said; cat tree.tar',
    )
    (place / "w.toml").write_text(
        '[packages]\ndebian = ["gcc (>= 4:10)", "a | b:any"]\nrhel = ["c"]\n[files]\ninclude = ["/opt/x"]\n'
        "[options]\nrecommends = true\n"
    )
    warnings: list[str] = []

    class Warned:
        """Collects warnings."""

        def progress(self, task: str, done: int, total: int) -> None:
            """Do nothing."""

        def warn(self, message: str) -> None:
            """Keep it."""
            warnings.append(message)

    image = create_image("made", [str(place / "w.toml")], suite="sid", reporter=Warned())
    assert (place / "said").read_text() == "gcc (>= 4:10), a | b:any\ntrue\n315619200\n"
    assert warnings == ["w.toml:5: /opt/x: it is no package"]
    assert (image.format, image.names) == ("mmdebstrap", 3)
    assert image.digest == import_image(place / "tree.tar", "tree").digest


def test_a_date_of_the_callers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects SOURCE_DATE_EPOCH of a build that has one."""
    fake(place, 'echo "$SOURCE_DATE_EPOCH" >said; cat tree.tar')
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    create_image("made", suite="sid")
    assert (place / "said").read_text() == "1700000000\n"


def test_a_wrong_whitelist(place: Path) -> None:
    """Protects from a long download before a mistake is found: syntax is checked first, all at once."""
    fake(place, "touch ran")
    (place / "w.toml").write_text('[packages]\ndebian = ["gcc (>"]\nrhle = []\n')
    with pytest.raises(PolicyError) as refused:
        create_image("made", [str(place / "w.toml")], suite="sid")
    assert [problem.origin for problem in refused.value.problems] == ["w.toml:2", "w.toml:3"]
    assert not (place / "ran").exists()


SOURCES = {
    "a file of the suite": ({"a.list": "deb http://m/ sid main\n"}, ["a.list"]),
    "what belongs to it": (
        {"a.list": "deb http://m/ sid main\ndeb http://m/ sid-updates main\n"
                   "deb http://s/ sid/updates main\n"}, ["a.list"]
    ),
    "deb822": (
        {"a.sources": "Types: deb\nURIs: http://m/\nSuites: sid sid-security\nComponents: x\n"}, ["a.sources"]
    ),
    "others": ({"a.list": "deb http://m/ sid main\n", "b.list": "deb http://m/ side main\n"}, ["a.list"]),
    "a file of two suites": ({"a.list": "deb http://m/ stable main\ndeb http://m/ sid main\n"}, []),
    "a file with nothing": ({"a.list": "# deb http://m/ sid main\n"}, []),
    "no files": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize("summary", SOURCES)
def test_the_hosts_sources(summary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the packages of an image from those of another release; apt itself reads its files."""
    files, expected = SOURCES[summary]
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, text in files.items():
        (parts / name).write_text(text)
    settings = f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{parts}";\n'
    (tmp_path / "apt.conf").write_text(settings)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert host_sources("sid") == tuple(str(parts / name) for name in expected)


def test_without_apt_and_without_debian(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects other hosts: the suite must be named there, and mmdebstrap chooses the mirror."""
    monkeypatch.setattr("pkgjail.backends.debian.archive.read_release", lambda _: {"ID": "fedora"})
    with pytest.raises(UsageError, match="this host is not Debian, so name a `suite`"):
        create_image("made")
    release = {"ID": "debian", "VERSION_CODENAME": "trixie"}
    monkeypatch.setattr("pkgjail.backends.debian.archive.read_release", lambda _: release)
    assert host_suite() == "trixie"
    monkeypatch.setenv("PATH", str(place))
    assert host_sources("trixie") == ()
    with pytest.raises(
        PkgjailError, match=r"mmdebstrap is not in PATH; install it \(Debian's package mmdebstrap"
    ):
        create_image("made")


# --- failures -----------------------------------------------------------------------------------

SAID = """\
I: running apt-get update...
Reading package lists...
 satisfy:command-line : Depends: nosuch (>= 2) but it is not installable or
E: Unable to correct problems
E: setup failed: E: command failed: x
E: mmdebstrap failed to run
"""
UNMET = """\
25, and nothing was imported:
w.toml:2: cannot satisfy 'nosuch (>= 2) | b'
   satisfy:command-line : Depends: nosuch (>= 2) but it is not installable or
  E: Unable to correct problems"""
FAILURES = {
    "apt fails": ("cat said >&2; exit 25", UNMET),
    "no output at all": ("exit 3", "ended with status 3, and nothing was imported:"),
    "half an archive": ("head -c 700 tree.tar; echo E: full >&2; exit 1", "nothing was imported:\n  E: full"),
    "a failure after the archive": ("cat tree.tar; echo E: late >&2; exit 1", "imported:\n  E: late"),
    "it is killed": ("kill -9 $$", "ended with status -9"),
    "no subordinate ids": (
        "echo E: failed to parse /etc/subuid and /etc/subgid >&2; exit 1", "needs subordinate ids: usermod"
    ),
}  # fmt: skip


@pytest.mark.parametrize("summary", FAILURES)
def test_a_failure_leaves_nothing(summary: str, place: Path) -> None:
    """Protects the store from half an image, and tells the user what apt and mmdebstrap said."""
    script, message = FAILURES[summary]
    (place / "said").write_text(SAID)
    (place / "w.toml").write_text('[packages]\ndebian = ["nosuch (>= 2) | b", "c"]\n')
    fake(place, script)
    heard: list[str] = []
    with pytest.raises(PkgjailError) as failed:
        create_image("made", [str(place / "w.toml")], suite="sid", listen=heard.append)
    assert message in str(failed.value)
    assert "setup failed" not in str(failed.value)
    assert heard == (["I: running apt-get update..."] if summary == "apt fails" else [])
    assert left_in(place) == set()
    assert list_images() == ()


def test_what_is_refused_stops_mmdebstrap(place: Path) -> None:
    """Protects the disk and the caller's time: mmdebstrap's processes are told to end, and waited for."""
    fake(place, "trap 'echo ended >ended; exit 1' TERM; cat tree.tar; sleep 100 & wait")
    began = time.monotonic()
    with pytest.raises(ImageError, match="more than 1 names"):
        create_image("made", suite="sid", limits=ImageLimits(names=1))
    assert time.monotonic() - began < 60
    assert (place / "ended").read_text() == "ended\n"
    assert left_in(place) == set()


def test_a_name_that_is_taken(place: Path) -> None:
    """Protects from a minute's work for nothing."""
    import_image(place / "tree.tar", "made")
    fake(place, "touch ran; cat tree.tar")
    with pytest.raises(PkgjailError, match="another one has the name made"):
        create_image("made", suite="sid")
    assert not (place / "ran").exists()
    assert create_image("made", suite="sid", replace=True).names == 3


def test_the_command_prints(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Protects what people and programs see: messages as they come, then the digest."""
    fake(place, "echo I: working >&2; echo from dpkg >&2; cat tree.tar; echo W: odd >&2")
    words = ["image", "create", "made", "--suite", "sid", "--include", "x"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0] == "made: 3 names, 3 bytes"
    assert err == "mmdebstrap: I: working\nmmdebstrap: W: odd\n"
    assert main([*words, "--replace", "--json"]) == 0
    out, err = capfd.readouterr()
    assert (json.loads(out)["format"], err) == ("mmdebstrap", "")
    fake(place, "exit 1")
    assert main([*words, "--replace"]) == 1
    assert main(["image", "create", "other", "--mirror", "-"]) == 2


# --- a real one ---------------------------------------------------------------------------------


@pytest.mark.long
def test_a_real_image(caller: Caller) -> None:
    """Protects the promise: a whitelist becomes an image, twice the same, that is a source like any other."""
    (caller.home / "w.toml").write_text(
        'include = ["base"]\n[packages]\ndebian = ["zlib1g-dev | nosuch", "file"]\n'
    )
    store = {"PKGJAIL_STORE": str(caller.home / "store")}
    made = []
    for name in ("one", "two"):
        words = ["image", "create", name, "--whitelist", "./w.toml", "--suite", "bookworm", "--json"]
        done = caller.pkgjail(*words, environment=store)
        assert done.returncode == 0, done.stderr
        made.append(json.loads(done.stdout))
    assert made[0]["digest"] == made[1]["digest"]
    root = Path(made[0]["root"])
    assert not (root / "etc/resolv.conf").exists()
    manifest = resolve([str(caller.home / "w.toml")], root=os.fsencode(root))
    assert {"file", "zlib1g-dev", "mawk"} <= {package.name for package in manifest.packages}
    words = ["run", "--source", "image:one", "--", "sh", "-c", "file -b /usr/include/zlib.h"]
    ran = caller.pkgjail(*words, environment=store)
    assert (ran.returncode, ran.stdout[:9]) == (0, "C source,"), ran.stderr
