"""Files in each other's place, on standard input, and as editors, Git and gzip(1) change them."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.model import Audit
from pkgjail.audit.record import write_audit
from pkgjail.cli.main import main
from pkgjail.core.recognise import kind_of
from pkgjail.environments.build import build_environment
from pkgjail.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

LIST = b'[packages]\ndebian = ["coreutils"]\n[options]\nessential = false\n'
PLAN = b'{"architecture":"amd64","family":"debian","kind":"plan","schema":1}\n'
AUDIT = Audit(
    manifest="sha256:0", family="debian", architecture="amd64", command=("true",), status=0, events=0
)


@pytest.fixture
def place(base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a manifest, a list, a plan, an audit and an environment."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    write_audit(AUDIT, tmp_path / "audit.jsonl")
    (tmp_path / "plan.jsonl").write_bytes(PLAN)
    manifest = (tmp_path / "m.jsonl").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "spakk").touch()
    build_environment(base_manifest, os.fsencode(tmp_path / "env"))
    (tmp_path / "large.jsonl").write_bytes(manifest + b"\n" * (1 << 20))
    (tmp_path / "large.txt").write_bytes(b"#" * (1 << 21))
    for name, data in (("m.jsonl", manifest), ("w.toml", LIST)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"bom-{name}").write_bytes(b"\xef\xbb\xbf" + data)
        (tmp_path / f"crlf-{name}").write_bytes(data.replace(b"\n", b"\r\n"))
        (tmp_path / f"packed-{name}").write_bytes(gzip.compress(data))
        (tmp_path / f"cut-{name}").write_bytes(gzip.compress(data)[:-9])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("show w.toml", 2, "w.toml:1: this is a whitelist, not a manifest: 'pkgjail resolve' makes"),
        ("show bom-w.toml", 2, "bom-w.toml:1: this is a whitelist, not a manifest"),
        ("show plan.jsonl", 2, "plan.jsonl:1: this is a package plan"),
        ("show audit.jsonl", 2, "audit.jsonl:1: this is a record of an audit, not a manifest: 'pkgjail"),
        ("show base", 2, "'base' is a whitelist, and a manifest is wanted here: make one with 'pkgjail"),
        ("show nosuch", 1, "nosuch: No such file"),
        ("build spack env", 2, "'spack' is a whitelist, and a manifest is wanted here"),
        ("resolve ./m.jsonl", 2, "m.jsonl:1: this is a manifest, not a whitelist: 'pkgjail show' shows it"),
        ("resolve m.jsonl", 2, "the file 'm.jsonl' is a manifest: 'pkgjail show' shows it"),
        ("resolve ./large.jsonl", 2, "large.jsonl:1: this is a manifest, not a whitelist: 'pkgjail show'"),
        ("resolve base --blacklist ./large.jsonl", 2, "large.jsonl:1: this is a manifest, not a blacklist"),
        ("resolve ./large.txt", 2, "'large.txt': it has more than 1 MiB"),
        ("resolve ./plan.jsonl", 2, "plan.jsonl:1: this is a package plan, not a whitelist"),
        ("resolve ./audit.jsonl", 2, "audit.jsonl:1: this is a record of an audit, not a whitelist"),
        ("resolve base --blacklist ./w.toml", 2, "w.toml:1: this is a whitelist, not a blacklist"),
        ("resolve base --blacklist ./m.jsonl", 2, "m.jsonl:1: this is a manifest, not a blacklist"),
        ("audit show m.jsonl", 2, "m.jsonl: this is a manifest, not a record of an audit"),
        ("audit show w.toml", 2, "w.toml: this is a whitelist, not a record of an audit"),
        ("run env -- true", 125, "'pkgjail enter env -- COMMAND', or name its manifest, env/manifest.jsonl"),
        ("shell env", 125, "'env' is an environment"),
        ("show env", 2, "'env' is an environment"),
        ("show empty", 1, "empty: Is a directory"),
        ("build env m.jsonl", 2, "MANIFEST comes first, as in 'pkgjail build m.jsonl env'"),
        ("build no m.jsonl", 2, "MANIFEST comes first, as in 'pkgjail build m.jsonl no'"),
        ("enter m.jsonl -- true", 125, "'m.jsonl' is a manifest, and an environment is wanted here: run"),
        ("enter w.toml -- true", 125, "it is not a directory"),
        ("enter env", 125, "there is no command to run; write it after '--' ('-- bash' for a shell)"),
        ("run m.jsnl -- true", 125, "unknown whitelist 'm.jsnl'; did you mean 'm.jsonl'?"),
        ("resolve crlf-w.tml", 2, "unknown whitelist 'crlf-w.tml'; did you mean 'crlf-w.toml'?"),
        ("resolve base --blacklist large.tx", 2, "unknown blacklist 'large.tx'; did you mean './large.txt'?"),
        ("resolve spak", 2, "unknown whitelist 'spak'; did you mean 'spack'?"),
        ("resolve zzz", 2, "unknown whitelist 'zzz'; use one of base,"),
        ("show bom-m.jsonl", 2, "bom-m.jsonl:1: it begins with a byte order mark (BOM)"),
        ("show crlf-m.jsonl", 2, "crlf-m.jsonl:1: its lines end in CR LF"),
        ("show cut-m.jsonl", 2, "cut-m.jsonl: cannot unpack it by gzip"),
        ("resolve ./cut-w.toml", 2, "cannot unpack the whitelist"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("place")
def test_a_file_in_the_place_of_another(
    words: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what the file is, and what to do with it."""
    assert main(words.split()) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bom-w.toml", "crlf-w.toml", "packed-w.toml"])
def test_a_list_as_editors_and_gzip_write_it(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Means the same as the list itself."""
    for each, out in (("w.toml", "as-it-is"), (name, "changed")):
        assert main(["resolve", "-q", f"./{each}", "--no-hash", "-o", out]) == 0
    plain, changed = (read_manifest(place / out) for out in ("as-it-is", "changed"))
    assert [each.key for each in changed.packages] == [each.key for each in plain.packages]
    assert changed.files == plain.files
    assert capsys.readouterr().err == ""


def test_a_blacklist_with_crlf(place: Path) -> None:
    """Its patterns match, which they would not with a CR at the end."""
    (place / "x.ignore").write_bytes(b"\xef\xbb\xbf/usr/share/doc/\r\n\r\n# note\r\n/usr/share/man/\r\n")
    assert main(["resolve", "-q", "./w.toml", "--no-hash", "--blacklist", "./x.ignore", "-o", "out"]) == 0
    paths = [entry.path for entry in read_manifest(place / "out").files]
    assert not [path for path in paths if path.startswith((b"/usr/share/doc/", b"/usr/share/man/"))]


def test_a_packed_manifest_is_the_manifest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By every verb that reads one, with the digest of what is in it."""
    assert read_manifest(place / "packed-m.jsonl") == read_manifest(place / "m.jsonl")
    shown = []
    for name in ("m.jsonl", "packed-m.jsonl"):
        assert main(["show", name]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("show -", "m.jsonl"),
        ("show -", "packed-m.jsonl"),
        ("why - /usr/bin/env", "m.jsonl"),
        ("diff m.jsonl -", "m.jsonl"),
        ("graph -", "m.jsonl"),
        ("check --static -", "m.jsonl"),
        ("verify --quick -", "m.jsonl"),
        ("export - --format mtree", "m.jsonl"),
        ("report - -o page.html", "m.jsonl"),
        ("build - new", "m.jsonl"),
        ("run - -- true", "m.jsonl"),
        ("audit show -", "audit.jsonl"),
        ("resolve - --no-hash", "w.toml"),
        ("resolve base --no-hash --blacklist -", "x.ignore"),
    ],
)
def test_standard_input(words: str, file: str, place: Path) -> None:
    """A lone dash stands for it wherever a file is read, as a pipe."""
    (place / "x.ignore").write_text("/usr/share/doc/\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pkgjail", *words.split()],
        input=(place / file).read_bytes(),
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, b"cannot" in ran.stderr) == (0, False), ran.stderr


def test_a_manifest_on_standard_input_is_not_remembered(place: Path, base_manifest: Manifest) -> None:
    """The same command line must not enter the jail of another manifest: nothing of it is replayed."""
    command = [sys.executable, "-m", "pkgjail", "run", "-", "--", "/usr/bin/env", "true"]
    data = (place / "m.jsonl").read_bytes()
    assert subprocess.run(command, input=data, check=False, capture_output=True).returncode == 0
    ran = subprocess.run(command, input=LIST, check=False, capture_output=True)
    assert ran.returncode == 125
    assert b"this is a whitelist, not a manifest" in ran.stderr
    assert base_manifest.files


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    descriptor = os.open("/dev", os.O_RDONLY)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: descriptor))
    assert main(["show", "-"]) == 1
    os.close(descriptor)
    assert "cannot read standard input: Is a directory; name a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ""),
        (b'{"kind":"other"}\n', ""),
        (b'include = ["base"]\n', "whitelist"),
        (b"# a list\n\n[packages] # these\n", "whitelist"),
        (b"/usr/share/doc/\n[a-z]*\n", ""),
        (PLAN, "package plan"),
        (b'{"a":1}\n{"kind":"header"}\n', ""),
        (b"x" * 99, ""),
    ],
)
def test_kinds(data: bytes, kind: str) -> None:
    """Of the first line and of tables' names; a pattern of a blacklist is no table."""
    assert kind_of(data) == kind
