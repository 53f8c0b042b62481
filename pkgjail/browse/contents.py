"""The contents of a manifest, indexed: sizes of packages, their neighbours in the closure, their files."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.browse.directories import DirectoryTree
from pkgjail.closure.graph import closure_graph, dominators, reachable_bits
from pkgjail.closure.reasons import Chains
from pkgjail.core.model import record
from pkgjail.core.text import printable
from pkgjail.review.graph import graph_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.closure.graph import Graph
    from pkgjail.core.model import FileEntry, Manifest
    from pkgjail.review.graph import NodeKind


@record
class Item:
    """A package, a whitelist's line, or "essential"; sizes are in bytes of regular files.

    `own` are those that it lists. `cost` are those that would leave the jail with it. `closure` are those of
    it and of everything that it requires, directly or indirectly; a file counts once. `names` is how many
    names it lists.
    """

    name: str
    kind: NodeKind
    version: str
    own: int
    cost: int
    closure: int
    names: int


class Contents:
    """The contents of one manifest, indexed for many look-ups; it never changes visibly."""

    def __init__(self, manifest: Manifest) -> None:
        """Compute the sizes; the index of files is made when it is first used."""
        self.manifest = manifest
        self._chains = Chains(manifest.dependencies)
        graph = closure_graph(manifest)
        names = Counter(owner for entry in manifest.files for owner in entry.owners)
        closure = _closure_sizes(manifest, graph)
        self._items = {
            node.name: Item(
                name=node.name,
                kind=node.kind,
                version=node.version,
                own=node.bytes,
                cost=node.cost,
                closure=closure[node.name],
                names=names[node.name],
            )
            for node in graph_view(manifest).nodes
        }
        self._after = {name: sorted(graph.successors(name)) for name in graph}
        self._before = {name: sorted(graph.predecessors(name)) for name in graph}
        self._dominated: dict[str, list[str]] = {}
        for name, upper in dominators(graph).items():
            self._dominated.setdefault(upper, []).append(name)
        self._trees: dict[str, DirectoryTree] = {}
        self._texts: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[Item, ...]:
        """Return all packages."""
        return tuple(item for item in self._items.values() if item.kind == "package")

    def requires(self, name: str) -> tuple[Item, ...]:
        """Return what the item of this name requires directly."""
        return self._listed(self._after.get(name, ()))

    def needed_by(self, name: str) -> tuple[Item, ...]:
        """Return what requires the item of this name directly: packages and lines of whitelists."""
        return self._listed(self._before.get(name, ()))

    def brings(self, name: str) -> tuple[Item, ...]:
        """Return the packages that would leave with this one: every chain to them goes through it."""
        found = list(self._dominated.get(name, ()))
        for one in found:  # which grows
            found += self._dominated.get(one, ())
        return self._listed(sorted(found))

    def owners(self, entry: FileEntry) -> tuple[Item, ...]:
        """Return the packages that list a name."""
        return self._listed(entry.owners)

    def chain(self, name: str) -> tuple[str, ...]:
        """Return the names of the shortest chain that leads to a package, which is the last one."""
        edges = self._chains.shortest(name)
        return (edges[0].source, *(edge.target for edge in edges)) if edges else ()

    def tree(self, package: str = "") -> DirectoryTree:
        """Return the directories of all names, or of those that one package lists."""
        if package not in self._trees:
            entries: Iterable[FileEntry] = self.manifest.files
            if package:
                entries = (entry for entry in entries if package in entry.owners)
            self._trees[package] = DirectoryTree(entries)
        return self._trees[package]

    def search(self, text: str) -> tuple[tuple[Item, ...], tuple[FileEntry, ...]]:
        """Return the packages and the names that have `text` in them, as they are shown, in any case."""
        wanted = text.lower()
        if not self._texts:
            self._texts = tuple(printable(entry.path).lower() for entry in self.manifest.files)
        packages = tuple(item for item in self.packages if wanted in item.name.lower())
        return packages, tuple(
            entry for entry, shown in zip(self.manifest.files, self._texts) if wanted in shown
        )

    def _listed(self, names: Iterable[str]) -> tuple[Item, ...]:
        return tuple(self._items[name] for name in names)


def _closure_sizes(manifest: Manifest, graph: Graph) -> Mapping[str, int]:
    """Return the bytes of each node with everything that it leads to; a file counts once.

    Files of the same owners are one set of files, and each set is one bit: a node's bits are those of all
    that it leads to.
    """
    sizes: Counter[tuple[str, ...]] = Counter()
    for entry in manifest.files:
        if entry.size and entry.owners:
            sizes[entry.owners] += entry.size
    own: dict[str, int] = {}
    for position, owners in enumerate(sizes):
        for owner in owners:
            own[owner] = own.get(owner, 0) | 1 << position
    weights = tuple(sizes.values())
    summed: dict[int, int] = {}
    found = {}
    for node, bits in reachable_bits(graph, own).items():
        if bits not in summed:
            summed[bits] = sum(weight for weight, bit in zip(weights, reversed(f"{bits:b}")) if bit == "1")
        found[node] = summed[bits]
    return found
