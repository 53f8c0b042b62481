"""pacman's order of versions: vercmp(8), libalpm's lib/libalpm/version.c."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, cast

from pkgjail.core.text import raw_path

_SEPARATOR = re.compile(r"[^0-9A-Za-z]*")
_RUN = re.compile(r"[0-9]+|[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_VERSION = re.compile(
    r"(?:(?P<epoch>[0-9]*):)?(?P<version>.*?)(?:-(?P<release>[^-]*))?", re.DOTALL
)  # fmt: skip


class Version(NamedTuple):
    """`[epoch:]version[-release]`; if there is no release, it is None and matches any."""

    epoch: str
    version: str
    release: str | None


@lru_cache(maxsize=8192)
def compare_parts(left: str, right: str) -> int:
    """Compare: negative, 0 or positive if `left` is older, equal or newer.

    Runs of digits and of letters are compared one by one: numbers as numbers, letters as bytes, and a
    number is above letters. If the separators before two runs differ in length, the shorter is older. At
    the end of one text, remaining letters of the other are older than nothing, anything else is newer.
    """
    left, right = (raw_path(one).decode("latin-1") for one in (left, right))
    at, to = 0, 0
    while at < len(left) and to < len(right):
        before, until = _end(left, at), _end(right, to)
        if before == len(left) or until == len(right):
            at, to = before, until
            break
        if before - at != until - to:
            return (before - at) - (until - to)
        one, other = _run(left, before), _run(right, until)
        order = _compare_runs(one, other)
        if order:
            return order
        at, to = before + len(one), until + len(other)
    return _compare_rests(left[at:], right[to:])


def _end(text: str, start: int) -> int:
    return cast("re.Match[str]", _SEPARATOR.match(text, start)).end()


def _run(text: str, start: int) -> str:
    return cast("re.Match[str]", _RUN.match(text, start))[0]


def _compare_runs(left: str, right: str) -> int:
    if left.isdigit() != right.isdigit():
        return 1 if left.isdigit() else -1
    if left.isdigit():
        left, right = left.lstrip("0"), right.lstrip("0")
        if len(left) != len(right):
            return len(left) - len(right)
    return (left > right) - (left < right)


def _compare_rests(left: str, right: str) -> int:
    if not left and not right:
        return 0
    if _LETTER.match(left) or (not left and not _LETTER.match(right)):
        return -1
    return 1


@lru_cache(maxsize=8192)
def split_version(text: str) -> Version:
    """Split `text` as pacman does: an epoch is before the first colon, a release after the last `-`."""
    match = cast("re.Match[str]", _VERSION.fullmatch(text))  # it matches any text
    return Version(match["epoch"] or "0", match["version"], match["release"])


def compare(left: str, right: str) -> int:
    """Compare two versions by epoch (none is 0), version, and release if both have one."""
    one, other = split_version(left), split_version(right)
    order = compare_parts(one.epoch, other.epoch) or compare_parts(one.version, other.version)
    if order or one.release is None or other.release is None:
        return order
    return compare_parts(one.release, other.release)


def satisfies(version: str, operator: str, required: str) -> bool:
    """Return whether `version` satisfies the requirement of `operator` and `required`."""
    order = compare(version, required)
    return {"<<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">>": order > 0}[operator]
