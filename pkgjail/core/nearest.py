"""Names of packages that are like a name that there is not."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LIKENESS = 0.8  # difflib's ratio
_FORMS = ("lib{}-dev", "{}-dev", "{}-devel", "lib{}", "{}-bin", "{}-tools", "python3-{}")
"""What a package of something is called that people name by its project."""


def nearest_names(name: str, names: Collection[str], count: int = 3) -> list[str]:
    """Return the few names that a user may have meant by `name`, the likeliest first.

    First come usual names of the packages of a project (openmpi: libopenmpi-dev), then names that are spelt
    nearly so, then names that contain it.
    """
    found = dict.fromkeys(_candidates(name, names, count))
    found.pop(name, None)
    return list(found)[:count]


def _candidates(name: str, names: Collection[str], count: int) -> Iterator[str]:
    known = set(names)
    yield from (form.format(name) for form in _FORMS if form.format(name) in known)
    # A misspelt name is about as long and mostly begins alike; comparing with all names takes seconds.
    alike = [each for each in names if each[:1] == name[:1] and abs(len(each) - len(name)) <= count]
    yield from get_close_matches(name, alike, n=count, cutoff=_LIKENESS)
    if len(name) > count:
        yield from sorted((each for each in names if name in each), key=lambda each: (len(each), each))


def suggestion(name: str, installed: Collection[str], available: Collection[str]) -> str:
    """Return "; did you mean ...?" with names of packages, or ""; those that are not installed say so."""
    found, known = nearest_names(name, installed), set(installed)
    rest = [] if found else [each for each in available if each not in known]
    others = [f"{each!r} (not installed)" for each in nearest_names(name, rest)]
    words = [*map(repr, found), *others]
    if not words:
        return ""
    *most, last = words
    return f"; did you mean {', '.join(most) + ' or ' if most else ''}{last}?"
