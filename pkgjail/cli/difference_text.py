"""Differences between builds in words and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkgjail.core.text import first_of, printable, text_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.audit.differences import Comparison, Difference, DifferenceKind

_NOTHING = "nothing"
_WORDS: dict[DifferenceKind, str] = {
    "needed": "needs {name}: {change}",
    "soname": "its name as a library: {change}",
    "runpath": "directories of libraries: {change}",
    "define": "{change}",
    "test": "{name}: {change}",
    "cmake": "{name}: {change}",
    "meson": "{name}: {change}",
    "variable": "{name}: {change}",
    "name": "{change}",
    "kind": "{change}",
    "target": "link: {change}",
    "mode": "mode: {change}",
    "bytes": "content: {change}",
}


def difference_lines(comparison: Comparison, most: int) -> list[str]:
    """Return the first differences as lines, and one with the number of the others."""
    lines = [_line(each) for each in comparison.differences]
    hidden = max(0, len(lines) - most) + comparison.more
    return [*lines[:most], *([f"and {hidden:,} more"] if hidden else ())]


def _line(each: Difference) -> str:
    if each.kind == "status":
        return f"exit status: {each.old} -> {each.new}"
    if each.kind == "needed":
        change = "no longer" if each.old else "now"
    else:
        change = f"{each.old or _NOTHING} -> {each.new or _NOTHING}"
    return printable(f"{text_path(each.file)}: {_WORDS[each.kind].format(name=each.name, change=change)}")


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it."""
    return {
        "differences": [
            {
                "kind": each.kind,
                "file": text_path(each.file),
                "name": each.name,
                "old": each.old,
                "new": each.new,
            }
            for each in comparison.differences
        ],
        "more": comparison.more,
    }


def paths_text(paths: Sequence[bytes], most: int) -> str:
    """Return the first of some paths, and how many others there are."""
    return ", ".join(first_of(list(map(printable, paths)), most))
