"""Tables of text: one line a row, whatever is printed to.

A pipe or a file gets every column, as wide as its content, so that grep(1) finds a row by any of its cells. A
terminal that is too narrow gets fewer columns; a cell is never broken.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

NUMERIC = frozenset({"names", "size", "download"})
"""Columns that are set to the right."""

_GAP = "  "


def terminal_width() -> int | None:
    """Return how many characters a line of standard output has; None if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(  # noqa: PLR0913 - all but two by keyword
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    least: Sequence[str] = (),
    most: int | None = None,
    numeric: Collection[str] = NUMERIC,
) -> None:
    """Print a table on standard output.

    Args:
        columns: the title of each.
        rows: the cells of each row, printable.
        title: a line above.
        least: the columns to leave out on a narrow terminal, the first one first.
        most: print so many rows, and how many there are besides.
        numeric: the columns to set to the right.

    """
    shown = rows[:most]
    chosen, left_out = _fitting(columns, shown, least)
    if title:
        print(title)
    print()
    for line in _lines(
        [columns[index] for index in chosen], [[row[i] for i in chosen] for row in shown], numeric
    ):
        print(line)
    if len(rows) > len(shown):
        print(f"  and {len(rows) - len(shown):,} more (--all)")
    if left_out:
        print(f"  left out, for this terminal's width: {', '.join(left_out)}")
    print()


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[str]
) -> tuple[list[int], list[str]]:
    """Return the columns that the terminal has room for, and the names of the others."""
    width = terminal_width()
    chosen, left_out = list(range(len(columns))), []
    for name in least:
        needed = sum(_widest(columns, rows, index) + len(_GAP) for index in chosen)
        if width is None or needed <= width:
            break
        chosen.remove(columns.index(name))
        left_out.append(name)
    return chosen, left_out


def _widest(columns: Sequence[str], rows: Sequence[Sequence[str]], index: int) -> int:
    return max(map(_cells, (columns[index], *(row[index] for row in rows))))


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Collection[str]) -> Iterator[str]:
    widths = [_widest(columns, rows, index) for index in range(len(columns))]
    yield _line(columns, columns, widths, numeric)
    dash = "─" if (sys.stdout.encoding or "").lower().startswith("utf") else "-"
    yield " " + dash * (sum(widths) + len(_GAP) * len(widths))
    for row in rows:
        yield _line(row, columns, widths, numeric)


def _line(row: Sequence[str], columns: Sequence[str], widths: Sequence[int], numeric: Collection[str]) -> str:
    cells = []
    for cell, column, width in zip(row, columns, widths):
        room = " " * (width - _cells(cell))
        cells.append(room + cell if column in numeric else cell + room)
    return f"{_GAP}{_GAP.join(cells)}".rstrip()
