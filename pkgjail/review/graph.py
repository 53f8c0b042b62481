"""Views of a manifest's closure for drawing: nodes with their costs, edges, parts of the graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pkgjail.closure.graph import closure_graph, components, dominators
from pkgjail.core.errors import QuestionError
from pkgjail.core.model import record
from pkgjail.core.parameters import parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.closure.graph import Graph
    from pkgjail.core.model import Manifest


NodeKind = Literal["package", "rule", "essential"]
"""The kinds of nodes; a "rule" is a line of a whitelist."""


@record
class Node:
    """A package, a whitelist's line, "essential", or a component of packages that require each other.

    `name` is a package's key, a rule's origin or "essential"; for a component, its first package and the
    number of others. `members` has the keys of all its packages. `bytes` are those of the regular files
    that it lists. `cost` are the bytes that would leave the jail with it: those of the files whose owners
    are all reached only through it.
    """

    name: str
    kind: NodeKind
    version: str = ""
    members: tuple[str, ...] = ()
    bytes: int = 0
    cost: int = 0


@record
class Edge:
    """A requirement between two nodes, by their names; `kind` and `text` are those of the first one."""

    source: str
    target: str
    kind: str
    text: str


@record
class GraphView:
    """A graph to draw: nodes and edges, each sorted."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_view(
    manifest: Manifest, *, focus: str = "", depth: int | None = None, collapse: bool = False
) -> GraphView:
    """Return a view of the closure of `manifest`, with the cost of each node.

    Args:
        manifest: what was resolved.
        focus: a package's name or key; only what leads to it, and what it leads to, is in the view.
        depth: the most edges between a node and the focus; None for no limit.
        collapse: merge packages that require each other, directly or indirectly, into one node.

    Raises:
        QuestionError: there is no such package, or `depth` is given without `focus`.

    """
    if depth is not None and not focus:
        raise QuestionError(
            f"cannot limit the depth: there is no focus; name a package by {parameter('focus')}"
        )
    graph = closure_graph(manifest)
    groups = components(graph) if collapse else tuple((node,) for node in sorted(graph))
    shown = _around(graph, _focused(manifest, focus), depth) if focus else frozenset(graph)
    shown_groups = [members for members in groups if shown.intersection(members)]
    names = {member: _name(members) for members in shown_groups for member in members}
    versions = {package.key: package.version for package in manifest.packages}
    listed, cost = _listed(manifest, groups), costs(manifest, graph, groups)
    nodes = tuple(
        Node(
            name=_name(members),
            kind=graph.nodes[members[0]]["kind"],
            version=versions.get(members[0], "") if len(members) == 1 else "",
            members=tuple(member for member in members if member in versions),
            bytes=listed[members[0]],
            cost=cost[members[0]],
        )
        for members in shown_groups
    )
    edges: dict[tuple[str, str], Edge] = {}
    for source, target, asked in sorted(graph.edges(data=True), key=lambda edge: edge[:2]):
        pair = names.get(source, ""), names.get(target, "")
        if all(pair) and pair[0] != pair[1]:
            edges.setdefault(
                pair, Edge(source=pair[0], target=pair[1], kind=asked["kind"], text=asked["text"])
            )
    return GraphView(
        nodes=tuple(sorted(nodes, key=lambda node: node.name)),
        edges=tuple(edges[pair] for pair in sorted(edges)),
    )


def costs(manifest: Manifest, graph: Graph, groups: Iterable[tuple[str, ...]]) -> Mapping[str, int]:
    """Return the bytes that would leave with each group of nodes, by the group's first node.

    A file leaves when all its owners do. A node leaves with each node that dominates it. A group leaves as
    a whole: for the dominators it is one node.
    """
    first = {member: members[0] for members in groups for member in members}
    merged = _merged(graph, first)
    above = dominators(merged)
    depth = {"": 0}
    for node, upper in above.items():
        depth[node] = depth[upper] + 1
    cost = Counter(dict.fromkeys(merged, 0))
    shared: dict[tuple[str, ...], str] = {}
    for entry in manifest.files:
        if entry.size and entry.owners:
            if entry.owners not in shared:
                shared[entry.owners] = _meeting([first[owner] for owner in entry.owners], above, depth)
            cost[shared[entry.owners]] += entry.size
    for node, upper in reversed(above.items()):  # the cost of a node is part of the cost of those above it
        cost[upper] += cost[node]
    del cost[""]
    return cost


def _meeting(nodes: Iterable[str], above: Mapping[str, str], depth: Mapping[str, int]) -> str:
    """Return the last node that dominates all of `nodes`; "" if there is none."""
    met, *others = nodes
    for other in others:
        while met != other:
            if depth[met] < depth[other]:
                other = above[other]  # noqa: PLW2901 - on its way up
            else:
                met = above[met]
    return met


def _merged(graph: Graph, first: Mapping[str, str]) -> Graph:
    """Return the graph with each group merged into its first node."""
    merged = graph.__class__()
    merged.add_nodes_from(dict.fromkeys(first.values()))
    merged.add_edges_from(
        (first[source], first[target]) for source, target in graph.edges if first[source] != first[target]
    )
    return merged


def _focused(manifest: Manifest, focus: str) -> frozenset[str]:
    found = frozenset(one.key for one in manifest.packages if focus in {one.key, one.name})
    if not found:
        raise QuestionError(f"cannot focus on {focus!r}: no package of the manifest has this name")
    return found


def _around(graph: Graph, start: frozenset[str], depth: int | None) -> frozenset[str]:
    """Return the nodes at most `depth` edges before or after `start`."""
    found = set(start)
    for neighbours in (graph.successors, graph.predecessors):
        seen, layer, steps = set(start), set(start), 0
        while layer and (depth is None or steps < depth):
            layer = {other for node in layer for other in neighbours(node)} - seen
            seen |= layer
            steps += 1
        found |= seen
    return frozenset(found)


def _name(members: tuple[str, ...]) -> str:
    return members[0] if len(members) == 1 else f"{members[0]} and {len(members) - 1} more"


def _listed(manifest: Manifest, groups: Iterable[tuple[str, ...]]) -> Counter[str]:
    """Sum the bytes that each group lists, by its first node; a shared file counts once."""
    first = {member: members[0] for members in groups for member in members}
    sizes: Counter[str] = Counter()
    for entry in manifest.files:
        if entry.size:
            for group in {first[owner] for owner in entry.owners}:
                sizes[group] += entry.size
    return sizes
