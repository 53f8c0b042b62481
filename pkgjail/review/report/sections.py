"""Write the parts of a page that need no script and can be printed: tables and lists."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from pkgjail.core.text import counted, printable, text_path
from pkgjail.review.graph_formats import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.review.check.findings import Finding
    from pkgjail.review.diff import Difference, FileChange

_MOST_NAMES = 200
_SIGNS = {"added": "+", "removed": "-", "changed": "±"}


def title(manifest: Manifest) -> str:
    """Return the page's title, escaped."""
    return _text(", ".join(manifest.header.whitelists) or "manifest")


def summary_section(manifest: Manifest, digest: str) -> str:
    """Return the section with the manifest's figures and settings."""
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
        + table("Names by origin", ("origin", "names"), ((o, f"{n:,}") for o, n in sorted(origins.items())))
        + (
            table(
                "Devices that the jail shows if the host has them",
                ("pattern", "allowed by"),
                ((device.pattern, device.rule) for device in manifest.devices),
            )
            if manifest.devices
            else ""
        )
        + (
            table(
                "Requirements that nothing installed satisfies",
                ("required by", "requirement", "why not"),
                ((unmet.source, f"{unmet.kind}: {unmet.text}", unmet.reason) for unmet in manifest.unmet),
            )
            if manifest.unmet
            else ""
        )
    )


def dropped_section(manifest: Manifest) -> str:
    """Return the section with the number of names that each rule dropped, and that are missing by reason."""
    rules = Counter(dropped.rule for dropped in manifest.dropped)
    reasons = Counter(missing.reason for missing in manifest.missing)
    rows = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    if not rules and not reasons:
        return "<p>Nothing was dropped, and nothing is missing.</p>"
    return (table("Dropped", ("rule", "names"), ((r, f"{n:,}") for r, n in rows)) if rules else "") + (
        table("Missing on the host", ("reason", "names"), ((r, f"{n:,}") for r, n in sorted(reasons.items())))
        if reasons
        else ""
    )


def findings_section(findings: Sequence[Finding] | None) -> str:
    """Return the section with the findings of a check."""
    if findings is None:
        return "<p>The manifest was not checked for this page.</p>"
    if not findings:
        return "<p>The set is closed: the check found nothing.</p>"
    rows = ((text_path(each.path), each.cause, each.responsible, each.fix) for each in findings)
    return table(counted(len(findings), "finding"), ("file", "cause", "responsible", "fix"), rows)


def difference_section(difference: Difference | None) -> str:
    """Return the section with the changes since the older manifest."""
    if difference is None:
        return "<p>No older manifest was given.</p>"
    if difference.same:
        return "<p>The older manifest is the same.</p>"
    parts = []
    if difference.settings:
        parts.append(table("Settings", ("setting", "old", "new"), difference.settings))
    devices = [("removed", pattern) for pattern in difference.devices_removed]
    devices += [("added", pattern) for pattern in difference.devices_added]
    if devices:
        parts.append(table("Devices", ("change", "pattern"), devices))
    if difference.packages:
        rows = (
            (
                change.package,
                change.change,
                " → ".join(filter(None, (change.old_version, change.new_version))),
                _growth(change.new_bytes - change.old_bytes),
                f"{change.because.source}: {change.because.kind} {change.because.text}"
                if change.because
                else "",
            )
            for change in difference.packages
        )
        parts.append(table("Packages", ("package", "change", "version", "listed bytes", "because"), rows))
    for cause, changes in difference.by_cause():
        parts.append(_names(f"{cause.kind} {cause.detail}".strip(), changes))
    return "".join(parts)


def _names(cause: str, changes: Sequence[FileChange]) -> str:
    """Return the names that differ for one cause, under a heading that opens them."""
    listed = "\n".join(map(_name, changes[:_MOST_NAMES]))
    rest = len(changes) - _MOST_NAMES
    more = f"\nand {rest:,} more; 'pkgjail diff --all' lists them" if rest > 0 else ""
    counts = ", ".join(
        f"{n:,} {word}" for word, n in sorted(Counter(change.change for change in changes).items())
    )
    return f"<details><summary>{_text(cause)}: {counts}</summary><pre>{listed}{more}</pre></details>"


def listing(title: str, rows: Sequence[str]) -> str:
    """Return lines of text, escaped, under a heading that opens them."""
    listed = "\n".join(map(_text, rows))
    return f"<details><summary>{_text(title)}</summary><pre>{listed}</pre></details>"


def _name(change: FileChange) -> str:
    aspects = f" ({', '.join(change.what)})" if change.what else ""
    return f"{_SIGNS[change.change]} {_text(text_path(change.path))}{aspects}"


def _growth(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{size_text(abs(size))}"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts, escaped."""
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table><caption>{_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return escape(printable(text))
