"""Chains of reasons: the edges that lead from a whitelist's line, or "essential", to a package."""

from __future__ import annotations

import heapq
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.closure.search import shortest_reasons

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from pkgjail.core.model import Dependency

_BY_FIELDS = attrgetter("source", "target", "kind", "text")


class _Growing(NamedTuple):
    """A chain that is not whole: how long it will be, how much of that it lacks, and its packages."""

    length: int
    lacking: int
    chain: tuple[str, ...]


class Chains:
    """The chains of one manifest's dependencies, looked up again and again."""

    def __init__(self, dependencies: Iterable[Dependency]) -> None:
        """Index the edges; where one asks for another several times, the first by its fields counts."""
        dependencies = tuple(dependencies)
        self._reasons = shortest_reasons(dependencies)
        self._edges: dict[tuple[str, str], Dependency] = {}
        for edge in sorted(dependencies, key=_BY_FIELDS):
            self._edges.setdefault((edge.source, edge.target), edge)
        self._askers: dict[str, list[str]] = {}
        self._asked: dict[str, list[str]] = {}
        for source, target in self._edges:
            self._askers.setdefault(target, []).append(source)
            self._asked.setdefault(source, []).append(target)

    def shortest(self, key: str) -> tuple[Dependency, ...]:
        """The shortest chain from a rule to the package `key`, the rule's edge first; () where none leads."""
        chain: list[Dependency] = []
        while key in self._reasons:
            chain.append(self._reasons[key])
            key = chain[-1].source
        return tuple(reversed(chain))

    def last(self, key: str) -> Dependency | None:
        """The last edge of the shortest chain to `key`; None where none leads."""
        return self._reasons.get(key)

    def minimal(self, key: str, most: int) -> tuple[tuple[Dependency, ...], ...]:
        """Every minimal chain to the package `key`, the shortest first, and at most `most` of them.

        A chain is minimal when none of its packages could be left out: none asks for a later one other
        than the next. There can be exponentially many in a graph.
        """
        return tuple(islice(self._minimal(key), most)) if key in self._askers else ()

    def _minimal(self, key: str) -> Iterator[tuple[Dependency, ...]]:
        """Grow chains backwards from `key`, the one that can become the shortest first.

        Who asks for a package behind the next one must not come before it. What remains after those are
        left out has a shortest way from a root to the chain's head, and that way is minimal itself; so
        each chain that is kept grows to one that is given, and its length is known beforehand. Of those that
        will be equally long the one that lacks least is grown: the first are there before all are begun.
        """
        waiting: list[_Growing] = []
        self._push(waiting, (key,), set())
        while waiting:
            chain = heapq.heappop(waiting).chain
            askers = self._askers.get(chain[0], ())
            if not askers:
                yield tuple(self._edges[pair] for pair in zip(chain, chain[1:]))
                continue
            barred = {asker for one in chain[1:] for asker in self._askers[one]} | set(chain)
            for asker in askers:
                if asker not in barred:
                    self._push(waiting, (asker, *chain), barred)

    def _push(self, waiting: list[_Growing], chain: tuple[str, ...], barred: set[str]) -> None:
        """Keep `chain` where it can reach a root, by the length that it will then have."""
        barred = barred.union(*(self._askers[one] for one in chain[1:2]), chain) - {chain[0]}
        steps = self._steps_to_root(chain[0], barred)
        if steps is not None:
            heapq.heappush(waiting, _Growing(len(chain) + steps, steps, chain))

    def _steps_to_root(self, start: str, barred: Container[str]) -> int | None:
        """How many edges a root is away from `start`, against the edges and round `barred`."""
        seen, layer, steps = {start}, [start], 0
        while layer:
            if not all(map(self._askers.get, layer)):
                return steps
            nearer = {asker for one in layer for asker in self._askers[one] if asker not in barred}
            layer = sorted(nearer - seen)
            seen |= nearer
            steps += 1
        return None


def first_new(chain: Sequence[Dependency], before: Container[Dependency]) -> Dependency | None:
    """The first edge of `chain` that is not in `before`: what changed, for the package at its end."""
    return next((edge for edge in chain if edge not in before), None)
