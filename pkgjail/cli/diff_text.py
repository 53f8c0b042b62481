"""A difference between manifests as text for a terminal, and as markdown that fits a comment."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.cli.console import human_size
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.model import Dependency
    from pkgjail.review.diff import Difference, FileChange, PackageChange, Totals

MOST_CHARACTERS = 65_536
"""The most characters of a review comment on GitHub. Bytes of UTF-8 are counted, which are no fewer."""

_SIGNS = {"added": "+", "removed": "-"}
_MOST_SECTIONS = 60
_LONGEST = 300

_HEADINGS = {
    "package": "package",
    "blacklist": "blacklist",
    "whitelist": "whitelist",
    "alternatives": "alternatives",
    "generated": "generated on the host by",
    "configuration": "configuration of",
    "host": "the host alone (drift)",
    "digests": "one manifest has no digests",
    "pkgjail": "pkgjail",
}


def text(difference: Difference, *, most: int | None) -> Iterator[str]:
    """Return the difference as lines, at most `most` of each list."""
    yield f"old: {_totals(difference.old)}"
    yield f"new: {_totals(difference.new)}"
    for title, rows in _lists(difference):
        yield ""
        yield title
        listed = list(rows)
        yield from (f"  {row}" for row in listed[:most])
        if most is not None and len(listed) > most:
            yield f"  and {len(listed) - most:,} more (--all)"


def heading(change: FileChange) -> str:
    """Name the cause of a change."""
    kind, detail = change.cause
    return f"{_HEADINGS[kind]}{':' if kind == 'host' and detail else ''} {detail}".strip()


def _totals(totals: Totals) -> str:
    return (
        f"{counted(totals.packages, 'package')}, {counted(totals.names, 'name')}, "
        f"{human_size(totals.bytes)}; {totals.dropped:,} dropped, {totals.missing:,} missing"
    )


def _lists(difference: Difference) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield each list that is not empty, with its title."""
    if difference.settings:
        yield (
            "settings",
            (f"{name}: {printable(old)!r} -> {printable(new)!r}" for name, old, new in difference.settings),
        )
    devices = [f"- {printable(pattern)}" for pattern in difference.devices_removed]
    devices += [f"+ {printable(pattern)}" for pattern in difference.devices_added]
    if devices:
        yield "devices", devices
    if difference.packages:
        yield f"packages: {_counts(difference.packages)}", map(_package_line, difference.packages)
    for _, changes in difference.by_cause():
        yield f"names: {_counts(changes)} by {printable(heading(changes[0]))}", map(_file_line, changes)
    if difference.rules:
        yield (
            "dropped names by rule",
            (f"{printable(r)}: {old:,} -> {new:,}" for r, old, new in difference.rules),
        )
    edges = [f"- {_edge_line(edge)}" for edge in difference.edges_removed]
    edges += [f"+ {_edge_line(edge)}" for edge in difference.edges_added]
    if edges:
        yield (
            f"dependencies: {len(difference.edges_removed)} removed, {len(difference.edges_added)} added",
            edges,
        )
    unmet = [f"- {printable(one.source)}: {printable(one.text)}" for one in difference.unmet_removed]
    unmet += [f"+ {printable(one.source)}: {printable(one.text)}" for one in difference.unmet_added]
    if unmet:
        yield "unmet requirements", unmet


def _counts(changes: Sequence[PackageChange] | Sequence[FileChange]) -> str:
    """Count changes, as in `2 added, 1 removed`, sorted by word."""
    counted = Counter(change.change for change in changes)
    return ", ".join(f"{count:,} {word}" for word, count in sorted(counted.items()))


def _package_line(change: PackageChange) -> str:
    sign = _SIGNS.get(change.change, "!")
    versions = " -> ".join(dict.fromkeys(filter(None, (change.old_version, change.new_version))))
    line = (
        f"{sign} {change.package} {versions} {change.change}, {_growth(change.old_bytes, change.new_bytes)}"
    )
    edge = change.because
    return line if edge is None else f"{line}; {printable(edge.source)}: {edge.kind} {printable(edge.text)}"


def _growth(old: int, new: int) -> str:
    sign = "-" if new < old else "+"
    return f"{sign}{human_size(abs(new - old))}"


def _file_line(change: FileChange) -> str:
    what = f" ({', '.join(change.what)})" if change.what else ""
    return f"{_SIGNS.get(change.change, '!')} {printable(change.path)}{what}"


def _edge_line(edge: Dependency) -> str:
    return f"{printable(edge.source)}: {edge.kind} {printable(edge.text)} -> {edge.target}"


# --- markdown ---------------------------------------------------------------------------------


class _Section(NamedTuple):
    """A part of the markdown; rows may be cut off at its end."""

    head: str
    rows: list[str]
    tail: str


def markdown(difference: Difference) -> str:
    """Return the difference as markdown of at most `MOST_CHARACTERS` that says what was left out."""
    if difference.same:
        return "The manifests are the same.\n"
    sections = list(_sections(difference))
    left_out = len(sections) - _MOST_SECTIONS
    note = f"\n{left_out} more lists left out.\n" if left_out > 0 else ""
    return "".join(_fitted(sections[:_MOST_SECTIONS], MOST_CHARACTERS - _length(note))) + note


def _sections(difference: Difference) -> Iterator[_Section]:
    yield _Section(
        "| | packages | names | bytes | dropped | missing |\n|---|---:|---:|---:|---:|---:|\n"
        + "".join(
            f"| {name} | {one.packages:,} | {one.names:,} | {human_size(one.bytes)} "
            f"| {one.dropped:,} | {one.missing:,} |\n"
            for name, one in (("old", difference.old), ("new", difference.new))
        ),
        [],
        "",
    )
    for title, rows in _lists(difference):
        name = html.escape(_clipped(title), quote=False)
        is_open = " open" if title.startswith("packages") else ""
        yield _Section(
            f"\n<details{is_open}><summary>{name}</summary>\n\n````diff\n",
            [f"{_clipped(row, 4 * _LONGEST)}\n" for row in rows],
            "````\n</details>\n",
        )


def _clipped(line: str, most: int = _LONGEST) -> str:
    return line if len(line) <= most else f"{line[:most]}…"


def _fitted(sections: Sequence[_Section], budget: int) -> Iterator[str]:
    """Cut each section to the rows that fit; large sections share what small ones do not need."""
    note = "and {:,} more left out\n"
    spare = _length(note.format(10**9))
    fixed = [_length(one.head) + _length(one.tail) + spare for one in sections]
    wanted = [sum(map(_length, one.rows)) for one in sections]
    shares = _shares(wanted, budget - sum(fixed))
    for section, share in zip(sections, shares):
        count, used = 0, 0
        for row in section.rows:
            used += _length(row)
            if used > share:
                break
            count += 1
        rest = len(section.rows) - count
        yield (
            section.head + "".join(section.rows[:count]) + (note.format(rest) if rest else "") + section.tail
        )


def _shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Divide `budget`: each gets at most what it wants, and those that want more get equal shares."""
    shares = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for position, index in enumerate(order):
        shares[index] = min(wanted[index], budget // (len(order) - position))
        budget -= shares[index]
    return shares


def _length(text: str) -> int:
    return len(text.encode())
