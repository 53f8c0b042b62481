"""Write the difference to an older manifest: packages first, then names by cause, then consequences."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.core.text import counted, text_path
from pkgjail.review.graph_formats import size_text
from pkgjail.review.report.tables import SIGNS, folded, growth, more_or_fewer, table, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.model import Dependency
    from pkgjail.review.diff import Difference, FileChange, PackageChange

_MOST_NAMES = 200
_MOST_PACKAGES = 25
_OPEN = 12
_PACKAGE_COLUMNS = ("change", "package", "version", "listed bytes", "because")
_FEW_GROUPS = 3


def difference_section(difference: Difference) -> str:
    """Return the section with the changes since the older manifest."""
    if difference.same:
        return "<p>The older manifest is the same.</p>"
    return "".join((*_changes(difference), *_consequences(difference)))


def _changes(difference: Difference) -> Iterator[str]:
    moved, others = difference.came_and_went(), difference.other_versions()
    if moved:
        yield _packages(f"Packages added or removed: {_counts(moved)}", moved)
    if others:
        yield _packages(f"Other versions: {_counts(others)}", others)
    if not difference.packages:
        yield "<p>The packages and their versions are the same.</p>"
    yield _totals(difference)
    devices = [("- removed", pattern) for pattern in difference.devices_removed]
    devices += [("+ added", pattern) for pattern in difference.devices_added]
    if devices:
        yield table("Devices", ("change", "pattern"), devices)
    yield from _groups(difference, consequences=False)
    unmet = [("- removed", one.source, one.text) for one in difference.unmet_removed]
    unmet += [("+ added", one.source, one.text) for one in difference.unmet_added]
    if unmet:
        yield table("Unmet requirements", ("change", "required by", "requirement"), unmet)
    removed = difference.own_edges(difference.edges_removed)
    added = difference.own_edges(difference.edges_added)
    if removed or added:
        yield _edges("Requirements of packages that both manifests have", removed, added)
    settings = [setting for setting in difference.settings if setting[0] != "policy"]
    if settings:
        yield table("Settings", ("setting", "old", "new"), settings)


def _totals(difference: Difference) -> str:
    old, new = difference.old, difference.new
    counts = (
        ("packages", old.packages, new.packages),
        ("names", old.names, new.names),
        ("dropped", old.dropped, new.dropped),
        ("missing", old.missing, new.missing),
    )
    rows = [(name, f"{a:,}", f"{b:,}", more_or_fewer(b - a)) for name, a, b in counts]
    sizes = ("regular files", size_text(old.bytes), size_text(new.bytes), growth(new.bytes - old.bytes))
    return table("Totals", ("what", "old", "new", "change"), [*rows[:2], sizes, *rows[2:]], kinds="small")


def _consequences(difference: Difference) -> Iterator[str]:
    """Yield what follows from the changes above, closed."""
    parts = list(_groups(difference, consequences=True))
    own = {*difference.own_edges((*difference.edges_removed, *difference.edges_added))}
    removed = [edge for edge in difference.edges_removed if edge not in own]
    added = [edge for edge in difference.edges_added if edge not in own]
    if removed or added:
        parts.append(_edges("Requirements of added and removed packages", removed, added))
    if difference.rules:
        rows = (
            f"{text(rule)}: {old:,} → {new:,} ({more_or_fewer(new - old)})"
            for rule, old, new in difference.rules
        )
        parts.append(folded(f"Dropped names, by {counted(len(difference.rules), 'rule')}", rows))
    policy = [f"{text(old)}\n{text(new)}" for name, old, new in difference.settings if name == "policy"]
    if policy:
        parts.append(folded("The policy's digest", policy))
    if parts:
        yield f"<h3>Consequences</h3>{''.join(parts)}"


def _packages(caption: str, changes: Sequence[PackageChange]) -> str:
    """Return a table of packages, of which those after the first few are folded."""
    first, rest = changes[:_MOST_PACKAGES], changes[_MOST_PACKAGES:]
    shown = table(caption, _PACKAGE_COLUMNS, map(_package, first), kinds="changes")
    if not rest:
        return shown
    others = table(f"{caption}, the others", _PACKAGE_COLUMNS, map(_package, rest), kinds="changes")
    return f"{shown}<details><summary>and {len(rest):,} more</summary>{others}</details>"


def _package(change: PackageChange) -> tuple[str, ...]:
    versions = dict.fromkeys(filter(None, (change.old_version, change.new_version)))
    edge = change.because
    return (
        f"{SIGNS[change.change]} {change.change}",
        change.package,
        " → ".join(versions),
        growth(change.new_bytes - change.old_bytes),
        f"{edge.source}: {edge.kind} {edge.text}" if edge else "",
    )


def _groups(difference: Difference, *, consequences: bool) -> Iterator[str]:
    """Yield the names that differ for each cause, under a heading that opens them."""
    groups = [
        (cause, changes)
        for cause, group in difference.by_cause()
        if (changes := [change for change in group if change.is_consequence == consequences])
    ]
    for cause, changes in groups:
        rest = len(changes) - _MOST_NAMES
        lines = list(map(_name, changes[:_MOST_NAMES]))
        if rest > 0:
            lines.append(f"and {rest:,} more; 'pkgjail diff --all' lists them")
        counts = f"{len(changes):,} with other owners" if consequences else _counts(changes)
        heading = f"{text(f'{cause.kind} {cause.detail}'.strip())}: {counts}"
        is_open = not consequences and len(groups) <= _FEW_GROUPS and len(changes) <= _OPEN
        yield folded(heading, lines, is_open=is_open)


def _counts(changes: Sequence[PackageChange] | Sequence[FileChange]) -> str:
    counts = Counter(change.change for change in changes)
    return ", ".join(f"{number:,} {word}" for word, number in sorted(counts.items()))


def _name(change: FileChange) -> str:
    aspects = f" ({', '.join(change.what)})" if change.what else ""
    size = change.new_bytes - change.old_bytes
    grown = f" {growth(size)}" if size else ""
    return (
        f'<span class="{change.change}">{SIGNS[change.change]} {text(text_path(change.path))}{aspects}'
        f"{grown}</span>"
    )


def _edges(title: str, removed: Iterable[Dependency], added: Iterable[Dependency]) -> str:
    edges = [("removed", edge) for edge in removed] + [("added", edge) for edge in added]
    rows = (
        f'<span class="{change}">{SIGNS[change]} '
        f"{text(f'{edge.source}: {edge.kind} {edge.text} → {edge.target}')}</span>"
        for change, edge in edges
    )
    return folded(f"{text(title)}: {len(edges):,}", rows)
