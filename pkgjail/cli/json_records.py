"""JSON records that several verbs print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.core.model import Dependency


def edge_facts(edge: Dependency) -> dict[str, str]:
    """Return an edge of the closure as JSON, in the manifest's own words."""
    return {"source": edge.source, "target": edge.target, "field": edge.kind, "text": edge.text}
