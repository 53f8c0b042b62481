"""Find what would be installed for a policy on a system without packages, by libsolv.

Each line of a whitelist becomes a stand-in: a package of our own that requires what the line requires. So
libsolv applies its rules for packages to all of them, conditions included, and its problems lead back to
lines.

If several packages satisfy a requirement, libsolv takes the first by name. Our order is that of the
closure (`pkgjail.closure.search`): the first alternative, the package of that very name, a provider that
every system has by its priority (Debian), then the first by key. So we look at each choice that libsolv
made, favour the packages that we prefer, and solve again. A package that cannot be installed with the rest
is not taken, even if favoured; nor is one that another choice makes unnecessary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkgjail.closure.reasons import ESSENTIAL
from pkgjail.core.errors import ClosureError, Problem
from pkgjail.core.model import Dependency, record
from pkgjail.repositories.problems import STAND_IN, problems_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import Package, Policy, Relation
    from pkgjail.repositories.pool import Pool


@record
class Chosen:
    """A package that would be installed, its repository, and its download size in bytes."""

    package: Package
    repository: str
    download: int


@record
class Solution:
    """The packages that would be installed, and the edges between them; both sorted."""

    chosen: tuple[Chosen, ...]
    dependencies: tuple[Dependency, ...]


@record
class _Line:
    """A line of a whitelist, or a part of the base set, and its stand-in."""

    origin: str
    kind: str
    text: str
    solvable: Any


def solve(pool: Pool, policy: Policy) -> Solution:
    """Return what would be installed for `policy`. Raises `ClosureError` with all conflicts."""
    base = pool.base() if policy.essential else ()
    return _Resolution(pool).solve(policy, base)


class _Resolution:
    """The state of one `solve`."""

    def __init__(self, pool: Pool) -> None:
        self._solv = pool.solv
        self._pool = pool
        self._solv_pool = pool.solv_pool
        self._format = pool.format
        self._lines: list[_Line] = []

    def solve(self, policy: Policy, base: Sequence[tuple[str, ...]]) -> Solution:
        """Solve until no package is preferred to one that was chosen. Raises `ClosureError`."""
        roots = list(self._roots(policy, base))  # before the pool grows, which drops its index of providers
        own = self._solv_pool.add_repo("pkgjail")
        try:
            for number, (origin, kind, text, requirements) in enumerate(roots):
                solvable = self._stand_in(own, number, requirements)
                self._lines.append(_Line(origin=origin, kind=kind, text=text, solvable=solvable))
            self._index()
            return self._settle(recommends=policy.recommends)
        finally:
            own.free(True)
            self._index()

    def _index(self) -> None:
        self._solv_pool.addfileprovides()
        self._solv_pool.createwhatprovides()

    def _roots(
        self, policy: Policy, base: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[str, str, str, list[Any]]]:
        """Origin, kind, text and requirements of each line, in an order that is not the whitelists'."""
        for rule in sorted(policy.packages, key=lambda rule: rule.text):
            requirements = [self._pool.group(group) for group in rule.groups]
            yield rule.origin or "command line", "whitelist", rule.text, requirements
        for names in base:
            parts = [self._pool.named(name) for name in names]
            either = self._pool.joined(parts, self._solv.REL_OR)
            yield ESSENTIAL, ESSENTIAL, " or ".join(names), [either]

    def _stand_in(self, repository: Any, number: int, requirements: Sequence[Any]) -> Any:
        """Add a package that has a line's requirements."""
        solvable = repository.add_solvable()
        solvable.name, solvable.evr = f"{STAND_IN}{number}", "0"
        solvable.archid = self._solv_pool.str2id(self._format.everywhere)
        for each in requirements:
            solvable.add_requires(each)
        return solvable

    def _settle(self, *, recommends: bool) -> Solution:
        favoured: list[Any] = []
        settled: set[tuple[str, ...]] = set()
        solver = self._run(favoured, recommends=recommends)
        while better := list(self._better(solver, settled)):
            # The last one has the most weight in libsolv: the one settled first, as in the closure.
            favoured = [*reversed(better), *favoured]
            solver = self._run(favoured, recommends=recommends)
        return self._solution(solver, recommends=recommends)

    def _run(self, favoured: Sequence[Any], *, recommends: bool) -> Any:
        job = self._solv.Job
        install, favour = (one | job.SOLVER_SOLVABLE for one in (job.SOLVER_INSTALL, job.SOLVER_FAVOR))
        jobs = [self._solv_pool.Job(install, line.solvable.id) for line in self._lines]
        jobs += [self._solv_pool.Job(favour, one.id) for one in favoured]
        solver = self._solv_pool.Solver()
        solver.set_flag(self._solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, not recommends)
        problems = solver.solve(jobs)
        if problems:
            raise ClosureError(problems_in_words(problems, [line.origin for line in self._lines]))
        return solver

    def _better(self, solver: Any, settled: set[tuple[str, ...]]) -> Iterator[Any]:
        """Packages that we prefer to those that libsolv chose; each choice is examined once."""
        for choice in solver.alternatives():
            requirement = choice.dep or (choice.rule.info().dep if choice.rule else None)
            candidates = list(choice.choices())
            identity = (str(requirement), *sorted(str(one) for one in candidates))
            if requirement is None or identity in settled:
                continue
            settled.add(identity)
            preferred = self._preferred(str(requirement), candidates)
            if preferred.id != choice.chosen.id:
                yield preferred

    def _preferred(self, requirement: str, candidates: Sequence[Any]) -> Any:
        """The first in our order of `candidates`, which all satisfy `requirement`."""
        first, own = self._pool.preferred, (self._pool.architecture, self._format.everywhere)
        ranked = sorted(
            candidates, key=lambda one: (one.arch not in own, one.name not in first, f"{one.name}:{one.arch}")
        )
        for name in self._format.alternatives(requirement):
            named = [one for one in ranked if one.name == name]
            providers = {one.id for one in self._solv_pool.whatprovides(self._solv_pool.Dep(name))}
            found = named or [one for one in ranked if one.id in providers]
            if found:
                return found[0]
        return ranked[0]

    def _solution(self, solver: Any, *, recommends: bool) -> Solution:
        own = {line.solvable.id: line for line in self._lines}
        installed = {one.id: one for one in solver.transaction().newsolvables()}
        real = [one for number, one in installed.items() if number not in own]
        edges: set[tuple[str, str, str, str]] = set()
        for number, solvable in installed.items():
            line = own.get(number)
            source = line.origin if line else f"{solvable.name}:{solvable.arch}"
            for field, required in self._requirements(solvable, recommends=recommends):
                parts = () if line else self._format.clauses(str(required))
                kind, text = (line.kind, line.text) if line else (field, self._format.native(str(required)))
                for target in self._targets(solvable, required, parts, real):
                    edges.add((source, f"{target.name}:{target.arch}", kind, text))
        self._refuse_unsatisfied(installed.values(), own)
        return Solution(
            chosen=tuple(sorted(self._chosen(real), key=lambda one: one.package.key)),
            dependencies=tuple(
                Dependency(source=source, target=target, kind=kind, text=text)
                for source, target, kind, text in sorted(edges)
            ),
        )

    def _targets(
        self, source: Any, required: Any, parts: Sequence[Relation], installed: Sequence[Any]
    ) -> Iterator[Any]:
        """Those of `installed` that satisfy a requirement: one, or one for each of its `parts`."""
        for part in [self._pool.requirement(one) for one in parts] or [required]:
            providers = {one.id for one in self._solv_pool.whatprovides(part)}
            found = [one for one in installed if one.id in providers]
            if found and source.id not in providers:
                yield self._preferred(str(part), found)

    def _refuse_unsatisfied(self, installed: Iterable[Any], own: Mapping[int, _Line]) -> None:
        """Refuse a solution that only libsolv accepts, with laxer rules than the package manager's."""
        solvables = list(installed)
        problems = []
        for source in solvables:
            for _, required in self._requirements(source, recommends=False):
                text = str(required)
                providers = {one.id for one in self._solv_pool.whatprovides(required)}
                found = [one for one in solvables if one.id in providers]
                if found and not any(self._satisfies(one, text) for one in found):
                    line = own.get(source.id)
                    names = ", ".join(sorted({one.name for one in found}))
                    requires = "" if line else f"{source.name} requires "
                    why = (
                        f"{requires}{text}: {names} provides it without a version, which does not satisfy it"
                    )
                    problems.append(Problem(line.origin if line else "", f"cannot be installed: {why}"))
        if problems:
            raise ClosureError(sorted(problems))

    def _satisfies(self, solvable: Any, text: str) -> bool:
        if solvable.name in self._format.alternatives(text):
            return True
        provides = [str(one) for one in solvable.lookup_deparray(self._solv.SOLVABLE_PROVIDES)]
        return self._format.is_satisfied(text, provides)

    def _requirements(self, solvable: Any, *, recommends: bool) -> Iterator[tuple[str, Any]]:
        """Field and requirement, for each requirement of a package."""
        plain, before = self._format.fields
        for field, marker in ((plain, -1), (before, 1)):
            for each in solvable.lookup_deparray(self._solv.SOLVABLE_REQUIRES, marker):
                yield field, each
        if recommends:
            for each in solvable.lookup_deparray(self._solv.SOLVABLE_RECOMMENDS):
                yield "Recommends", each

    def _chosen(self, solvables: Sequence[Any]) -> list[Chosen]:
        by_repository: dict[str, list[tuple[Package, int]]] = {}
        for one in solvables:
            members = by_repository.setdefault(str(one.repo.name), [])
            members.append((self._pool.package(one), one.lookup_num(self._solv.SOLVABLE_DOWNLOADSIZE)))
        return [
            Chosen(package=package, repository=name, download=size or sizes.get(package.key, 0))
            for name, members in by_repository.items()
            for sizes in [self._pool.downloads([package for package, _ in members], name)]
            for package, size in members
        ]
