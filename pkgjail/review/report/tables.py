"""Write texts as escaped HTML: tables, lists that open, sizes and their changes."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pkgjail.core.text import printable
from pkgjail.review.graph_formats import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SIGNS = {"added": "+", "removed": "-", "upgraded": "↑", "downgraded": "↓", "changed": "±"}
"""A sign for each change, so that colour is not all that distinguishes them."""

_LONGEST_WORD = 24


def text(raw: str) -> str:
    """Return a text escaped for HTML, with what is invisible made visible."""
    return escape(printable(raw))


def growth(size: int) -> str:
    """Return a change of bytes with its sign."""
    if size == 0:
        return "same size"
    return f"{'-' if size < 0 else '+'}{size_text(abs(size))}"


def more_or_fewer(number: int) -> str:
    """Return a change of a count with its sign."""
    return "same" if number == 0 else f"{'-' if number < 0 else '+'}{abs(number):,}"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, kinds: str = "") -> str:
    """Return a table of texts, escaped.

    Args:
        caption: its title, which is shown.
        columns: the columns' names.
        rows: the cells' texts. A first cell that names a change is coloured by it.
        kinds: classes of the table, for its style. On narrow screens each row is a list with the names of
            columns, unless it is "small".

    """
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    names = [text(column) for column in columns]
    body = "".join(
        f"<tr{_change(row)}>{''.join(_cell(name, cell) for name, cell in zip(names, row))}</tr>\n"
        for row in rows
    )
    return (
        f'<table class="{kinds or "plain"}"><caption>{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    )


def _change(row: Sequence[str]) -> str:
    word = row[0].rpartition(" ")[2] if row else ""
    return f' class="{word}"' if word in SIGNS else ""


def _cell(name: str, cell: str) -> str:
    """Return a cell. One with a long word, as a path, may be broken anywhere."""
    long = any(len(word) > _LONGEST_WORD for word in cell.split())
    return f'<td{" class=long" if long else ""} data-column="{name}">{text(cell)}</td>'


def folded(heading: str, lines: Iterable[str], *, is_open: bool = False) -> str:
    """Return lines of HTML under a heading, escaped already, that opens them."""
    listed = "\n".join(lines)
    return f"<details{' open' if is_open else ''}><summary>{heading}</summary><pre>{listed}</pre></details>"


def listing(title: str, rows: Sequence[str]) -> str:
    """Return lines of text, escaped, under a heading that opens them."""
    return folded(text(title), map(text, rows))
