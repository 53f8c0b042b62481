"""All packages of some repositories in libsolv's pool: `model.PackageNames` for what is not installed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pkgjail.backends.rpm import boolean
from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import Package, Repository

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pkgjail.core.model import DependencyGroup, Relation
    from pkgjail.repositories.formats import Kind, Loaded

_ANY = "any"  # Debian's `name:any`


class Universe:
    """The packages that `paths` of one kind have to offer for one architecture."""

    def __init__(
        self, solv: Any, kind: Kind, paths: Sequence[str], architecture: str, *, contents: bool
    ) -> None:
        """Read the metadata. Raises `DatabaseError`."""
        self.solv = solv
        self.kind = kind
        self.architecture = architecture
        self.pool = solv.Pool()
        self.pool.setdisttype(getattr(solv.Pool, kind.disttype))
        self.pool.setarch(architecture)
        self.pool.set_flag(solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS, kind.multilib)
        self._loaded: list[Loaded] = []
        for path in paths:
            self._loaded += kind.load(solv, self.pool, path, architecture, contents=contents)
        self._refuse_none(paths)
        self._is_whole = False
        required = frozenset().union(*(one.required for one in self._loaded))
        if contents or not required <= frozenset().union(*(one.listed for one in self._loaded)):
            self._extend()
        self._index()

    def _extend(self) -> None:
        """Read all file lists."""
        self._is_whole = True
        for one in self._loaded:
            if one.extend is not None:
                one.extend()

    def _index(self) -> None:
        self.pool.addfileprovides()
        self.pool.createwhatprovides()

    def _refuse_none(self, paths: Sequence[str]) -> None:
        """A wrong architecture would else read as a distribution that has nothing at all."""
        found = {solvable.arch for one in self._loaded for solvable in one.handle.solvables}
        if self.architecture not in found and self.kind.everywhere not in found:
            raise DatabaseError(
                f"cannot plan from {', '.join(paths)}: it has packages for "
                f"{', '.join(sorted(found)) or 'nothing'}, and none for {self.architecture}; name the "
                "metadata for that one, or another --arch"
            )

    @property
    def family(self) -> str:
        """The kind's."""
        return self.kind.family

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """What was read, in the order of reading; a digest covers all files that were read so far."""
        return tuple(Repository(name=one.name, sha256=one.metadata.sha256) for one in self._loaded)

    @property
    def packages(self) -> Mapping[str, Package]:
        """Every package that suits the architecture, the newest of each key."""
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
        return {key: self.package(newest[key]) for key in sorted(newest)}

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
        """The names of packages that come before others where any of several would do."""
        return frozenset().union(*(one.preferred for one in self._loaded))

    def package(self, solvable: Any) -> Package:
        """A package of the pool as a record."""
        return Package(
            name=solvable.name,
            version=solvable.evr,
            architecture=solvable.arch,
            essential=solvable.name in self._essential,
            size=solvable.lookup_num(self.solv.SOLVABLE_INSTALLSIZE),
        )

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Read one whitelist entry by the kind's rules. Raises `ValueError`."""
        return self.kind.parse(text, self)

    def provides(self, relation: Relation) -> bool:
        """Whether any package satisfies `relation`."""
        return bool(self._satisfying(relation))

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Who satisfies `relation`, those of that very name first, by libsolv's rules."""
        del architecture  # all are for the one
        found = {one.key: one for one in map(self.package, self._satisfying(relation))}
        return tuple(
            found[key] for key in sorted(found, key=lambda key: (found[key].name != relation.name, key))
        )

    def _satisfying(self, relation: Relation) -> list[Any]:
        found = self.pool.whatprovides(self.requirement(relation))
        return [one for one in found if one.installable()]

    def _having(self, path: str) -> list[Any]:
        """Those whose file list has `path`: libsolv has no index of one that no package asks for."""
        if not self._is_whole:
            self._extend()
            self._index()
        search = self.solv.Dataiterator
        flags = search.SEARCH_STRING | search.SEARCH_FILES | search.SEARCH_COMPLETE_FILELIST
        return [match.solvable for match in self.pool.Dataiterator(self.solv.SOLVABLE_FILELIST, path, flags)]

    def shortcoming(self, relation: Relation, architecture: str) -> str:
        """The nearest miss: version, architecture, or none at all."""
        del architecture
        name, asked = relation.name, f"({relation.operator} {relation.version})"
        offered = list(self.pool.whatprovides(self.pool.Dep(name)))
        versions = sorted({one.evr for one in offered if one.name == name})
        if versions and not relation.architecture:
            return f"{name} is to be had as {', '.join(versions)}, and {asked} is asked; change what is asked"
        if offered and not relation.architecture:
            names = ", ".join(sorted({one.name for one in offered}))
            return f"{name!r} is provided by {names}, and not as {asked}; ask for a package by its own name"
        wanted = f" for {relation.architecture}" if relation.architecture else ""
        where = ", ".join(dict.fromkeys(one.name for one in self._loaded))
        return (
            f"{name!r} is not to be had{wanted} from {where}; name another repository too, or another package"
        )

    def named(self, name: str) -> Any:
        """The requirement of a name as libsolv has it. Raises `DatabaseError` for one that is not UTF-8."""
        try:
            return self.pool.Dep(name)
        except TypeError as error:
            where = ", ".join(dict.fromkeys(one.name for one in self._loaded))
            raise DatabaseError(
                f"cannot plan from {where}: the package name {name!r} is not UTF-8; fetch the metadata again"
            ) from error

    def requirement(self, relation: Relation) -> Any:
        """`relation` as libsolv has it."""
        solv, pool = self.solv, self.pool
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
            common = pool.Dep(relation.name).Rel(solv.REL_ARCH, pool.Dep(self.kind.everywhere))
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
        """A requirement with its alternatives and conditions as libsolv has it."""
        found = self.joined(map(self.requirement, group.alternatives), self.solv.REL_OR)
        if not group.conditions:
            return found
        return found.Rel(
            self.solv.REL_COND, self.joined(map(self.requirement, group.conditions), self.solv.REL_AND)
        )

    def joined(self, parts: Iterable[Any], operator: int) -> Any:
        """Requirements joined by one of libsolv's REL_ constants; there is at least one."""
        *first, last = parts
        for one in reversed(first):
            last = one.Rel(operator, last)
        return last

    def base(self) -> Sequence[tuple[str, ...]]:
        """The names of the base set: one of each tuple is needed."""
        return self.kind.base(self._loaded)

    def downloads(self, packages: Collection[Package], repository: str) -> Mapping[str, int]:
        """The sizes of the files of `packages` in bytes by their keys, where libsolv has none."""
        lists = [
            one.downloads for one in self._loaded if one.name == repository and one.downloads is not None
        ]
        return {key: size for one in lists for key, size in one(packages).items()}

    def contents(
        self, packages: Collection[Package], repository: str
    ) -> Mapping[str, tuple[bytes, ...]] | None:
        """The files of `packages` of a repository by their keys; None where it has no file lists."""
        found: dict[str, tuple[bytes, ...]] = {}
        lists = [one.contents for one in self._loaded if one.name == repository and one.contents is not None]
        for one in lists:
            found.update(one(packages))
        return found if lists else None
