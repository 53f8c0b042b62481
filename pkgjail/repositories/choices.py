"""The packages of a pool as a database for `pkgjail.closure.search`, which then makes all choices.

A package's requirement of libsolv's is one relation here, whose name is libsolv's text of it, or-groups
included: so of several packages that satisfy it, one that is in for another reason is taken. The closure of
installed packages takes the first member of an or-group that is installed. Of a plan's packages, that is the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkgjail.core.model import DependencyGroup, Relation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pkgjail.core.model import Package
    from pkgjail.repositories.pool import Pool


class Choices:
    """`closure.search.Searched` for one search.

    `excluded` are the numbers of packages (libsolv's) that do not count. `read` are those whose requirements
    were asked for, in that order: the closure, as soon as the search is over.
    """

    def __init__(self, pool: Pool, excluded: Collection[int]) -> None:
        self._pool = pool
        self._excluded = excluded
        self._parts: dict[str, Any] = {}
        self._newest: dict[str, Any] = {}
        self.family = pool.family
        self.architecture = pool.architecture
        self.packages: dict[str, Package] = {}
        self.read: list[Any] = []

    def requirement(self, kind: str, text: str, parts: Iterable[Any]) -> DependencyGroup:
        """Return libsolv's requirements `parts`, of which one must be met, as one of ours."""
        return DependencyGroup(kind=kind, alternatives=(self._relation(self._pool.either(parts)),), text=text)

    def _relation(self, part: Any) -> Relation:
        self._parts[str(part)] = part
        return Relation(name=str(part))

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return the requirements of a package that was among `candidates`."""
        solvable = self._newest[package.key]
        self.read.append(solvable)
        found: list[DependencyGroup] = []
        for field, part in self._pool.requirements(solvable, recommends=recommends):
            text = str(part)
            rich = self._pool.format.groups(text, field)
            found += rich or [self.requirement(field, text, [part])]
        return tuple(found)

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation`, in the order of preference."""
        del architecture  # the pool's is preferred
        text, part = relation.name, self._parts.get(relation.name)
        if part is None or relation.operator or relation.architecture:
            part = self._pool.requirement(relation)
            text = str(part)
        satisfying = [one for one in self._pool.satisfying(part) if one.id not in self._excluded]
        found: dict[str, Package] = {}
        for one in self._pool.ranked(text, satisfying):
            key = f"{one.name}:{one.arch}"
            newest = self._newest.get(key) or self._of_key(one)
            self._newest[key] = newest
            self.packages.setdefault(key, self._pool.package(newest))
            found.setdefault(key, self.packages[key])
        return tuple(found.values())

    def _of_key(self, like: Any) -> Any:
        """Return the newest package with the name and architecture of another one."""
        newest = like
        for one in self._pool.named_like(like):
            if one.id not in self._excluded and newest.evrcmp(one) < 0:
                newest = one
        return newest

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Say nothing: libsolv names what cannot be installed."""
        del relation, architecture
        return ""
