"""The table of commands in docs/spack.md: its form here, and, with real Spacks, its content."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SYSTEM_PYTHON
from tests.spack import table
from tests.spack.commands import COMMANDS, REASONS, Command
from tests.spack.interpreter import TOP
from tests.spack.real import PACKAGES, ROOTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

PAGE = TOP / "docs" / "spack.md"


def row(line: str, *results: tuple[int, str], only_status: str = "") -> table.Row:
    """Return a row with the results of the ways, in their order."""
    named = {way: table.Result(*result) for way, result in zip(table.WAYS, results)}
    return table.Row(Command(line, only_status=only_status), named)


@pytest.mark.parametrize(
    ("results", "only_status", "difference"),
    [
        pytest.param([(0, "a"), (0, "a"), (0, "a")], "", "", id="all alike"),
        pytest.param([(1, "a"), (1, "a"), (1, "a")], "", "", id="alike in failing"),
        pytest.param([(0, "a"), (0, "a"), (1, "a")], "", "status", id="another status by one hook"),
        pytest.param([(0, "a"), (0, "b"), (0, "a")], "", "output", id="another output by one hook"),
        pytest.param([(0, "a"), (0, "b"), (0, "c")], "of the host", "", id="an output that may differ"),
        pytest.param([(0, "a"), (2, "a"), (0, "a")], "of the host", "status", id="a status that may not"),
    ],
)
def test_a_difference_is_found(results: list[tuple[int, str]], only_status: str, difference: str) -> None:
    """Both hooks are compared with the bare command."""
    assert row("find", *results, only_status=only_status).difference() == difference


def test_what_differs_from_run_to_run_is_no_difference() -> None:
    """Times, dates, colours and the names of temporary directories; nothing else."""
    texts = (
        "\x1b[32m[+]\x1b[0m took 1.25s at 2026-01-02T03:04:05 in /tmp/tmpab3_d5f1/x 42",
        "[+] took 3s at 2027-12-31T13:44:00 in /tmp/tmp00000000/x 42",
    )
    assert len({table.normalize(text) for text in texts}) == 1
    assert table.normalize("zlib@1.2.13 42") == "zlib@1.2.13 42"


def test_the_table_is_written_into_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell has the status; a difference has a number, and its reason stands below."""
    monkeypatch.setitem(REASONS, COMMANDS[1].line, "Because.")
    alike, other = [(0, "a")] * 3, [(1, "a"), (0, "b"), (1, "a")]
    first = table.Run("1.0", [row(COMMANDS[0].line, *alike), row(COMMANDS[1].line, *other)])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write(page, table.render([first], dt.date(2026, 1, 2)))
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert f"| `{COMMANDS[0].line}` | 0 = |" in text
    assert f"| `{COMMANDS[1].line}` | 1 [1] |" in text
    assert "\n1. Because.\n" in text


def test_results_are_read_as_they_were_saved(tmp_path: Path) -> None:
    """The table can be made again without running anything."""
    runs = [table.Run("1.0", [row(COMMANDS[0].line, *[(0, "a")] * 3)])]
    table.save(tmp_path / "file", runs)
    assert [(one.version, one.rows[0].results) for one in table.load(tmp_path / "file")] == [
        ("1.0", runs[0].rows[0].results)
    ]


def test_every_reason_is_about_a_command() -> None:
    """A reason for a command that the table no longer has would hide nothing, and mislead a reader."""
    lines = [command.line for command in COMMANDS]
    assert len(lines) == len(set(lines))
    assert set(REASONS) <= set(lines)


def test_the_page_has_no_command_that_the_table_no_longer_has() -> None:
    """If a command is changed here, the table must be made again."""
    made = PAGE.read_text(encoding="utf-8").split(table.BEGIN)[1].split(table.END)[0]
    shown = {line.split("`")[1] for line in made.splitlines()[1:] if line.startswith("| `")}
    assert shown - {"spack …"} <= {command.line for command in COMMANDS}


if ROOTS:

    @pytest.mark.long
    @pytest.mark.parametrize("root", ROOTS, ids=str)
    def test_commands_do_the_same_inside_as_bare(root: Path, user: Caller) -> None:
        """Every command of the table, by both hooks; each difference has a reason."""
        names = {"PKGJAIL_SPACK_ROOT": str(root), "PKGJAIL_SPACK_PACKAGES": PACKAGES, "PYTHONPATH": ""}
        done = user.run([SYSTEM_PYTHON, "-m", "tests.spack.table"], cwd=TOP, environment=names)
        sys.stdout.write(done.stdout)
        assert done.returncode == 0, done.stderr[-2000:]
