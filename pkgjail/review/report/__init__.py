"""Write a manifest as one HTML page: summary, treemap, graph, files, dropped names, findings, differences.

The page is self-contained: it includes its styles, scripts, libraries and data, and its security policy
forbids it to load anything. The same manifests give the same bytes. `assets` has its parts, and the licences
of the libraries (Cytoscape.js with its dagre layout for the graph, d3-hierarchy for the treemap), which the
page includes too.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING

from pkgjail.review.diff import diff_manifests
from pkgjail.review.report.columns import columns
from pkgjail.review.report.sections import (
    difference_section,
    dropped_section,
    findings_section,
    summary_section,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.review.check.findings import Finding

LIBRARIES = ("d3-hierarchy.min.js", "cytoscape.min.js", "cytoscape-dagre.min.js")
_LICENCES = ("cytoscape.txt", "cytoscape-dagre.txt", "dagre.txt", "graphlib.txt", "d3-hierarchy.txt")
_SOURCE_MAP = "//# sourceMappingURL="


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
        against: an older manifest; the page then lists the differences.
        compare: orders versions, see `pkgjail.review.diff.diff_manifests`.
        findings: the findings of a check; None if there was no check, which the page says.
        audit: the section of an audit (`pkgjail.audit.section.audit_section`), as HTML; "" for none.

    """
    difference = None if against is None else diff_manifests(against, manifest, compare=compare)
    parts = {
        "TITLE": title(manifest),
        "STYLE": _asset("page.css"),
        "SUMMARY": summary_section(manifest, digest),
        "FINDINGS": findings_section(findings),
        "DIFFERENCE": difference_section(difference),
        "DROPPED": dropped_section(manifest),
        "AUDIT": audit or "<p>No audit was given.</p>",
        "DATA": _inert(json.dumps(columns(manifest), ensure_ascii=True, separators=(",", ":"))),
        "LICENCES": _inert("\n\n".join(f"{name[:-4]}:\n{_asset('licences/' + name)}" for name in _LICENCES)),
        "SCRIPTS": "".join(map(_script, (*LIBRARIES, "page.js"))),
    }
    # Split into text, name, text, …: names in the parts themselves are not replaced.
    template = _asset("page.html").split("@@")
    return "".join(parts[text] if position % 2 else text for position, text in enumerate(template)).encode()


def _asset(name: str) -> str:
    return files("pkgjail.review.report").joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """Return a script element, without the comment that makes a browser's tools request a source map."""
    lines = _asset(name).splitlines()
    return "\n".join(
        ["<script>", *(line for line in lines if not line.startswith(_SOURCE_MAP)), "</script>\n"]
    )


def _inert(text: str) -> str:
    """Return text that cannot end a script element of data. In JSON it means the same string."""
    return text.replace("<", "\\u003c")
