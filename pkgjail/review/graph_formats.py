"""Formats of a graph view: DOT, Mermaid, GraphML, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pkgjail.closure.graph import empty_graph, graphml
from pkgjail.core.text import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.review.graph import GraphView, Node

_THOUSAND = 1000
_SHAPES = {"rule": "note", "essential": "diamond", "package": "box"}


def dot(view: GraphView) -> str:
    """Return the graph in graphviz's DOT language; a node's shade shows its cost."""
    most = max((node.cost for node in view.nodes), default=0) or 1
    lines = [
        "digraph closure {",
        "  rankdir=LR;",
        '  node [style=filled, fontname="sans-serif", fontsize=10];',
    ]
    for node in view.nodes:
        shade = 100 - round(45 * node.cost / most)
        lines.append(
            f"  {_quoted(node.name)} [label={_quoted(*_label(node))}, shape={_SHAPES[node.kind]}, "
            f'fillcolor="0.58 {(100 - shade) / 100:.2f} 1.00"];'
        )
    for edge in view.edges:
        style = "" if edge.kind != "Recommends" else ", style=dashed"
        tip = _quoted(f"{edge.kind}: {edge.text}")
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [tooltip={tip}{style}];")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(view: GraphView) -> str:
    """Return the graph as a Mermaid flowchart; nodes are named by numbers."""
    numbers = {node.name: f"n{number}" for number, node in enumerate(view.nodes)}
    lines = ["flowchart LR"]
    for node in view.nodes:
        left, right = {"rule": ("[/", "/]"), "essential": ("{{", "}}")}.get(node.kind, ("[", "]"))
        lines.append(f'  {numbers[node.name]}{left}"{_entities(*_label(node))}"{right}')
    for edge in view.edges:
        arrow = "-.->" if edge.kind == "Recommends" else "-->"
        lines.append(f"  {numbers[edge.source]} {arrow} {numbers[edge.target]}")
    return "\n".join(lines) + "\n"


def as_graphml(view: GraphView) -> str:
    """Return the graph as GraphML, with every field of its nodes and edges.

    Texts are escaped (`pkgjail.core.text.escaped`), because XML 1.0 cannot express control characters.
    """
    graph = empty_graph()
    for node in view.nodes:
        fields = {"kind": node.kind, "version": node.version, "bytes": node.bytes, "cost": node.cost}
        texts = {name: escape(value) if isinstance(value, str) else value for name, value in fields.items()}
        graph.add_node(escape(node.name), **texts, members=_words(node.members))
    for edge in view.edges:
        graph.add_edge(escape(edge.source), escape(edge.target), kind=edge.kind, text=escape(edge.text))
    return graphml(graph)


def _words(members: Iterable[str]) -> str:
    """Join texts by spaces; a space within a text is escaped."""
    return " ".join(escape(member).replace(" ", "\\x20") for member in members)


def as_json(view: GraphView) -> str:
    """Return the graph as JSON, with every field of its nodes and edges."""
    nodes = [
        {
            "name": node.name,
            "kind": node.kind,
            "version": node.version,
            "members": list(node.members),
            "bytes": node.bytes,
            "cost": node.cost,
        }
        for node in view.nodes
    ]
    edges = [
        {"source": edge.source, "target": edge.target, "field": edge.kind, "text": edge.text}
        for edge in view.edges
    ]
    return json.dumps({"nodes": nodes, "edges": edges}, indent=2) + "\n"


def _label(node: Node) -> tuple[str, str]:
    """Return two lines: what the node is, and what it costs."""
    return " ".join(filter(None, (node.name, node.version))), size_text(node.cost)


def size_text(size: float) -> str:
    """Format a size in bytes, in powers of 1000, with one decimal."""
    if size < _THOUSAND:
        return f"{size:,} bytes"
    for unit in ("kB", "MB"):
        size /= _THOUSAND
        if size < _THOUSAND:
            return f"{size:.1f} {unit}"
    return f"{size / _THOUSAND:,.1f} GB"


def _quoted(*lines: str) -> str:
    r"""Return a DOT string. DOT escapes only `"`; a backslash is doubled, because it has a meaning in labels.

    Graphviz also reads HTML entities in it.
    """
    written = [escape(line).replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;") for line in lines]
    return '"' + "\\n".join(written) + '"'


def _entities(*lines: str) -> str:
    """Return a Mermaid label; its entities are those of HTML with `#` for `&`."""
    return "<br/>".join(
        "".join(c if c.isalnum() or c in " .,:+~-_/()" else f"#{ord(c)};" for c in escape(line))
        for line in lines
    )
