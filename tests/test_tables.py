"""Tables on terminals of several widths, and in pipes: one line a row, and no broken word."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.cli.tables import print_table
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pkgjail.core.model import Manifest

_COLUMNS = ("package", "version", "names", "size")
_ROWS = (
    ("libc6:amd64", "2.36-9", "307", "13.0 MB"),
    ("größe", "1", "2,000", "7 kB"),
    ("名前", "1", "1", "1 kB"),
)


@pytest.fixture
def manifest(base_manifest: Manifest, tmp_path: Path) -> Path:
    """A manifest in a file."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    return tmp_path / "m.jsonl"


def on_terminal(words: Sequence[str], columns: int) -> str:
    """What pkgjail prints on a terminal of this width."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "pkgjail", *words], stdin=its, stdout=its, stderr=its, env=environment
    ) as running:
        os.close(its)
        found = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other end any more
                break
            found += data
        assert running.wait() == 0, found
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", ["20", "80"])
def test_a_pipe_has_one_line_for_each_package(
    columns: str, manifest: Path, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With every column, so that grep finds it by name, version or size, whatever COLUMNS says."""
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["show", "--all", str(manifest)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert main(["show", "--json", str(manifest)]) == 0
    rows = json.loads(capsys.readouterr().out)["by_package"]
    for row in rows:
        name = row["package"] or "(no package)"
        (line,) = (line for line in lines if line.startswith(f"  {name}  "))
        cells = [name, *filter(None, [row["version"]]), f"{row['names']:,}"]
        assert line.split("  ")[1] == name
        assert [cell for cell in cells if cell not in line] == []
    assert {package.key for package in base_manifest.packages} <= {row["package"] for row in rows}
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize(
    ("width", "titles", "left_out"),
    [
        pytest.param(200, _COLUMNS, "", id="all"),
        pytest.param(38, _COLUMNS, "", id="just all"),
        pytest.param(37, ("package", "version", "size"), "names", id="one less"),
        pytest.param(25, ("package", "size"), "names, version", id="two less"),
        pytest.param(5, ("package",), "names, version, size", id="the name stays, whole"),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(
    width: int,
    titles: tuple[str, ...],
    left_out: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The least important one goes first; every cell stays in one piece, and it is said what is left out."""
    monkeypatch.setattr("pkgjail.cli.tables.terminal_width", lambda: width)
    print_table(_COLUMNS, _ROWS, least=("names", "version", "size"))
    lines = capsys.readouterr().out.splitlines()
    assert tuple(lines[1].split()) == titles
    chosen = [_COLUMNS.index(title) for title in titles]
    for row, line in zip(_ROWS, lines[3:]):
        assert line.split() == " ".join(row[index] for index in chosen).split()
    told = [line for line in lines if "left out" in line]
    assert told == ([f"  left out, for this terminal's width: {left_out}"] if left_out else [])


def test_wide_characters_keep_columns_straight(capsys: pytest.CaptureFixture[str]) -> None:
    """A letter that takes two cells counts as two; numbers end at one place."""
    print_table(_COLUMNS, _ROWS, most=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  package      version  names     size"
    assert lines[-2] == "  名前         1            1     1 kB"


def test_a_limited_table_says_how_many_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(_COLUMNS, _ROWS, title="By package", most=1)
    out = capsys.readouterr().out
    assert out.startswith("By package\n\n  package")
    assert "  and 2 more (--all)\n" in out
    assert "größe" not in out


def test_on_real_terminals(manifest: Path) -> None:
    """No line is longer than the terminal, so it breaks none."""
    wide, narrow = (on_terminal(["show", str(manifest)], columns).splitlines() for columns in (100, 40))
    assert max(map(len, wide)) <= 100
    rows = [line for line in narrow if line.startswith("  ") and "left out" not in line]
    assert max(map(len, rows)) <= 40
    assert [line for line in narrow if "left out" in line]
    assert not [line for line in wide if "left out" in line]


@pytest.mark.slow
def test_stages_on_a_narrow_terminal() -> None:
    """The table comes in blocks that fit, with each stage once."""
    from pkgjail.stages import STAGES

    lines = on_terminal(["stages"], 60).splitlines()
    heads = [line.split() for line in lines if line.startswith(" " * 12) and line.split()[0] in STAGES]
    assert [name for head in heads for name in head] == list(STAGES)
    assert len(heads) > 1
