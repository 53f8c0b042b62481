"""Completion of lists, manifests, packages, images and sources, in bash; sections of the manual page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli import completers
from pkgjail.cli.main import VERBS, main, make_parsers
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

TOP = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a manifest, lists, other files and a directory, and an image's name."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    for name in ("site.toml", "site.ignore", "notes.txt", ".hidden.toml"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CASES = [
    ("resolve spa", ["spack"]),
    ("resolve s", ["site.toml", "spack", "sub/"]),
    ("resolve base --blacklist s", ["site.ignore", "static-libs", "sub/"]),
    ("show m", ["m.jsonl"]),
    ("run m", ["m.jsonl"]),
    ("run spa", ["spack"]),
    ("why m.jsonl coreu", ["coreutils"]),
    ("why nosuch.jsonl coreu", []),
    ("graph m.jsonl --focus coreu", ["coreutils"]),
    ("resolve base --package coreu", ["coreutils"]),
    ("run --source ho", ["host"]),
    ("diff m.jsonl m", ["m.jsonl"]),
    ("hel", ["help"]),
    ("help re", ["remove", "report", "resolve"]),
]


@pytest.mark.parametrize(("typed", "found"), CASES)
def test_in_bash(typed: str, found: list[str], place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By the code of `pkgjail completion bash`, in a bash of its own, with the function that Tab calls."""
    programs = tmp_path_factory.mktemp("bin")
    (programs / "pkgjail").write_text(f'#!/bin/sh\nexec {sys.executable} -m pkgjail "$@"\n')
    (programs / "pkgjail").chmod(0o755)
    script = (
        'eval "$(pkgjail completion bash)"\n'
        "IFS=' ' read -ra COMP_WORDS <<< \"$COMP_LINE\"\n"
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_POINT=${#COMP_LINE} COMP_TYPE=9\n"
        "_python_argcomplete pkgjail\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment, "COMP_LINE": f"pkgjail {typed}"},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert sorted(line.rstrip() for line in done.stdout.splitlines() if line.strip()) == found


def test_the_completers_themselves(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of what is damaged or too large: nothing, and no error."""

    class Named:
        name = "bookworm"

    monkeypatch.setattr("pkgjail.images.store.list_images", lambda _: (Named(),))
    assert completers.complete_images("b") == ["bookworm"]
    assert completers.complete_sources("image:b") == ["image:bookworm"]
    assert completers.complete_sources("dir:s") == ["dir:sub/"]
    assert completers.complete_sources("no:x") == []
    assert completers.complete_jails("m") == ["m.jsonl"]
    assert completers.complete_whitelists(".h") == [".hidden.toml"]
    assert completers.complete_manifests("nosuch/x") == []
    assert completers.complete_packages("x") == []
    assert (
        completers.complete_packages("/etc/pass")
        == ["/etc/passwd", "/etc/passwd-"][: 1 + os.path.exists("/etc/passwd-")]
    )
    parsed = type("Parsed", (), {"manifest": str(place / "notes.txt")})
    assert completers.complete_packages("x", parsed_args=parsed) == []
    monkeypatch.setattr(completers, "_MOST_BYTES", 1)
    parsed = type("Parsed", (), {"manifest": str(place / "m.jsonl")})
    assert completers.complete_packages("core", parsed_args=parsed) == []
    monkeypatch.setattr("pkgjail.images.store.list_images", lambda _: 1 / 0)
    assert completers.complete_images("b") == []
    monkeypatch.setattr("pkgjail.api.open_database", lambda _: 1 / 0)
    assert completers.complete_installed("b") == []


def test_every_manifest_has_a_completer() -> None:
    """Protects a new verb from being forgotten: it is found by what its usage says."""
    parser, verbs = make_parsers()
    completers.attach((parser, *verbs.values()), VERBS)
    for verb, each in verbs.items():
        for action in each._actions:
            if action.metavar in {"MANIFEST", "WHITELIST", "IMAGE", "SOURCE"} or action.dest == "blacklist":
                assert hasattr(action, "completer"), (verb, action)


def test_the_manual_page_has_its_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of man-pages(7); man(1) sets it without a warning, and no section is empty."""
    assert main(["man"]) == 0
    (tmp_path / "pkgjail.1").write_text(capsys.readouterr().out)
    page = (tmp_path / "pkgjail.1").read_text()
    assert re.findall(r"^\.SH (.+)$", page, re.MULTILINE) == [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "EXIT STATUS",
        "ENVIRONMENT",
        "FILES",
        "EXAMPLES",
        "SEE ALSO",
    ]
    done = subprocess.run(
        ["man", "--warnings=w", "-l", str(tmp_path / "pkgjail.1")],
        env={**os.environ, "MANWIDTH": "100", "MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    for words in (
        "PKGJAIL_STAGE",
        "/etc/pkgjail.toml",
        "pkgjail run --cwd spack",
        "user_namespaces(7)",
        "125",
    ):
        assert words in done.stdout
