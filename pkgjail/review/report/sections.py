"""The parts of a page that need no script: tables and lists, also for print."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from pkgjail.core.model import text_path
from pkgjail.core.text import counted, printable
from pkgjail.review.graph_formats import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.review.check.findings import Finding
    from pkgjail.review.diff import Difference, FileChange

_MOST_NAMES = 200
_SIGNS = {"added": "+", "removed": "-", "changed": "±"}


def title(manifest: Manifest) -> str:
    """What the page is about, escaped."""
    return _text(", ".join(manifest.header.whitelists) or "manifest")


def summary_section(manifest: Manifest, digest: str) -> str:
    """The manifest's figures and settings."""
    header = manifest.header
    figures = (
        ("packages", f"{len(manifest.packages):,}"),
        ("names", f"{len(manifest.files):,}"),
        ("regular files", size_text(sum(entry.size or 0 for entry in manifest.files))),
        ("dropped", f"{len(manifest.dropped):,}"),
        ("missing", f"{len(manifest.missing):,}"),
        ("unmet", f"{len(manifest.unmet):,}"),
    )
    settings = (
        ("distribution", f"{header.distribution.id} {header.distribution.version} {header.architecture}"),
        ("whitelists", ", ".join(header.whitelists) or "none"),
        ("blacklists", ", ".join(header.blacklists) or "none"),
        ("recommended packages", "yes" if header.recommends else "no"),
        ("essential packages", "yes" if header.essential else "no"),
        ("digest", digest),
        ("policy", header.policy),
    )
    origins = Counter(entry.origin for entry in manifest.files)
    return (
        '<ul class="figures">'
        + "".join(f"<li><b>{value}</b> {name}</li>" for name, value in figures)
        + "</ul>"
        + table("The manifest", ("setting", "value"), settings)
        + table("How names come", ("origin", "names"), ((o, f"{n:,}") for o, n in sorted(origins.items())))
        + (
            table(
                "Requirements that nothing installed satisfies",
                ("who asks", "what", "why not"),
                ((one.source, f"{one.kind}: {one.text}", one.reason) for one in manifest.unmet),
            )
            if manifest.unmet
            else ""
        )
    )


def dropped_section(manifest: Manifest) -> str:
    """How many names each rule dropped, and how many are missing for each reason."""
    rules = Counter(one.rule for one in manifest.dropped)
    reasons = Counter(one.reason for one in manifest.missing)
    rows = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    if not rules and not reasons:
        return "<p>Nothing was dropped, and nothing is missing.</p>"
    return (table("Dropped", ("rule", "names"), ((r, f"{n:,}") for r, n in rows)) if rules else "") + (
        table("Missing on the host", ("reason", "names"), ((r, f"{n:,}") for r, n in sorted(reasons.items())))
        if reasons
        else ""
    )


def findings_section(findings: Sequence[Finding] | None) -> str:
    """What a check found."""
    if findings is None:
        return "<p>This manifest was not checked for this page.</p>"
    if not findings:
        return "<p>The set is closed: the check found nothing.</p>"
    rows = ((text_path(one.path), one.cause, one.responsible, one.fix) for one in findings)
    return table(counted(len(findings), "finding"), ("file", "cause", "responsible", "fix"), rows)


def difference_section(difference: Difference | None) -> str:
    """What changed since the older manifest."""
    if difference is None:
        return "<p>No older manifest was given.</p>"
    if difference.same:
        return "<p>The older manifest is the same.</p>"
    parts = []
    if difference.settings:
        parts.append(table("Settings", ("setting", "old", "new"), difference.settings))
    if difference.packages:
        rows = (
            (
                one.package,
                one.change,
                " → ".join(filter(None, (one.old_version, one.new_version))),
                _growth(one.new_bytes - one.old_bytes),
                f"{one.because.source}: {one.because.kind} {one.because.text}" if one.because else "",
            )
            for one in difference.packages
        )
        parts.append(table("Packages", ("package", "change", "version", "listed bytes", "because"), rows))
    for cause, changes in difference.by_cause():
        parts.append(_names(f"{cause.kind} {cause.detail}".strip(), changes))
    return "".join(parts)


def _names(cause: str, changes: Sequence[FileChange]) -> str:
    """The names that differ for one cause, behind a line that opens."""
    listed = "\n".join(map(_name, changes[:_MOST_NAMES]))
    rest = len(changes) - _MOST_NAMES
    more = f"\nand {rest:,} more; 'pkgjail diff --all' has them" if rest > 0 else ""
    counts = ", ".join(f"{n:,} {word}" for word, n in sorted(Counter(one.change for one in changes).items()))
    return f"<details><summary>{_text(cause)}: {counts}</summary><pre>{listed}{more}</pre></details>"


def _name(change: FileChange) -> str:
    what = f" ({', '.join(change.what)})" if change.what else ""
    return f"{_SIGNS[change.change]} {_text(text_path(change.path))}{what}"


def _growth(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{size_text(abs(size))}"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; escapes them."""
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table><caption>{_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return escape(printable(text))
