"""What people see on a terminal while pkgjail works, and what a file or a pipe gets instead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.commands import main
from pkgjail.commands.console import ConsoleReporter
from pkgjail.manifest import write_manifest
from pkgjail.model import Unmet

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pkgjail.model import Manifest


def _work() -> None:
    with ConsoleReporter() as reporter:
        reporter.progress("hashing", 1, 4)
        reporter.warn("look out")
        reporter.progress("hashing", 2, 4)


def test_a_terminal_is_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task and how far it is, and warnings between."""
    monkeypatch.setenv("TERM", "xterm")
    reading, writing = os.openpty()
    with os.fdopen(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        _work()
        terminal.write("\nend")
    shown = b""
    while not shown.endswith(b"end"):
        shown += os.read(reading, 4096)
    os.close(reading)
    assert b"hashing" in shown
    assert b"50%" in shown
    assert b"pkgjail: warning: look out" in shown


def test_a_file_gets_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Protects logs from progress bars, and standard output from everything."""
    _work()
    assert capsys.readouterr() == ("", "pkgjail: warning: look out\n")


def test_who_reads_our_output_may_leave() -> None:
    """As `head` does: no traceback, no complaint of Python's at its exit."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pkgjail", "resolve", "base", "--no-hash"]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, [line for line in ran.stderr.splitlines() if "warning" not in line]) == (0, [])


def test_no_color_is_heeded(base_manifest: Manifest, tmp_path: Path) -> None:
    """https://no-color.org: on a terminal too there is no colour, and the tables fit its width."""
    path = tmp_path / "m.jsonl"
    write_manifest(base_manifest, path)
    command = f"{sys.executable} -m pkgjail show {path}"
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "60"}
    typescript = ["script", "-qec", command, "/dev/null"]
    ran = subprocess.run(
        typescript, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)
    assert "By package" in plain
    assert re.findall(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7])[0-9;]*m", ran.stdout) == []
    assert max(map(len, plain.splitlines()[3:])) <= 60


def test_show_tells_what_is_unmet(
    base_manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gap that somebody accepted with --allow-unmet is not hidden from who reviews."""
    gap = Unmet(
        source=base_manifest.packages[0].key, kind="Depends", text="gone (>= 2)", reason="not installed"
    )
    path = tmp_path / "m.jsonl"
    write_manifest(replace(base_manifest, unmet=(gap,)), path)
    assert main(["show", str(path)]) == 0
    assert f"unmet: {gap.source}: Depends: gone (>= 2)" in capsys.readouterr().out
