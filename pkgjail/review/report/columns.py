"""Encode the data of a page in columns, not records, because a page may have 200,000 names.

Paths are sorted, and each is written as the number of UTF-16 code units that it shares with the previous one,
followed by the rest. A class is a type, mode, owners, origin, detail and change that names share; each name
has the number of its class. Numbers are in base 36. `assets/scripts/core.js` decodes all this.
"""

from __future__ import annotations

from os.path import commonprefix
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.closure.graph import closure_graph, dominators
from pkgjail.closure.reasons import Chains
from pkgjail.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.core.model import Manifest
    from pkgjail.review.diff import Difference
    from pkgjail.review.graph import GraphView

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_Class = tuple[str, str, tuple[str, ...], str, str, str]


class _Row(NamedTuple):
    """A row of the page's table of names; `shared` is its class."""

    path: bytes
    size: int | None
    target: bytes | None
    shared: _Class


def columns(manifest: Manifest, graph: GraphView, difference: Difference | None = None) -> dict[str, Any]:
    """Return the nodes and edges of the closure, and all names (present, dropped, missing), as columns.

    A node is its name, kind, version, listed bytes, cost, the number of the last edge of its shortest chain,
    the number of the node that dominates it, each -1 if there is none, and how it changed. A class is a type,
    a mode, the numbers of the owners' nodes, an origin, a detail, and how the names changed.
    """
    numbers = {node.name: number for number, node in enumerate(graph.nodes)}
    edges = {(edge.source, edge.target): number for number, edge in enumerate(graph.edges)}
    chains = Chains(manifest.dependencies)
    above = dominators(closure_graph(manifest))
    packages = {} if difference is None else {one.package: one.change for one in difference.packages}
    last = {
        node.name: edges[edge.source, edge.target]
        for node in graph.nodes
        if (edge := chains.last(node.name)) is not None
    }
    return {
        "nodes": [
            [
                printable(node.name),
                node.kind,
                printable(node.version),
                node.bytes,
                node.cost,
                last.get(node.name, -1),
                numbers.get(above[node.name], -1),
                packages.get(node.name, ""),
            ]
            for node in graph.nodes
        ],
        "edges": [
            [numbers[edge.source], numbers[edge.target], edge.kind, printable(edge.text)]
            for edge in graph.edges
        ],
        **_names(sorted(_rows(manifest, difference)), numbers),
    }


def _rows(manifest: Manifest, difference: Difference | None) -> Iterator[_Row]:
    changes = (
        {}
        if difference is None
        else {one.path: one.change for one in difference.files if not one.is_consequence}
    )
    for entry in manifest.files:
        change = changes.get(entry.path, "")
        shared = (
            entry.kind,
            f"{entry.mode:04o}",
            entry.owners,
            entry.origin,
            printable(entry.detail),
            change,
        )
        yield _Row(entry.path, entry.size, entry.target, shared)
    for dropped in manifest.dropped:
        yield _Row(dropped.path, None, None, ("", "", (), "dropped", printable(dropped.rule), ""))
    for missing in manifest.missing:
        yield _Row(missing.path, None, None, ("", "", missing.owners, "missing", missing.reason, ""))


def _names(rows: Iterable[_Row], numbers: Mapping[str, int]) -> dict[str, Any]:
    classes: dict[_Class, int] = {}
    paths, kinds, sizes, targets, previous = [], [], [], [], ""
    for row in rows:
        path = printable(row.path)
        shared = commonprefix((previous, path))  # noqa: RUF071 - by characters, not by names
        paths.append(f"{base36(_length(shared))} {path[len(shared) :]}")
        kinds.append(base36(classes.setdefault(row.shared, len(classes))))
        sizes.append("" if row.size is None else base36(row.size))
        if row.target is not None:
            targets.append(printable(row.target))
        previous = path
    return {
        "classes": [
            [kind, mode, [numbers[owner] for owner in owners], origin, detail, change]
            for kind, mode, owners, origin, detail, change in classes
        ],
        "paths": "\n".join(paths),
        "kinds": ",".join(kinds),
        "sizes": ",".join(sizes),
        "targets": targets,
    }


def _length(text: str) -> int:
    """Return the length of a JavaScript string, in UTF-16: characters beyond the basic plane count twice."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def base36(number: int) -> str:
    """Encode a number from 0 on for JavaScript's `parseInt(text, 36)`."""
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
