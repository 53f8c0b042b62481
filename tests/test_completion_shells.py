"""Completion in real shells: what bash, zsh and fish offer after a tab."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

    from pkgjail.core.model import Manifest

# What is typed, and words that must be offered, or what the line becomes if there is one only.
_TYPED = [
    pytest.param("pkgjail re", ["remove", "report", "resolve"], id="verbs"),
    pytest.param("pkgjail resolve sp", ["spack"], id="a shipped list"),
    pytest.param("pkgjail resolve spack --blackl", ["--blacklist"], id="an option"),
    pytest.param("pkgjail resolve spack --blacklist loc", ["locales"], id="an option's value"),
    pytest.param("pkgjail why m.jsonl coreu", ["coreutils"], id="a package of a manifest"),
]
_BEGIN = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(pkgjail completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(pkgjail completion zsh)"'),
}


@pytest.fixture
def place(tmp_path: Path, base_manifest: Manifest, library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a manifest, and the program `pkgjail` on the path."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    program = tmp_path / "bin" / "pkgjail"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {SYSTEM_PYTHON} -m pkgjail "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(library))
    return tmp_path


@pytest.mark.parametrize(("typed", "offered"), _TYPED)
@pytest.mark.parametrize("shell", _BEGIN)
def test_on_a_terminal(place: Path, shell: str, typed: str, offered: list[str]) -> None:
    """The shell is told as the help says, and two tabs are typed."""
    command, setup = _BEGIN[shell]
    with _Terminal(command, place) as terminal:
        terminal.send(f"PS1='READY '; {setup}; echo be''gun\n")
        terminal.wait_for("begun")
        terminal.send(f"{typed}\t\t")
        terminal.wait_for(*offered)


@pytest.mark.parametrize(("typed", "offered"), _TYPED)
def test_fish(place: Path, typed: str, offered: list[str]) -> None:
    script = f"pkgjail completion fish | source; complete -C {typed!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], check=False, cwd=place, capture_output=True, text=True
    )
    found = [line.split("\t")[0].strip() for line in done.stdout.splitlines()]
    assert set(offered) <= set(found), done


class _Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: list[str], place: Path) -> None:
        self._command, self._place = command, place

    def __enter__(self) -> Self:
        self._leader, follower = pty.openpty()
        self._running = subprocess.Popen(
            self._command,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=self._place,
            env={**os.environ, "TERM": "dumb", "HOME": str(self._place)},
            start_new_session=True,
        )
        os.close(follower)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.wait()
        os.close(self._leader)

    def send(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def wait_for(self, *words: str) -> None:
        """Wait until it has written each word, after all that was waited for before."""
        said, deadline = "", time.monotonic() + 60
        while not all(re.search(rf"(?<![\w-]){re.escape(word)}(?!\w)", said) for word in words):
            ready, _, _ = select.select([self._leader], [], [], deadline - time.monotonic())
            assert ready, (words, said)
            said += os.read(self._leader, 1 << 16).decode("utf-8", "replace")
