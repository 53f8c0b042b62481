"""Lists and manifests that somebody else wrote: whatever they are, one clear error, and soon."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import ManifestError
from pkgjail.core.untrusted import _short_number
from pkgjail.environments.record import JOURNAL, RECORD, REMOVING
from pkgjail.integrations.spack.active import load_active
from pkgjail.manifest import parse_manifest, write_manifest
from pkgjail.storage.scratch import scratch
from tests.bounded import REFUSED, pkgjail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pkgjail.core.model import Manifest

HEAD = '[packages]\ndebian = ["bash"]\nrhel = ["bash"]\narch = ["bash"]\n'
WHITELISTS: dict[str, tuple[Callable[[], str], str]] = {
    "a key of many parts": (
        lambda: f"{HEAD}a{'.a' * 50_000} = 1\n",
        "w.toml:5: not a whitelist: a key has more",
    ),
    "a quoted key": (
        lambda: f"""{HEAD}"a"{'."a"' * 50_000} = 1\n""",
        "w.toml:5: not a whitelist: a key has more",
    ),
    "tables in tables": (
        lambda: f"{HEAD}x = {'{a=' * 50_000}",
        "w.toml:5: not a whitelist: arrays or tables",
    ),
    "arrays in arrays": (lambda: f"{HEAD}x = {'[' * 100_000}", "w.toml:5: not a whitelist: arrays or tables"),
    "many tables": (lambda: HEAD + "".join(f"[t.{n}]\n" for n in range(50_000)), "w.toml:5: unknown key 't'"),
    "a number of many digits": (
        lambda: f"{HEAD}x = {'9' * 500_000}\n",
        "w.toml:5: not a whitelist: a word has",
    ),
    "many keys": (
        lambda: HEAD + "".join(f"k{n}=1\n" for n in range(80_000)),
        "there are more problems than these",
    ),
    "many packages": (
        lambda: f"[packages]\ndebian = {[f'p{n}' for n in range(60_000)]}\n",
        "there are more problems than these",
    ),
    "a long name": (
        lambda: f'[packages]\ndebian = ["{"a" * 900_000}"]\n',
        "w.toml:2: a string in 'debian' has more than 4096 characters",
    ),
    "many alternatives": (
        lambda: f'[packages]\ndebian = ["{"|".join(f"p{n}" for n in range(600))}"]\n',
        "w.toml:2: cannot satisfy 'p0|p1|",
    ),
    "a string without end": (
        lambda: f'{HEAD}x = """{"a" * 900_000}',
        "w.toml:5: not a whitelist: a word has",
    ),
    "quotes": (lambda: '"""' * 300_000, "w.toml:1: not valid TOML"),
    "includes without end": (
        lambda: f"include = {[f'./x{n}.toml' for n in range(50_000)]}\n",
        "there are more problems than these",
    ),
    "a megabyte and more": (lambda: "#" * (1 << 20) + "\n", "it has more than 1 MiB"),
    "NUL": (lambda: f"{HEAD}\0", "w.toml:5: not valid TOML"),
    "control bytes": (lambda: '[packages]\ndebian = ["\\u001b[2J"]\n', "\\x1b[2J"),
}
BLACKLISTS: dict[str, tuple[Callable[[], str], str]] = {
    "wildcards without end": (lambda: "*a" * 3000, "b.ignore:1: bad pattern '*a*a"),
    "many patterns": (lambda: "x*y\n" * 60_000, "b.ignore:10001: a blacklist has 10,000 patterns at most"),
    "many faults": (lambda: "[\n" * 300_000, "there are more problems than these"),
    "brackets that take a slash": (lambda: "*[!a]" * 30, "b.ignore:1: bad pattern '*[!a]"),
    "NUL": (lambda: "\0\n", "b.ignore:1: bad pattern '\\x00': it has a NUL byte"),
    "a megabyte and more": (lambda: "\n" * (2 << 20), "it has more than 1 MiB"),
}


@pytest.mark.gate
@pytest.mark.parametrize("summary", WHITELISTS)
def test_odd_whitelists(summary: str, tmp_path: Path) -> None:
    """Protects from lists that take minutes or gigabytes, or act on a terminal; each fault has its line."""
    make, words = WHITELISTS[summary]
    (tmp_path / "w.toml").write_text(make())
    done = pkgjail("resolve", "./w.toml", "-o", "out", "--no-hash", cwd=tmp_path)
    assert done.returncode == 2, done
    assert words in done.stderr
    assert len(done.stderr) < 200_000
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.gate
@pytest.mark.parametrize("summary", BLACKLISTS)
def test_odd_blacklists(summary: str, tmp_path: Path) -> None:
    """Protects from the same in a blacklist."""
    make, words = BLACKLISTS[summary]
    (tmp_path / "b.ignore").write_text(make())
    done = pkgjail("resolve", "base", "--blacklist", "./b.ignore", "-o", "out", "--no-hash", cwd=tmp_path)
    assert done.returncode == 2, done
    assert words in done.stderr
    assert len(done.stderr) < 200_000


@pytest.mark.gate
def test_lists_that_include_each_other_without_end(tmp_path: Path) -> None:
    """Protects from a chain of thousands of lists."""
    for number in range(2000):
        (tmp_path / f"c{number}.toml").write_text(f'include = ["./c{number + 1}.toml"]\n')
    done = pkgjail("resolve", "./c0.toml", "-o", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "c50.toml:1: c51.toml is included through a chain of more than 50 lists" in done.stderr


@pytest.mark.gate
def test_a_pattern_that_took_minutes(tmp_path: Path) -> None:
    """Protects the resolving of what a sound pattern of many wildcards matches."""
    (tmp_path / "b.ignore").write_text("/usr/share/doc/" + "*?" * 16 + "\n")
    (tmp_path / "w.toml").write_text(f'{HEAD}[files]\ninclude = ["/etc/{"*?" * 16}"]\n')
    done = pkgjail("resolve", "./w.toml", "--blacklist", "./b.ignore", "-o", "out", "--no-hash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# --- what is no file -----------------------------------------------------------------------------------

VERBS = {
    "show": ("show", "X"), "run": ("run", "X", "--", "true"), "shell": ("shell", "X"),
    "diff": ("diff", "X", "X"), "browse": ("browse", "X"),
    "export": ("export", "--format", "bwrap", "X"), "verify": ("verify", "X"), "why": ("why", "X", "bash"),
    "graph": ("graph", "X"), "report": ("report", "-o", "out", "X"), "check": ("check", "X"),
    "build": ("build", "X", "env"), "mounts": ("mounts", "X"), "whitelist": ("resolve", "X", "-o", "out"),
    "blacklist": ("resolve", "base", "--blacklist", "X", "-o", "out"),
}  # fmt: skip
# What verbs end with that cannot read a file; bad lists are bad input.
STATUSES = {"run": 125, "shell": 125, "diff": 2, "whitelist": 2, "blacklist": 2}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_file_is_refused(verb: str, tmp_path: Path) -> None:
    """Protects each verb from waiting for a FIFO, and from reading devices and holes, with its own status."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 20 << 30)
    kinds = {
        "./fifo": "it is a FIFO, and not",
        "./holes": "it has more than",
        "/dev/zero": "it is a character device",
    }
    for name, words in kinds.items():
        done = pkgjail(*(name if word == "X" else word for word in VERBS[verb]), cwd=tmp_path)
        assert (done.returncode, words in done.stderr) == (STATUSES.get(verb, 1), True), (name, done)


@pytest.mark.parametrize("name", ["<(cat m)", "/dev/stdin <m", "/proc/self/fd/0 <m", "/dev/fd/7 7<m", "m"])
def test_what_a_shell_passes_is_a_manifest(name: str, tmp_path: Path, base_manifest: Manifest) -> None:
    """Protects `<(…)` and descriptors as names of manifests, twice in one command too."""
    write_manifest(base_manifest, tmp_path / "m")
    command = f"{sys.executable} -m pkgjail diff {name.split(maxsplit=1)[0] if ' <' in name else name} {name}"
    if name.startswith("<"):
        command = f"{sys.executable} -m pkgjail diff {name} {name}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_manifest_from_standard_input(tmp_path: Path) -> None:
    """Protects `-` where it is documented from what never ends."""
    with open("/dev/zero", "rb") as file:
        done = pkgjail("verify", "-", cwd=tmp_path, stdin=file)
    assert done.returncode == 1
    assert "pkgjail: standard input: it " in done.stderr


# --- manifests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(lambda: b"[]," * 4_000_000, "too many lists and objects", id="lists"),
        pytest.param(lambda: b"[" * 100_000, "not a manifest", id="deep"),
        pytest.param(lambda: b'{"kind":"header","a":' + b"9" * 9999 + b"}\n", "not a manifest", id="digits"),
        pytest.param(lambda: b'{"kind":"header"}\n' * 100_000, "there are more problems", id="many faults"),
        pytest.param(lambda: b'{"kind":"header","' + b"a" * 5_000_000 + b'":1}\n', " … ", id="a long name"),
        pytest.param(
            lambda: b'{"kind":"header",' + b",".join(b'"%d":1' % n for n in range(300_000)) + b',"0":2}\n',
            "not a manifest", id="a key twice among many",
        ),
        pytest.param(lambda: b"\xff" * 1000, "not UTF-8", id="no UTF-8"),
        pytest.param(lambda: b"\0" * 1000, "not a manifest", id="zeros"),
    ],
)  # fmt: skip
def test_odd_manifests(data: Callable[[], bytes], words: str, tmp_path: Path) -> None:
    """Protects from what decodes to gigabytes, and from messages as long as the file."""
    (tmp_path / "m").write_bytes(data())
    done = pkgjail("show", "m", cwd=tmp_path)
    assert done.returncode == 2, done
    assert words in done.stderr
    assert len(done.stderr) < 50_000


def test_numbers_are_short_on_every_python() -> None:
    """Protects Pythons whose own `int` has no bound, and the refusal on all of them."""
    assert _short_number("-12") == -12
    with pytest.raises(ValueError, match="a number of 5000 digits"):
        _short_number("9" * 5000)
    with pytest.raises(ManifestError):
        parse_manifest(b'{"kind":"header","schema":' + b"9" * 5000 + b"}\n", "m")


# --- what is kept beside an environment ----------------------------------------------------------------

RECORDS = {"FIFO": "it is a FIFO", "sparse": "it has more than", "directory": "Is a directory"}


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("name", [RECORD, JOURNAL, REMOVING])
def test_records_of_environments(name: bytes, kind: str, tmp_path: Path) -> None:
    """Protects who enters, or removes, what somebody else calls an environment."""
    directory = tmp_path / "env"
    directory.mkdir()
    REFUSED[kind][0](directory / os.fsdecode(name))
    for words, status in (("enter", 125), ("remove", 2)):
        command = ["true"] if words == "enter" else []
        done = pkgjail(words, "env", *command, cwd=tmp_path)
        assert done.returncode == status, done
        assert f"{os.fsdecode(name)}: {RECORDS[kind]}" in done.stderr


@pytest.mark.parametrize("kind", RECORDS)
def test_the_state_of_a_spack(kind: str, tmp_path: Path) -> None:
    """Protects each of Spack's commands from waiting for what says which environment is active."""
    (tmp_path / "opt/.pkgjail").mkdir(parents=True)
    REFUSED[kind][0](tmp_path / "opt/.pkgjail/active.json")
    with pytest.raises(ValueError, match=f"active.json: {RECORDS[kind]}.*; look at it, and delete it"):
        load_active(str(tmp_path), {})


# --- temporary directories -----------------------------------------------------------------------------


def test_what_a_killed_reader_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects TMPDIR from copies of databases; what is in use, young, or another's stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = os.open(_left(tmp_path, "held"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    _left(tmp_path, "killed")
    _left(tmp_path, "young", age=0)
    _left(tmp_path, "open").chmod(0o755)
    (_left(tmp_path, "deep") / "directory").mkdir()
    (tmp_path / "pkgjail-rpm-link").symlink_to(_left(tmp_path, "target", age=0))
    (tmp_path / "other").mkdir()
    os.utime(tmp_path / "pkgjail-rpm-deep", (1, 1))
    with scratch("rpm") as place:
        assert os.listdir(place) == []
        left = {path.name.removeprefix("pkgjail-rpm-") for path in tmp_path.iterdir()}
    os.close(held)
    assert left - {os.path.basename(place).removeprefix("pkgjail-rpm-")} == {
        "held", "young", "open", "link", "target", "other",
    }  # fmt: skip
    assert not os.path.exists(place)


def _left(place: Path, name: str, age: float = 1000) -> Path:
    """A directory that a reader made `age` seconds ago."""
    made = place / f"pkgjail-rpm-{name}"
    made.mkdir(mode=0o700)
    (made / "rpmdb.sqlite").write_text("x")
    then = time.time() - age
    os.utime(made, (then, then))
    return made
