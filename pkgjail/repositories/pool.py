"""The pool: all packages of some repositories, as `model.PackageNames` for what is not installed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pkgjail.backends.rpm import boolean
from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import Package, Repository, in_order
from pkgjail.core.parameters import parameter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import DependencyGroup, Relation
    from pkgjail.repositories.formats import LoadedRepository, RepositoryFormat

_ANY = "any"  # Debian's `name:any`


class _Solvable:
    """A package of libsolv's as `formats.Offer`."""

    def __init__(self, solv: Any, solvable: Any) -> None:
        self._solv, self._solvable = solv, solvable

    @property
    def name(self) -> str:
        return str(self._solvable.name)

    @property
    def version(self) -> str:
        return str(self._solvable.evr)

    @property
    def provides(self) -> list[str]:
        return [str(one) for one in self._solvable.lookup_deparray(self._solv.SOLVABLE_PROVIDES)]


class Pool:
    """All packages for one architecture in repositories of one format.

    `solv_pool` is libsolv's pool, in which they are.
    """

    def __init__(
        self,
        solv: Any,
        of_format: RepositoryFormat,
        paths: Sequence[str],
        architecture: str,
        *,
        contents: bool,
    ) -> None:
        """Read the metadata at `paths`. Raises `DatabaseError`."""
        self.solv = solv
        self.format = of_format
        self.architecture = architecture
        self.solv_pool = solv.Pool()
        self.solv_pool.setdisttype(getattr(solv.Pool, of_format.disttype))
        self.solv_pool.setarch(architecture)
        self.solv_pool.set_flag(solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS, of_format.multilib)
        self._loaded: list[LoadedRepository] = []
        for path in paths:
            self._loaded += of_format.load(solv, self.solv_pool, path, architecture, contents=contents)
        self._refuse_empty(paths)
        self._has_all_files = False
        required = frozenset().union(*(one.required for one in self._loaded))
        if contents or not required <= frozenset().union(*(one.listed for one in self._loaded)):
            self._extend()
        self._index()

    def _extend(self) -> None:
        """Read all file lists."""
        self._has_all_files = True
        for one in self._loaded:
            if one.extend is not None:
                one.extend()

    def _index(self) -> None:
        self.solv_pool.addfileprovides()
        self.solv_pool.createwhatprovides()

    def _refuse_empty(self, paths: Sequence[str]) -> None:
        """Refuse a wrong architecture, which would look like a distribution without packages."""
        found = {solvable.arch for one in self._loaded for solvable in one.handle.solvables}
        if self.architecture not in found and self.format.everywhere not in found:
            raise DatabaseError(
                f"cannot plan from {', '.join(paths)}: it has packages for "
                f"{', '.join(sorted(found)) or 'nothing'}, and none for {self.architecture}; name the "
                f"metadata for that one, or another {parameter('architecture')}"
            )

    @property
    def family(self) -> str:
        """The family of the format."""
        return self.format.family

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """The repositories in the order of reading; a digest covers all files that were read so far."""
        return tuple(Repository(name=one.name, sha256=one.metadata.sha256) for one in self._loaded)

    @property
    def packages(self) -> Mapping[str, Package]:
        """Every package for the architecture, the newest of each key."""
        return self._packages

    @cached_property
    def _packages(self) -> Mapping[str, Package]:
        newest: dict[str, Any] = {}
        for one in self._loaded:
            for solvable in one.handle.solvables:
                key = f"{solvable.name}:{solvable.arch}"
                before = newest.get(key)
                if solvable.installable() and (before is None or before.evrcmp(solvable) < 0):
                    newest[key] = solvable
        return in_order({key: self.package(one) for key, one in newest.items()})

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The members of each group that a repository names."""
        return self._groups

    @cached_property
    def _groups(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, dict[str, None]] = {}
        for one in self._loaded:
            for name, members in one.groups.items():
                found.setdefault(name, {}).update(dict.fromkeys(members))
        return {name: tuple(sorted(members)) for name, members in found.items()}

    @cached_property
    def _essential(self) -> frozenset[str]:
        return frozenset().union(*(one.essential for one in self._loaded))

    @cached_property
    def preferred(self) -> frozenset[str]:
        """The names of packages that are preferred if any of several satisfies a requirement."""
        return frozenset().union(*(one.preferred for one in self._loaded))

    def package(self, solvable: Any) -> Package:
        """Return a package of libsolv's as a record."""
        return Package(
            name=solvable.name,
            version=solvable.evr,
            architecture=solvable.arch,
            essential=solvable.name in self._essential,
            size=solvable.lookup_num(self.solv.SOLVABLE_INSTALLSIZE),
        )

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one whitelist entry by the rules of the format. Raises `ValueError`."""
        return self.format.parse(text, self)

    def provides(self, relation: Relation) -> bool:
        """Return whether any package satisfies `relation`."""
        return bool(self.satisfying(self.requirement(relation)))

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation`, those of that very name first."""
        del architecture  # a pool has only one
        found = {one.key: one for one in map(self.package, self.satisfying(self.requirement(relation)))}
        return tuple(sorted(found.values(), key=lambda one: (one.name != relation.name, one.order)))

    def satisfying(self, part: Any) -> list[Any]:
        """Return libsolv's packages that satisfy its requirement `part` for the package manager too."""
        text = str(part)
        return [
            one
            for one in self.solv_pool.whatprovides(part)
            if one.installable() and self.format.is_satisfied(text, _Solvable(self.solv, one))
        ]

    def ranked(self, text: str, candidates: Collection[Any]) -> list[Any]:
        """Return `candidates`, which all satisfy the requirement with the text `text`, preferred ones first.

        Those come first that satisfy the first alternative: packages of that very name, then providers.
        Of several, one for the pool's own architecture is preferred, then one that every system has by its
        priority (Debian), then the first by name.
        """
        if len(candidates) < 2:  # noqa: PLR2004 - nothing to choose
            return list(candidates)
        first, own = self.preferred, (self.architecture, self.format.everywhere)
        rest = sorted(
            candidates, key=lambda one: (one.arch not in own, one.name not in first, one.name, one.arch)
        )
        found: list[Any] = []
        for name in self.format.alternatives(text):
            providers = {one.id for one in self.solv_pool.whatprovides(self.solv_pool.Dep(name))}
            found += [one for one in rest if one.name == name]
            found += [one for one in rest if one.name != name and one.id in providers]
            rest = [one for one in rest if one not in found]
        return found + rest

    def named_like(self, solvable: Any) -> Iterator[Any]:
        """Yield the packages with the name and the architecture of another one, in all versions."""
        for one in self.solv_pool.whatprovides(self.solv_pool.Dep(solvable.name)):
            if (one.name, one.arch) == (solvable.name, solvable.arch) and one.installable():
                yield one

    def requirements(self, solvable: Any, *, recommends: bool) -> Iterator[tuple[str, Any]]:
        """Yield the field and libsolv's requirement, for each requirement of a package."""
        plain, before = self.format.fields
        for field, marker in ((plain, -1), (before, 1)):
            for each in solvable.lookup_deparray(self.solv.SOLVABLE_REQUIRES, marker):
                yield field, each
        if recommends:
            for each in solvable.lookup_deparray(self.solv.SOLVABLE_RECOMMENDS):
                yield "Recommends", each

    def _having(self, path: str) -> list[Any]:
        """Packages whose file list has `path`: libsolv indexes only paths that packages require."""
        if not self._has_all_files:
            self._extend()
            self._index()
        search = self.solv.Dataiterator
        flags = search.SEARCH_STRING | search.SEARCH_FILES | search.SEARCH_COMPLETE_FILELIST
        return [
            match.solvable for match in self.solv_pool.Dataiterator(self.solv.SOLVABLE_FILELIST, path, flags)
        ]

    def available_names(self) -> Collection[str]:
        """Return no names: what is in the pool is all that there is."""
        return ()

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, architecture, or no such package at all."""
        del architecture
        name, required = relation.name, f"({relation.operator} {relation.version})"
        offered = list(self.solv_pool.whatprovides(self.solv_pool.Dep(name)))
        versions = sorted({one.evr for one in offered if one.name == name})
        if versions and not relation.architecture:
            return f"{name} is available as {', '.join(versions)}, but {required} is required; change that"
        if offered and not relation.architecture:
            names = ", ".join(sorted({one.name for one in offered}))
            return f"{name!r} is provided by {names}, but not as {required}; name one of these packages"
        wanted = f" for {relation.architecture}" if relation.architecture else ""
        where = ", ".join(dict.fromkeys(one.name for one in self._loaded))
        return f"{name!r}{wanted} is not available from {where}; add a repository, or name another package"

    def named(self, name: str) -> Any:
        """Return libsolv's requirement of a name. Raises `DatabaseError` if it is not UTF-8."""
        try:
            return self.solv_pool.Dep(name)
        except TypeError as error:
            where = ", ".join(dict.fromkeys(one.name for one in self._loaded))
            raise DatabaseError(
                f"cannot plan from {where}: the package name {name!r} is not UTF-8; fetch the metadata again"
            ) from error

    def requirement(self, relation: Relation) -> Any:
        """Return `relation` as a requirement of libsolv."""
        solv, pool = self.solv, self.solv_pool
        if boolean.is_rich(relation.name):
            return pool.parserpmrichdep(relation.name)
        found = self.named(relation.name)
        if relation.name.startswith("/") and not pool.whatprovides(found):
            owners = [
                pool.Dep(one.name).Rel(solv.REL_EQ, pool.Dep(one.evr)) for one in self._having(relation.name)
            ]
            return self.joined(owners, solv.REL_OR) if owners else found
        if relation.architecture == _ANY:
            found = found.Rel(solv.REL_MULTIARCH, pool.Dep(_ANY))
        elif relation.architecture == self.architecture:
            common = pool.Dep(relation.name).Rel(solv.REL_ARCH, pool.Dep(self.format.everywhere))
            found = found.Rel(solv.REL_ARCH, pool.Dep(relation.architecture)).Rel(solv.REL_OR, common)
        elif relation.architecture:
            found = found.Rel(solv.REL_ARCH, pool.Dep(relation.architecture))
        return (
            found.Rel(self._sign(relation.operator), pool.Dep(relation.version))
            if relation.operator
            else found
        )

    def _sign(self, operator: str) -> int:
        less, equal, greater = self.solv.REL_LT, self.solv.REL_EQ, self.solv.REL_GT
        return int(
            {"<<": less, "<=": less | equal, "=": equal, ">=": greater | equal, ">>": greater}[operator]
        )

    def group(self, group: DependencyGroup) -> Any:
        """Return alternatives and conditions as one requirement of libsolv."""
        found = self.either(map(self.requirement, group.alternatives))
        if not group.conditions:
            return found
        return found.Rel(
            self.solv.REL_COND, self.joined(map(self.requirement, group.conditions), self.solv.REL_AND)
        )

    def either(self, parts: Iterable[Any]) -> Any:
        """Join libsolv's requirements as alternatives."""
        return self.joined(parts, self.solv.REL_OR)

    def joined(self, parts: Iterable[Any], operator: int) -> Any:
        """Join libsolv's requirements, of which there is at least one, by one of its REL_ constants."""
        *first, last = parts
        for one in reversed(first):
            last = one.Rel(operator, last)
        return last

    def base(self) -> Sequence[tuple[str, ...]]:
        """Return the names of the base set: one of each tuple is needed."""
        return self.format.base(self._loaded)

    def downloads(self, packages: Collection[Package], repository: str) -> Mapping[str, int]:
        """Return the download sizes of `packages` in bytes by key, as far as libsolv has none."""
        lists = [
            one.downloads for one in self._loaded if one.name == repository and one.downloads is not None
        ]
        return {key: size for one in lists for key, size in one(packages).items()}

    def contents(
        self, packages: Collection[Package], repository: str
    ) -> Mapping[str, tuple[bytes, ...]] | None:
        """Return the files of `packages` of a repository by key; None if it has no file lists."""
        found: dict[str, tuple[bytes, ...]] = {}
        lists = [one.contents for one in self._loaded if one.name == repository and one.contents is not None]
        for one in lists:
            found.update(one(packages))
        return found if lists else None
