"""Write the bill: the figures at the top of the page, each a link to what it counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.core.text import counted
from pkgjail.review.graph_formats import size_text
from pkgjail.review.report.tables import growth, more_or_fewer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.review.check.findings import Finding
    from pkgjail.review.diff import Difference


def bill(manifest: Manifest, difference: Difference | None, findings: Sequence[Finding] | None) -> str:
    """Return the list of figures as HTML."""
    items = [*_contents(manifest, difference), *_changes(difference), *_faults(manifest, findings)]
    return "".join(
        f'<li><a href="#{target}"{f" class={kind}" if kind else ""}><b>{figure}</b> {label}'
        f"{f' <i>{note}</i>' if note else ''}</a></li>\n"
        for target, figure, label, note, kind in items
    )


def _contents(manifest: Manifest, difference: Difference | None) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield what the jail has: target, figure, label, note, class."""
    total = sum(entry.size or 0 for entry in manifest.files)
    packages, names, size = "", "", ""
    if difference is not None:
        old, new = difference.old, difference.new
        packages = more_or_fewer(new.packages - old.packages)
        names = more_or_fewer(new.names - old.names)
        size = growth(new.bytes - old.bytes)
    yield "packages", f"{len(manifest.packages):,}", "packages", packages, ""
    yield "files", f"{len(manifest.files):,}", "names", names or "files, directories, links", ""
    yield "sizes", size_text(total), "in regular files", size, ""


def _changes(difference: Difference | None) -> Iterator[tuple[str, str, str, str, str]]:
    if difference is None:
        return
    packages = Counter(one.change for one in difference.packages)
    names = Counter(one.change for one in difference.files if not one.is_consequence)
    others = sum(packages.values()) - packages["added"] - packages["removed"]
    figures = (
        ("added", packages["added"], names["added"]),
        ("removed", packages["removed"], names["removed"]),
        ("changed", others, names["changed"]),
    )
    for change, number, files in figures:
        label = f"{'package' if number == 1 else 'packages'} {change}"
        yield "difference", f"{number:,}", label, counted(files, "name"), change if number or files else ""


def _faults(
    manifest: Manifest, findings: Sequence[Finding] | None
) -> Iterator[tuple[str, str, str, str, str]]:
    if findings is None:
        yield "findings", "?", "findings", "not checked", "changed"
    else:
        label = "finding" if len(findings) == 1 else "findings"
        yield (
            "findings",
            f"{len(findings):,}",
            label,
            "" if findings else "closed",
            "removed" if findings else "",
        )
    yield "dropped", f"{len(manifest.dropped):,}", "dropped", "", ""
    if manifest.missing:
        yield "dropped", f"{len(manifest.missing):,}", "missing", "", ""
    if manifest.unmet:
        yield "findings", f"{len(manifest.unmet):,}", "unmet", "requirements", "changed"
