"""Write a manifest as one HTML page: a bill, the difference, findings, treemap, graph, packages, files.

The page is self-contained: it includes its styles, scripts and data. Its security policy forbids it to load
anything, and to run any script but its own, which the policy names by digest. The same manifests give the
same bytes. `assets` has the page's frame, its styles, and its scripts by topic; without scripts, the bill,
the difference and all tables remain.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING

from pkgjail.review.diff import diff_manifests
from pkgjail.review.graph import graph_view
from pkgjail.review.report.bill import bill
from pkgjail.review.report.changes import difference_section
from pkgjail.review.report.columns import columns
from pkgjail.review.report.sections import (
    dropped_section,
    findings_section,
    packages_section,
    settings_section,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.review.check.findings import Finding
    from pkgjail.review.diff import Difference
    from pkgjail.review.graph import GraphView

SCRIPTS = ("core.js", "squarify.js", "explain.js", "treemap.js", "graph.js", "names.js", "start.js")
"""The page's scripts in their order: each uses only what those before it define."""


def report_page(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    digest: str,
    *,
    against: Manifest | None = None,
    compare: Callable[[str, str], int] | None = None,
    findings: Sequence[Finding] | None = None,
    audit: str = "",
) -> bytes:
    """Return the page of `manifest`, as UTF-8.

    Args:
        manifest: the manifest to review.
        digest: its digest (`pkgjail.manifest.manifest_digest`).
        against: an older manifest; the page then begins with the differences.
        compare: orders versions, see `pkgjail.review.diff.diff_manifests`.
        findings: the findings of a check; None if there was no check, which the page says.
        audit: the section of an audit (`pkgjail.audit.section.audit_section`), as HTML; "" for none.

    """
    difference = None if against is None else diff_manifests(against, manifest, compare=compare)
    graph = graph_view(manifest)
    sections = tuple(_sections(manifest, digest, graph, difference, findings, audit))
    style = _asset("page.css")
    script = "\n".join(
        ['"use strict";', "(() => {", *(_asset(f"scripts/{name}") for name in SCRIPTS), "})();"]
    )
    parts = {
        "TITLE": title(manifest),
        "STYLE": style,
        "STYLE-DIGEST": _source_digest(style),
        "NAVIGATION": " ".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections),
        "BILL": bill(manifest, difference, findings),
        "SECTIONS": "".join(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{heading}</h2>\n'
            f"{body}\n</section>\n"
            for name, heading, body in sections
        ),
        "DATA": _inert(
            json.dumps(columns(manifest, graph, difference), ensure_ascii=True, separators=(",", ":"))
        ),
        "SCRIPT": script,
        "SCRIPT-DIGEST": _source_digest(script),
    }
    return _filled(_asset("page.html"), parts).encode()


def _sections(  # noqa: PLR0913, PLR0917 - the parts of a page
    manifest: Manifest,
    digest: str,
    graph: GraphView,
    difference: Difference | None,
    findings: Sequence[Finding] | None,
    audit: str,
) -> Iterator[tuple[str, str, str]]:
    """Yield each section's name, heading and content; what matters most to a reviewer comes first."""
    if difference is not None:
        yield "difference", "Difference", difference_section(difference)
    yield "findings", "Findings", findings_section(findings, manifest.unmet)
    yield "sizes", "Sizes", _asset("sizes.html")
    yield "graph", "Graph", _asset("graph.html")
    yield "packages", "Packages", packages_section(manifest, graph, difference)
    yield "files", "Files", _asset("files.html")
    yield "dropped", "Dropped", dropped_section(manifest)
    if audit:
        yield "audit", "Audit", audit
    yield "settings", "Settings", settings_section(manifest, digest)


def _filled(template: str, parts: dict[str, str]) -> str:
    """Return a template with its parts. It is split first, so names in the parts are not replaced."""
    split = template.split("@@")
    return "".join(parts[text] if position % 2 else text for position, text in enumerate(split))


def _asset(name: str) -> str:
    return files("pkgjail.review.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _source_digest(text: str) -> str:
    """Return the source of a content security policy that allows this inline text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inert(text: str) -> str:
    """Return JSON that cannot end a script element. It means the same."""
    return text.replace("<", "\\u003c")
