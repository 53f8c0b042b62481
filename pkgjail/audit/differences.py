"""Differences between what two builds put out, the most telling first, without what differs each time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from pkgjail.audit.facts import LOGS
from pkgjail.core.model import record
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.audit.outputs import OutputFile, Outputs

DifferenceKind = Literal[
    "status",
    "needed",
    "soname",
    "runpath",
    "define",
    "test",
    "cmake",
    "meson",
    "variable",
    "name",
    "kind",
    "target",
    "mode",
    "bytes",
]
"""What differs, the most telling first: the exit status, a fact (`pkgjail.audit.facts`), a name that only one
of the builds made, a file's kind, a link's text, a file's mode, its bytes."""

_RANK = {kind: number for number, kind in enumerate(get_args(DifferenceKind))}
_MOST = 1000
_ALTERED = re.compile(rb"[0-9A-Za-z]")
_SUFFIX = re.compile(rb"[0-9A-Za-z]{1,4}")  # .o, .html


class Difference(NamedTuple):
    """One difference: `name` is that of the fact; `old` and `new` are the values, "" for what is not there.

    A regular file's value is its size, and for "bytes" the beginning of its digest.
    """

    kind: DifferenceKind
    file: bytes
    name: str
    old: str
    new: str


@record
class Noise:
    """What differs between two runs of the same build: facts by kind, file and name, and shapes of names.

    A shape (`shape_of`) is that of temporary names.
    """

    facts: frozenset[tuple[DifferenceKind, bytes, str]] = frozenset()
    shapes: frozenset[bytes] = frozenset()

    def has(self, difference: Difference) -> bool:
        """Return whether a difference is noise."""
        if (difference.kind, difference.file, difference.name) in self.facts:
            return True
        return difference.kind == "name" and shape_of(difference.file) in self.shapes


@record
class Comparison:
    """The differences between two builds: the most telling ones, and how many there are besides."""

    differences: tuple[Difference, ...]
    more: int = 0

    @property
    def is_same(self) -> bool:
        """Return whether nothing differs."""
        return not self.differences


NO_NOISE = Noise()


def compare(old: Outputs, new: Outputs, noise: Noise = NO_NOISE) -> Comparison:
    """Return what differs between two builds and is no noise, the most telling first, at most a thousand."""
    found = sorted(
        (each for each in _differences(old, new) if not noise.has(each)),
        key=lambda each: (_RANK[each.kind], each),
    )
    return Comparison(differences=tuple(found[:_MOST]), more=max(0, len(found) - _MOST))


def find_noise(one: Outputs, other: Outputs) -> Noise:
    """Return what differs between two runs of the same build.

    If each run made a name that the other did not, and both have the same shape, all names of the shape are
    noise.
    """
    found = list(_differences(one, other))
    gone = {shape_of(each.file) for each in found if each.kind == "name" and each.old}
    come = {shape_of(each.file) for each in found if each.kind == "name" and each.new}
    facts: set[tuple[DifferenceKind, bytes, str]] = {(each.kind, each.file, each.name) for each in found}
    return Noise(facts=frozenset(facts), shapes=frozenset(gone & come))


def shape_of(path: bytes) -> bytes:
    """Return a path with an x for each letter and digit, except in a suffix of at most four."""
    stem, dot, suffix = path.rpartition(b".")
    if not dot or not _SUFFIX.fullmatch(suffix):
        return _ALTERED.sub(b"x", path)
    return _ALTERED.sub(b"x", stem) + dot + suffix


def _differences(old: Outputs, new: Outputs) -> Iterator[Difference]:
    if old.status != new.status:
        yield Difference("status", b"", "", str(old.status), str(new.status))
    for path in old.files.keys() | new.files.keys():
        before, after = old.files.get(path), new.files.get(path)
        if before is None or after is None:
            yield Difference("name", path, "", before.kind if before else "", after.kind if after else "")
        elif before != after:
            yield from _in_file(path, before, after)


def _in_file(path: bytes, old: OutputFile, new: OutputFile) -> Iterator[Difference]:
    """Yield the differences of one file; of a log, only those of its facts."""
    if old.kind != new.kind:
        yield Difference("kind", path, "", old.kind, new.kind)
        return
    for fact in old.facts.keys() | new.facts.keys():
        before, after = old.facts.get(fact, ""), new.facts.get(fact, "")
        if before != after:
            yield Difference(fact[0], path, fact[1], before, after)
    if old.target != new.target:
        yield Difference("target", path, "", text_path(old.target), text_path(new.target))
    if old.mode != new.mode:
        yield Difference("mode", path, "", f"{old.mode:04o}", f"{new.mode:04o}")
    if old.sha256 != new.sha256 and not LOGS.fullmatch(path):
        yield Difference("bytes", path, "", _content(old), _content(new))


def _content(file: OutputFile) -> str:
    return f"{file.size} bytes, {file.sha256[:16]}"
