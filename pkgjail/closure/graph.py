"""The closure as a directed graph, and questions to networkx about it.

Importing networkx takes 0.1 s, and only the views of a graph need it. So each function imports it when
called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.closure.reasons import ESSENTIAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import networkx as nx

    from pkgjail.core.model import Closure, Manifest

    Graph = nx.DiGraph[str]


def closure_graph(closure: Closure | Manifest) -> nx.DiGraph[str]:
    """Return a closure, or that of a manifest, as a directed graph from sources to targets.

    The nodes are the keys of packages, the origins of rules, and "essential"; the `kind` of a node is
    "package", "rule" or "essential". An edge has the `kind` and `text` of its requirement. If a package
    requires another several times (Depends and Pre-Depends), the edge is the first in the order of
    `closure.dependencies`, which has all of them.
    """
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from((package.key for package in closure.packages), kind="package")
    for edge in closure.dependencies:
        if edge.source not in graph:
            graph.add_node(edge.source, kind=ESSENTIAL if edge.source == ESSENTIAL else "rule")
        if not graph.has_edge(edge.source, edge.target):
            graph.add_edge(edge.source, edge.target, kind=edge.kind, text=edge.text)
    return graph


def dominators(graph: nx.DiGraph[str]) -> dict[str, str]:
    """Return, for each node of a `closure_graph`, the last node that all chains from a root go through.

    The value is "" if there is none. A node comes after its dominator. A root is a node that no other leads
    to. Nodes that only require each other are roots too: a manifest that somebody wrote can have such.
    """
    import networkx as nx

    rooted: nx.DiGraph[str] = nx.DiGraph()
    rooted.add_edges_from(graph.edges)
    start = "\0"  # in no name
    rooted.add_nodes_from([start, *graph])
    merged = nx.condensation(graph)
    tops = [merged.nodes[component]["members"] for component, degree in merged.in_degree() if degree == 0]
    rooted.add_edges_from((start, node) for members in tops for node in sorted(members))
    below: dict[str, list[str]] = {}
    for node, upper in nx.immediate_dominators(rooted, start).items():
        if node != start:
            below.setdefault(upper or start, []).append(node)
    found = dict.fromkeys(below.get(start, ()), "")
    todo = list(found)
    for upper in todo:  # which grows
        found.update(dict.fromkeys(below.get(upper, ()), upper))
        todo += below.get(upper, ())
    return found


def components(graph: nx.DiGraph[str]) -> tuple[tuple[str, ...], ...]:
    """Return the strongly connected components of a graph, each sorted, in the order of their first nodes."""
    import networkx as nx

    return tuple(sorted(tuple(sorted(members)) for members in nx.strongly_connected_components(graph)))


def reachable_bits(graph: nx.DiGraph[str], own: Mapping[str, int]) -> dict[str, int]:
    """Return, for each node, its bits and those of all nodes that it leads to.

    Args:
        graph: any directed graph.
        own: sets of bits of nodes; a node that is not there has none.

    """
    import networkx as nx

    merged = nx.condensation(graph)
    found: dict[int, int] = {}
    for component in reversed(list(nx.topological_sort(merged))):
        bits = 0
        for node in merged.nodes[component]["members"]:
            bits |= own.get(node, 0)
        for other in merged.successors(component):
            bits |= found[other]
        found[component] = bits
    return {node: found[component] for node, component in merged.graph["mapping"].items()}


def empty_graph() -> nx.DiGraph[str]:
    """Return a directed graph without nodes."""
    import networkx as nx

    return nx.DiGraph()


def graphml(graph: nx.DiGraph[str]) -> str:
    """Return a graph as GraphML, in the order of its nodes and edges."""
    import networkx as nx

    return "\n".join(nx.generate_graphml(graph)) + "\n"
