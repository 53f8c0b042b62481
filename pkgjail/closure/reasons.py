"""Chains of reasons: the edges from a whitelist's line, or from "essential", to a package."""

from __future__ import annotations

import heapq
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from pkgjail.core.model import Dependency

ESSENTIAL = "essential"
"""The source and the kind of edges to packages without which no system is complete."""

_BY_FIELDS = attrgetter("source", "target", "kind", "text")


def shortest_reasons(dependencies: Iterable[Dependency]) -> dict[str, Dependency]:
    """Return, for every target, the last edge of the shortest chain from a root, in the order of the keys.

    A root is a source that is nobody's target: a whitelist's line, or "essential". Of equally long
    chains, one from a whitelist is preferred, then the one whose last edge is the first by its fields.
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


class _Partial(NamedTuple):
    """An unfinished chain: its final length, how many edges it still lacks, and its packages."""

    length: int
    lacking: int
    chain: tuple[str, ...]


class Chains:
    """The chains of one manifest's dependencies, indexed for many lookups."""

    def __init__(self, dependencies: Iterable[Dependency]) -> None:
        """Index the edges; of several edges between two packages, the first by its fields counts."""
        dependencies = tuple(dependencies)
        self._reasons = shortest_reasons(dependencies)
        self._edges: dict[tuple[str, str], Dependency] = {}
        for edge in sorted(dependencies, key=_BY_FIELDS):
            self._edges.setdefault((edge.source, edge.target), edge)
        self._sources: dict[str, list[str]] = {}
        self._targets: dict[str, list[str]] = {}
        for source, target in self._edges:
            self._sources.setdefault(target, []).append(source)
            self._targets.setdefault(source, []).append(target)

    def shortest(self, key: str) -> tuple[Dependency, ...]:
        """Return the shortest chain from a rule to the package `key`; () if there is none."""
        chain: list[Dependency] = []
        while key in self._reasons:
            chain.append(self._reasons[key])
            key = chain[-1].source
        return tuple(reversed(chain))

    def last(self, key: str) -> Dependency | None:
        """Return the last edge of the shortest chain to `key`; None if there is none."""
        return self._reasons.get(key)

    def minimal(self, key: str, most: int) -> tuple[tuple[Dependency, ...], ...]:
        """Return every minimal chain to the package `key`, shortest first, at most `most` of them.

        A chain is minimal if none of its packages can be left out: none requires a later one other than
        the next. A graph can have exponentially many.
        """
        return tuple(islice(self._minimal(key), most)) if key in self._sources else ()

    def _minimal(self, key: str) -> Iterator[tuple[Dependency, ...]]:
        """Grow chains backwards from `key`, the one that can become the shortest first.

        A package that requires a later package of the chain must not be put before it: it is barred.
        Without the barred packages, there is a shortest path from a root to the chain's head, and that path
        is itself minimal. So every chain in the queue will be completed, and its final length is known in
        advance. Of chains with equal final lengths, the one that lacks the fewest edges is grown first: the
        first results come before all chains are begun.
        """
        waiting: list[_Partial] = []
        self._push(waiting, (key,), set())
        while waiting:
            chain = heapq.heappop(waiting).chain
            sources = self._sources.get(chain[0], ())
            if not sources:
                yield tuple(self._edges[pair] for pair in zip(chain, chain[1:]))
                continue
            barred = {source for one in chain[1:] for source in self._sources[one]} | set(chain)
            for source in sources:
                if source not in barred:
                    self._push(waiting, (source, *chain), barred)

    def _push(self, waiting: list[_Partial], chain: tuple[str, ...], barred: set[str]) -> None:
        """Queue `chain` by its final length, if it can reach a root."""
        barred = barred.union(*(self._sources[one] for one in chain[1:2]), chain) - {chain[0]}
        steps = self._steps_to_root(chain[0], barred)
        if steps is not None:
            heapq.heappush(waiting, _Partial(len(chain) + steps, steps, chain))

    def _steps_to_root(self, start: str, barred: Container[str]) -> int | None:
        """Count the edges from `start` back to a root, avoiding `barred`; None if there is no path."""
        seen, layer, steps = {start}, [start], 0
        while layer:
            if not all(map(self._sources.get, layer)):
                return steps
            nearer = {source for one in layer for source in self._sources[one] if source not in barred}
            layer = sorted(nearer - seen)
            seen |= nearer
            steps += 1
        return None


def first_new(chain: Sequence[Dependency], before: Container[Dependency]) -> Dependency | None:
    """Return the first edge of `chain` that is not in `before`: the change that explains the last package."""
    return next((edge for edge in chain if edge not in before), None)
