"""rpm's order of versions, and the overlap of two ranges: rpm-version(7), rpm's rpmio/rpmver.c."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple, cast

LESS, GREATER, EQUAL = 2, 4, 8
"""The bits in flags of requirements and provides that compare versions (RPMSENSE_*)."""

OPERATORS = {"": 0, "<<": LESS, "<=": LESS | EQUAL, "=": EQUAL, ">=": GREATER | EQUAL, ">>": GREATER}
"""The operators of `model.Relation` as such bits."""

# The significant parts of a version; all other characters only separate.
_PARTS = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")
_EVR = re.compile(r"(?:(?P<epoch>[0-9]*):)?(?P<version>.*?)(?:-(?P<release>[^-]*))?", re.DOTALL)


class Version(NamedTuple):
    """`[epoch:]version[-release]`; if there is no release, it is "" and matches any."""

    epoch: str
    version: str
    release: str


@lru_cache(maxsize=8192)
def compare_parts(left: str, right: str) -> int:
    """Compare: negative, 0 or positive if `left` is older, equal or newer (rpmvercmp).

    Runs of digits and of letters are compared one by one: numbers as numbers, letters as bytes, and a
    number is above letters. `~` is below everything, including the end; `^` is above the end and below
    everything else. If all runs are equal, the text with more runs is newer.
    """
    pairs = zip_longest(_PARTS.findall(left), _PARTS.findall(right), fillvalue="")
    orders = (_compare_runs(one, other) for one, other in pairs if one != other)
    return next((order for order in orders if order), 0)


def _compare_runs(left: str, right: str) -> int:
    """Compare two different runs; "" is the end."""
    if _class(left) != _class(right):
        return _class(left) - _class(right)
    if left.isdigit():
        left, right = left.lstrip("0"), right.lstrip("0")
        if len(left) != len(right):
            return len(left) - len(right)
    return (left > right) - (left < right)


def _class(run: str) -> int:
    """Return the rank of a run's class."""
    known = {"~": 0, "": 1, "^": 2}
    return known[run] if run in known else 4 if run.isdigit() else 3


@lru_cache(maxsize=8192)
def split_version(text: str) -> Version:
    """Split `text` as rpm does: an epoch is before the first colon, a release after the last `-`."""
    match = cast("re.Match[str]", _EVR.fullmatch(text))  # it matches any text
    return Version(match["epoch"] or "0", match["version"], match["release"] or "")


def compare(left: str, right: str) -> int:
    """Compare two versions by epoch (none is 0), version, and release if both have one."""
    one, other = split_version(left), split_version(right)
    order = compare_parts(one.epoch, other.epoch) or compare_parts(one.version, other.version)
    if order or not (one.release and other.release):
        return order
    return compare_parts(one.release, other.release)


def overlaps(left: str, left_flags: int, right: str, right_flags: int) -> bool:
    """Return whether two ranges have a version in common. A range without a version has all of them."""
    if not (left_flags & 14 and right_flags & 14 and left and right):
        return True
    order = compare(left, right)
    if order:
        lower, upper = (left_flags, right_flags) if order < 0 else (right_flags, left_flags)
        return bool(lower & GREATER or upper & LESS)
    one, other = split_version(left).release, split_version(right).release
    if bool(one) != bool(other) and (right_flags if one else left_flags) & EQUAL:
        return True
    return bool(left_flags & right_flags & 14)
