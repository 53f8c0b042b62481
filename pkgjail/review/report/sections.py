"""Write the parts of a page that need no script and can be printed: tables and lists."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.closure.reasons import Chains
from pkgjail.core.text import counted, text_path
from pkgjail.review.graph_formats import size_text
from pkgjail.review.report.tables import SIGNS, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest, Unmet
    from pkgjail.review.check.findings import Finding
    from pkgjail.review.diff import Difference
    from pkgjail.review.graph import GraphView

_OPEN = 30
_MOST_STEPS = 12


def title(manifest: Manifest) -> str:
    """Return the page's title, escaped."""
    return text(", ".join(manifest.header.whitelists) or "manifest")


def settings_section(manifest: Manifest, digest: str) -> str:
    """Return the section with the manifest's settings, its names by origin, and its devices."""
    header = manifest.header
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
    parts = [
        table("The manifest", ("setting", "value"), settings),
        table(
            "Names by origin",
            ("origin", "names"),
            ((o, f"{n:,}") for o, n in sorted(origins.items())),
            kinds="small",
        ),
    ]
    if manifest.devices:
        devices = ((device.pattern, device.rule) for device in manifest.devices)
        parts.append(
            table("Devices that the jail shows if the host has them", ("pattern", "allowed by"), devices)
        )
    return "".join(parts)


def packages_section(manifest: Manifest, graph: GraphView, difference: Difference | None) -> str:
    """Return the section with all packages, the one that costs most first, each with its chain."""
    changes = {} if difference is None else {one.package: one.change for one in difference.packages}
    chains = Chains(manifest.dependencies)
    packages = sorted(
        (node for node in graph.nodes if node.kind == "package"), key=lambda node: (-node.cost, node.name)
    )
    rows = []
    for node in packages:
        sign = f"{SIGNS[changes[node.name]]} {changes[node.name]}" if node.name in changes else ""
        rows.append(
            (
                *((sign,) if changes else ()),
                node.name,
                node.version,
                size_text(node.bytes),
                size_text(node.cost),
                _chain(chains, node.name),
            )
        )
    columns = (*(("change",) if changes else ()), "package", "version", "its files", "leaves with it", "why")
    is_open = " open" if len(rows) <= _OPEN else ""
    return (
        f"<details{is_open}><summary>{counted(len(rows), 'package')}, those that cost most first</summary>"
        f"{table('All packages', columns, rows, kinds='packages')}</details>"
    )


def _chain(chains: Chains, package: str) -> str:
    """Return the shortest chain to a package as a line, without the beginning of a long one."""
    names = [package]
    while len(names) < _MOST_STEPS and (edge := chains.last(names[0])) is not None:
        names.insert(0, edge.source)
    more = chains.last(names[0]) is not None
    return " → ".join(["…", *names] if more else names)


def dropped_section(manifest: Manifest) -> str:
    """Return the section with the number of names that each rule dropped, and that are missing by reason."""
    rules = Counter(dropped.rule for dropped in manifest.dropped)
    reasons = Counter(missing.reason for missing in manifest.missing)
    rows = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    if not rules and not reasons:
        return "<p>Nothing was dropped, and nothing is missing.</p>"
    parts = []
    if rules:
        parts.append(table("Dropped", ("rule", "names"), ((r, f"{n:,}") for r, n in rows), kinds="small"))
    if reasons:
        counts = ((reason, f"{number:,}") for reason, number in sorted(reasons.items()))
        parts.append(table("Missing on the host", ("reason", "names"), counts, kinds="small"))
    return "".join(parts)


def findings_section(findings: Sequence[Finding] | None, unmet: Sequence[Unmet]) -> str:
    """Return the section with the findings of a check, and the requirements that nothing satisfies."""
    if not unmet:
        return _findings(findings)
    rows = ((one.source, f"{one.kind}: {one.text}", one.reason) for one in unmet)
    columns = ("required by", "requirement", "why not")
    return _findings(findings) + table("Requirements that nothing installed satisfies", columns, rows)


def _findings(findings: Sequence[Finding] | None) -> str:
    if findings is None:
        return "<p>The manifest was not checked for this page; 'pkgjail report --check' checks it.</p>"
    if not findings:
        return "<p>The set is closed. 'pkgjail check' also has notes, which are not shown here.</p>"
    rows = ((text_path(each.path), each.cause, each.responsible, each.fix) for each in findings)
    return table(counted(len(findings), "finding"), ("file", "cause", "responsible", "fix"), rows)
