"""Text in the cells of a terminal, of which some characters need two and others none."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

_CUT = "…"


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return a printable text in exactly `width` cells: filled with blanks, or cut at its end."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + _CUT if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def fit_end(text: str, width: int) -> str:
    """Return a printable text in exactly `width` cells, cut at its beginning: for paths."""
    if cell_len(text) <= width:
        return fit(text, width)
    while text and cell_len(text) >= width:
        text = text[max(1, (cell_len(text) - width) // 2) :]
    return fit(_CUT + text, width)


def bar(part: int, whole: int, width: int) -> str:
    """Return a bar of `width` cells, filled by the share that `part` is of `whole`."""
    filled = round((width - 2) * part / whole) if whole else 0
    return f"[{'#' * filled}{' ' * (width - 2 - filled)}]"
