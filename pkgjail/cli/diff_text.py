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
    """Return the difference as lines: the changes, their consequences, the totals.

    Args:
        difference: what to write.
        most: the most rows of each list, with consequences only counted; None for every row of everything.

    """
    for title, rows in _changes(difference):
        yield title
        listed = list(rows)
        yield from (f"  {row}" for row in listed[:most])
        if most is not None and len(listed) > most:
            yield f"  and {len(listed) - most:,} more (--all)"
        yield ""
    consequences = [(title, list(rows)) for title, rows in _consequences(difference)]
    if consequences:
        yield "consequences" if most is None else "consequences (--all lists them)"
        for title, listed in consequences:
            yield f"  {title}"
            yield from (f"    {row}" for row in listed if most is None)
        yield ""
    yield f"old: {_totals(difference.old)}"
    yield f"new: {_totals(difference.new)}"


def heading(change: FileChange) -> str:
    """Name the cause of a change."""
    kind, detail = change.cause
    return f"{_HEADINGS[kind]}{':' if kind == 'host' and detail else ''} {detail}".strip()


def _totals(totals: Totals) -> str:
    return (
        f"{counted(totals.packages, 'package')}, {counted(totals.names, 'name')}, "
        f"{human_size(totals.bytes)}; {totals.dropped:,} dropped, {totals.missing:,} missing"
    )


def _changes(difference: Difference) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield each list of changes that is not empty, with its title: packages first."""
    for packages in (difference.came_and_went(), difference.other_versions()):
        if packages:
            yield f"packages: {_counts(packages)}", map(_package_line, packages)
    devices = [f"- {printable(pattern)}" for pattern in difference.devices_removed]
    devices += [f"+ {printable(pattern)}" for pattern in difference.devices_added]
    if devices:
        yield "devices", devices
    for _, group in difference.by_cause():
        changes = [change for change in group if not change.is_consequence]
        if changes:
            yield f"names: {_counts(changes)} by {printable(heading(changes[0]))}", map(_file_line, changes)
    unmet = [f"- {printable(one.source)}: {printable(one.text)}" for one in difference.unmet_removed]
    unmet += [f"+ {printable(one.source)}: {printable(one.text)}" for one in difference.unmet_added]
    if unmet:
        yield "unmet requirements", unmet
    removed = difference.own_edges(difference.edges_removed)
    added = difference.own_edges(difference.edges_added)
    if removed or added:
        yield _edges_title(removed, added), _edge_lines(removed, added)
    settings = [setting for setting in difference.settings if setting[0] != "policy"]
    if settings:
        yield "settings", map(_setting_line, settings)


def _consequences(difference: Difference) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield each list of what follows from other changes, with its title and count."""
    for _, group in difference.by_cause():
        changes = [change for change in group if change.is_consequence]
        if changes:
            title = f"names with other owners: {len(changes):,} by {printable(heading(changes[0]))}"
            yield title, map(_file_line, changes)
    own = {*difference.own_edges((*difference.edges_removed, *difference.edges_added))}
    moved = [
        [edge for edge in edges if edge not in own]
        for edges in (difference.edges_removed, difference.edges_added)
    ]
    if any(moved):
        yield _edges_title(*moved), _edge_lines(*moved)
    if difference.rules:
        before, after = difference.old.dropped, difference.new.dropped
        yield (
            f"dropped names: {before:,} -> {after:,}, by {counted(len(difference.rules), 'rule')}",
            (f"{printable(r)}: {old:,} -> {new:,}" for r, old, new in difference.rules),
        )
    policy = [setting for setting in difference.settings if setting[0] == "policy"]
    if policy:
        yield "the policy's digest", map(_setting_line, policy)


def _setting_line(setting: tuple[str, str, str]) -> str:
    name, old, new = setting
    return f"{name}: {printable(old)!r} -> {printable(new)!r}"


def _edges_title(removed: Sequence[Dependency], added: Sequence[Dependency]) -> str:
    return f"dependencies: {len(removed):,} removed, {len(added):,} added"


def _edge_lines(removed: Sequence[Dependency], added: Sequence[Dependency]) -> list[str]:
    return [f"- {_edge_line(edge)}" for edge in removed] + [f"+ {_edge_line(edge)}" for edge in added]


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
    return f"{sign}{human_size(abs(new - old))}" if new != old else "same size"


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
    for title, rows in (*_changes(difference), *_consequences(difference)):
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
