"""The closure of a policy: every package that it asks for, and why each one is there.

A requirement with one possible answer is settled at once. One that several installed packages
could answer waits until nothing else is left, for by then one of them is often in the closure for
another reason. One with conditions is asked as soon as they hold, before any choice is made. What
waits is taken in the order of its text, not of the lines that asked, so that a whitelist means the
same whichever way its lines are ordered.

networkx takes 0.1 s to import and is needed for a graph's own verbs alone, so `closure_graph`
imports it when called; the search for reasons is short enough to do without.
"""

from __future__ import annotations

import heapq
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import PolicyError, Problem
from pkgjail.core.model import Closure, Dependency, Unmet

if TYPE_CHECKING:
    from collections.abc import Iterable

    import networkx as nx

    from pkgjail.core.model import DependencyGroup, Manifest, Package, PackageDatabase, Policy

    Graph = nx.DiGraph[str]

ESSENTIAL = "essential"
"""The source and the kind of the edges to packages that no system is complete without."""

# What asks for those packages: Debian has a field for it, other families have a list of names.
_BASE = {"debian": "Essential: yes"}

# Fields that ask politely: what nothing installed satisfies is left out and not worth a word.
_WEAK = frozenset({"Recommends"})

_BY_FIELDS = attrgetter("source", "target", "kind", "text")


class _Waiting(NamedTuple):
    """A requirement with several answers. The order of the fields is the order of settling."""

    text: str
    architecture: str
    source: str
    kind: str
    candidates: tuple[str, ...]


def resolve_closure(database: PackageDatabase, policy: Policy) -> Closure:
    """The packages that `policy` asks for and all that they require, from what is installed.

    An or-group is decided by its first alternative that any installed package satisfies (Debian
    Policy 7.1). Within that alternative a package that is in the closure anyway is taken, the real
    one of that name before its providers; else the real one; else the first provider by key. A
    package that satisfies its own requirement needs no other. The result does not depend on the
    order of the policy's rules.

    Requirements that nothing satisfies do not raise; they stand in the closure's `unmet`. Raises
    `PolicyError`, with every rule that `database` cannot read.
    """
    search = _Search(database, recommends=policy.recommends)
    problems: list[Problem] = []
    for rule in policy.packages:
        try:
            groups = database.parse(rule.pattern)
        except ValueError as error:  # noqa: PERF203 - every rule's error is wanted, not the first
            problems.append(Problem(rule.origin, str(error)))
        else:
            for group in groups:
                search.ask(rule.origin, database.architecture, group)
    if problems:
        raise PolicyError(problems)
    if policy.essential:
        for package in database.packages.values():
            if package.essential:
                search.take(ESSENTIAL, package.key, ESSENTIAL, _BASE.get(database.family, "base set"))
    search.run()
    return search.result()


class _Search:
    """The state of one resolution."""

    def __init__(self, database: PackageDatabase, *, recommends: bool) -> None:
        self._database = database
        self._recommends = recommends
        self._chosen: dict[str, Package] = {}
        self._unread: list[Package] = []
        self._waiting: list[_Waiting] = []
        self._conditional: list[tuple[str, str, DependencyGroup]] = []
        self._edges: set[tuple[str, str, str, str]] = set()
        self._unmet: set[tuple[str, str, str, str]] = set()

    def run(self) -> None:
        """Work until every requirement is settled."""
        while self._unread or self._ask_conditional() or self._waiting:
            if self._unread:
                self._read(self._unread.pop())
            elif self._waiting:
                self._settle(heapq.heappop(self._waiting))

    def _read(self, package: Package) -> None:
        for group in self._database.requirements(package, recommends=self._recommends):
            self.ask(package.key, package.architecture, group)

    def _ask_conditional(self) -> bool:
        """Ask what has come to be asked by what is in the closure by now; whether there was anything."""
        due = [one for one in self._conditional if self._is_due(one[1], one[2])]
        self._conditional = [one for one in self._conditional if one not in due] if due else self._conditional
        for source, architecture, group in due:
            self._ask(source, architecture, group)
        return bool(due)

    def _is_due(self, architecture: str, group: DependencyGroup) -> bool:
        return all(
            any(package.key in self._chosen for package in self._database.candidates(one, architecture))
            for one in group.conditions
        )

    def ask(self, source: str, architecture: str, group: DependencyGroup) -> None:
        """Take a requirement in, or put it off until its conditions hold."""
        if group.conditions:
            self._conditional.append((source, architecture, group))
        else:
            self._ask(source, architecture, group)

    def _ask(self, source: str, architecture: str, group: DependencyGroup) -> None:
        """Settle a requirement if it has one answer, else put it off; remember it if it has none."""
        for relation in group.alternatives:
            keys = tuple(package.key for package in self._database.candidates(relation, architecture))
            if not keys:
                continue
            if source in keys:
                return
            if len(keys) == 1:
                self.take(source, keys[0], group.kind, group.text)
            else:
                heapq.heappush(self._waiting, _Waiting(group.text, architecture, source, group.kind, keys))
            return
        if group.kind not in _WEAK:
            reason = "; ".join(self._shortcomings(architecture, group))
            self._unmet.add((source, group.kind, group.text, reason))

    def _shortcomings(self, architecture: str, group: DependencyGroup) -> Iterable[str]:
        """What is wrong with each alternative, each thing said once."""
        return dict.fromkeys(self._database.shortcoming(one, architecture) for one in group.alternatives)

    def _settle(self, waiting: _Waiting) -> None:
        """Choose among the candidates, which stand in the order of preference already."""
        present = (key for key in waiting.candidates if key in self._chosen)
        target = next(present, waiting.candidates[0])
        self.take(waiting.source, target, waiting.kind, waiting.text)

    def take(self, source: str, target: str, kind: str, text: str) -> None:
        """Note the edge, and bring the package `target` into the closure if it is not there."""
        self._edges.add((source, target, kind, text))
        if target not in self._chosen:
            package = self._database.packages[target]
            self._chosen[target] = package
            self._unread.append(package)

    def result(self) -> Closure:
        """The finished closure, sorted."""
        dependencies = tuple(
            Dependency(source=source, target=target, kind=kind, text=text)
            for source, target, kind, text in sorted(self._edges)
        )
        return Closure(
            packages=tuple(self._chosen[key] for key in sorted(self._chosen)),
            dependencies=dependencies,
            reasons=shortest_reasons(dependencies),
            unmet=tuple(
                Unmet(source=source, kind=kind, text=text, reason=reason)
                for source, kind, text, reason in sorted(self._unmet)
            ),
        )


def shortest_reasons(dependencies: Iterable[Dependency]) -> dict[str, Dependency]:
    """For every target the last edge of the shortest chain from a root, in the order of the keys.

    A root is a source that is nobody's target: a whitelist line, or "essential". Of chains that
    are equally long one from a whitelist is taken before one from "essential", then the one whose
    last edge is the first by its fields.
    """
    outgoing: dict[str, list[Dependency]] = {}
    for edge in sorted(dependencies, key=_BY_FIELDS):
        outgoing.setdefault(edge.source, []).append(edge)
    targets = {edge.target for edges in outgoing.values() for edge in edges}
    reasons: dict[str, Dependency] = {}
    second_choice = {ESSENTIAL}
    layer = sorted(outgoing.keys() - targets)
    while layer:
        found: dict[str, Dependency] = {}
        for source in sorted(layer, key=lambda one: (one in second_choice, one)):
            for edge in outgoing.get(source, ()):
                if edge.target not in reasons and edge.target not in found:
                    found[edge.target] = edge
                    if source in second_choice:
                        second_choice.add(edge.target)
        reasons.update(found)
        layer = list(found)
    return {key: reasons[key] for key in sorted(reasons)}


def closure_graph(closure: Closure | Manifest) -> nx.DiGraph[str]:
    """The closure, or a manifest's, as a directed graph from who asks to what is brought in.

    The nodes are the packages' keys, the origins of the rules, and "essential"; a node's `kind` is
    "package", "rule" or "essential". An edge has the `kind` and `text` of its requirement; where
    one package asks for another several times (Depends and Pre-Depends), those of the first in the
    order of `closure.dependencies`, which holds them all.
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
    """For each node of a `closure_graph` the last one that every chain from a root to it goes through.

    "" where there is none; a node comes after its own. All nodes must be led to from a root.
    """
    import networkx as nx

    rooted: nx.DiGraph[str] = nx.DiGraph()
    rooted.add_edges_from(graph.edges)
    start = "\0"  # in no name
    rooted.add_nodes_from([start, *graph])
    rooted.add_edges_from([(start, node) for node, degree in graph.in_degree() if degree == 0])
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
    """The strongly connected components of a graph, each sorted, in the order of their first nodes."""
    import networkx as nx

    return tuple(sorted(tuple(sorted(members)) for members in nx.strongly_connected_components(graph)))


def empty_graph() -> nx.DiGraph[str]:
    """A directed graph without nodes."""
    import networkx as nx

    return nx.DiGraph()


def graphml(graph: nx.DiGraph[str]) -> str:
    """A graph as GraphML, in the order of its nodes and edges."""
    import networkx as nx

    return "\n".join(nx.generate_graphml(graph)) + "\n"
