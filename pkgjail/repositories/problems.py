"""Conflicts that libsolv found, in its words, each with the lines of whitelists that lead to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

STAND_IN = "pkgjail:"
"""The start of the names of packages that stand for lines of whitelists; no real name has a colon."""

_STAND_IN = re.compile(rf"{STAND_IN}(\d+)-0\.\w+")


def problems_in_words(found: Sequence[Any], origins: Sequence[str]) -> list[Problem]:
    """Return a `Problem` for each of libsolv's; `origins` are the lines of the stand-ins by number."""
    problems = [_problem(one, origins) for one in found]
    return list(dict.fromkeys(sorted(problems)))


def _problem(found: Any, origins: Sequence[str]) -> Problem:
    infos = [info for rule in found.findallproblemrules() for info in rule.allinfos()]
    words = dict.fromkeys(str(info.problemstr()) for info in infos)
    elements = [str(one.str()) for solution in found.solutions() for one in solution.elements()]
    numbers = sorted({int(number) for text in (*elements, *words) for number in _STAND_IN.findall(text)})
    lines = list(dict.fromkeys(origins[number] for number in numbers))
    also = f" (also required by {', '.join(lines[1:])})" if len(lines) > 1 else ""
    message = "; ".join(_STAND_IN.sub(lambda match: origins[int(match[1])], text) for text in words)
    return Problem(lines[0] if lines else "", f"cannot be installed: {message}{also}")
