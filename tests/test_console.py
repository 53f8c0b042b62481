"""Progress on a terminal, and the output to a file or a pipe instead."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.main import main
from pkgjail.core.model import Dropped, Unmet
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest


def _work() -> None:
    with ConsoleReporter() as reporter:
        reporter.progress("hashing", 1, 4)
        reporter.warn("look out")
        reporter.progress("hashing", 2, 4)


def test_a_terminal_is_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task, its progress, and warnings in between."""
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


class _Terminal(io.StringIO):
    """Standard error, as a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_the_terminal_is_free_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the command in a jail, which gets the terminal after the files were compared."""
    monkeypatch.setattr(sys, "stderr", _Terminal())
    before = set(threading.enumerate())
    reporter = ConsoleReporter()
    reporter.progress("hashing", 4, 4)  # known from before: nothing to draw
    assert set(threading.enumerate()) == before
    reporter.progress("hashing", 1, 4)
    (drawing,) = set(threading.enumerate()) - before
    reporter.progress("hashing", 4, 4)
    drawing.join(timeout=30)
    assert not drawing.is_alive()


def test_a_file_gets_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Protects logs from progress bars, and standard output from everything."""
    _work()
    assert capsys.readouterr() == ("", "pkgjail: warning: look out\n")


def test_who_reads_our_output_may_leave() -> None:
    """As `head` does: no traceback, no complaint of Python's at its exit, and not a word of it."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pkgjail", "resolve", "base", "--no-hash"]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, read.stderr)


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


# A terminal's title, a line of its own, the end of a fence of markdown, HTML, text from right to left, a
# line end of JavaScript's, no UTF-8, and half of a character.
_HOSTILE = "\x1b]0;x\x07\n````\n</script><script>alert(1)</script>[/]\u202e\u2028\udcff"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["show", "--all", "M"], id="show"),
        pytest.param(["why", "M", "/usr/bin/env"], id="why"),
        pytest.param(["diff", "--all", "OLD", "M"], id="diff"),
        pytest.param(["diff", "--format", "markdown", "OLD", "M"], id="markdown"),
        pytest.param(["check", "--static", "M"], id="check"),
        pytest.param(["verify", "M"], id="verify"),
        pytest.param(["run", "M", "--", "true"], id="run"),
        pytest.param(["run", "--allow-drift", "M", "--", "true"], id="drift"),
        pytest.param(["graph", "M", "--format", "graphml"], id="graphml"),
        pytest.param(["report", "M", "--against", "OLD", "-o", "-"], id="the page"),
        pytest.param(["show", f"/no/{_HOSTILE}.jsonl"], id="no such file"),
        pytest.param(["enter", f"/no/{_HOSTILE}", "--", "true"], id="no such environment"),
        pytest.param(["run", "OLD", "--", _HOSTILE], id="no such command"),
        pytest.param(["run", "--bind", f"/no{_HOSTILE}", "OLD", "--", "true"], id="no such source"),
        pytest.param(["resolve", f"./{_HOSTILE}.toml"], id="no such whitelist"),
    ],
)
def test_what_is_told_of_is_no_part_of_the_telling(
    base_manifest: Manifest, tmp_path: Path, words: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Names and reasons of a stranger's manifest: nothing of them acts on a terminal or in a page."""
    whole = f"{_HOSTILE}\ud800"
    entry = next(each for each in base_manifest.files if each.path == b"/usr/bin/env")
    name = b"/usr/bin/zz" + _HOSTILE.replace("/", "_").encode("utf-8", "surrogateescape")
    hostile = replace(
        base_manifest,
        header=replace(base_manifest.header, whitelists=(whole,), blacklists=(whole,)),
        files=tuple(sorted((*base_manifest.files, entry._replace(path=name)), key=lambda each: each.path)),
        dropped=(Dropped(path=name + b"d", rule=whole),),
        unmet=(Unmet(source=entry.owners[0], kind="Depends", text=whole, reason=whole),),
    )
    places = {"M": tmp_path / "m.jsonl", "OLD": tmp_path / "old.jsonl"}
    write_manifest(hostile, places["M"])
    write_manifest(base_manifest, places["OLD"])
    main([str(places.get(word, word)) for word in words])
    told = b"".join(capfdbinary.readouterr()).decode()
    assert told
    assert [sign for sign in "\x1b\x07\u202e\u2028" if sign in told] == []
    assert "M" not in words or "\n````\n</script>" not in told  # the caller's own words may have lines
    assert words[0] != "report" or "<script>alert" not in told
