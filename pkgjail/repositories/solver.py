"""Find what would be installed for a policy on a system without packages, by libsolv.

Each line of a whitelist becomes a stand-in: a package of our own that requires what the line requires. So
libsolv applies its rules for packages to all of them, conditions included, and its problems lead back to
lines.

If several packages satisfy a requirement, libsolv takes one by rules of its own, and leaves out what its
other choices make unnecessary. Our rules are those of the closure (`pkgjail.closure.search`), so that search
makes all choices here too, among the packages of the repositories. libsolv says which of the packages that
it found cannot be installed together with the rest. Those are excluded, and the search begins again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pkgjail.closure.reasons import ESSENTIAL
from pkgjail.closure.search import resolve_closure
from pkgjail.core.errors import ClosureError, Problem
from pkgjail.core.model import Dependency, Requirement, record
from pkgjail.repositories.choices import Choices
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
        """Search for the closure until all its packages can be installed. Raises `ClosureError`."""
        roots = list(self._roots(policy, base))  # before the pool grows, which drops its index of providers
        own = self._solv_pool.add_repo("pkgjail")
        try:
            for number, (origin, kind, text, requirements) in enumerate(roots):
                solvable = self._stand_in(own, number, requirements)
                self._lines.append(_Line(origin=origin, kind=kind, text=text, solvable=solvable))
            self._index()
            return self._settle(policy, base)
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

    def _settle(self, policy: Policy, base: Sequence[tuple[str, ...]]) -> Solution:
        self._run((), recommends=False)  # refuses what cannot be installed at all
        excluded: set[int] = set()
        while True:
            choices = Choices(self._pool, excluded)
            resolve_closure(choices, self._asked(choices, policy, base))
            solver = self._run(choices.read, recommends=policy.recommends)
            installed = {one.id for one in solver.transaction().newsolvables()}
            left_out = {one.id for one in choices.read} - installed
            if not left_out:
                return self._solution(solver, recommends=policy.recommends)
            excluded |= left_out

    def _asked(self, choices: Choices, policy: Policy, base: Sequence[tuple[str, ...]]) -> Policy:
        """Return `policy` with the base set as entries."""
        packages = list(policy.packages)
        for names in base:
            text = " or ".join(names)
            group = choices.requirement(ESSENTIAL, text, map(self._pool.named, names))
            packages.append(Requirement(text=text, origin=ESSENTIAL, groups=(group,)))
        return replace(policy, packages=tuple(packages), essential=False)

    def _run(self, wanted: Sequence[Any], *, recommends: bool) -> Any:
        """Solve the lines with as many of `wanted` as can be installed with them, the first ones first."""
        job = self._solv.Job
        install = job.SOLVER_INSTALL | job.SOLVER_SOLVABLE
        jobs = [self._solv_pool.Job(install, line.solvable.id) for line in self._lines]
        jobs += [self._solv_pool.Job(install | job.SOLVER_WEAK, one.id) for one in wanted]
        solver = self._solv_pool.Solver()
        solver.set_flag(self._solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, not recommends)
        problems = solver.solve(jobs)
        if problems:
            raise ClosureError(problems_in_words(problems, [line.origin for line in self._lines]))
        return solver

    def _solution(self, solver: Any, *, recommends: bool) -> Solution:
        own = {line.solvable.id: line for line in self._lines}
        installed = {one.id: one for one in solver.transaction().newsolvables()}
        real = [one for number, one in installed.items() if number not in own]
        edges: set[tuple[str, str, str, str]] = set()
        for number, solvable in installed.items():
            line = own.get(number)
            source = line.origin if line else f"{solvable.name}:{solvable.arch}"
            for field, required in self._pool.requirements(solvable, recommends=recommends):
                groups = () if line else self._format.groups(str(required), field)
                parts = [one for group in groups for one in group.alternatives]
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
                yield self._pool.ranked(str(part), found)[0]

    def _refuse_unsatisfied(self, installed: Iterable[Any], own: Mapping[int, _Line]) -> None:
        """Refuse a solution that only libsolv accepts, with laxer rules than the package manager's."""
        solvables = list(installed)
        problems = []
        for source in solvables:
            for _, required in self._pool.requirements(source, recommends=False):
                providers = {one.id for one in self._solv_pool.whatprovides(required)}
                found = [one for one in solvables if one.id in providers]
                if found and not providers.intersection(one.id for one in self._pool.satisfying(required)):
                    line = own.get(source.id)
                    names = ", ".join(sorted({one.name for one in found}))
                    requires = "" if line else f"{source.name} requires "
                    why = (
                        f"{requires}{required}: {names} provides it without a version, which does not "
                        "satisfy it"
                    )
                    problems.append(Problem(line.origin if line else "", f"cannot be installed: {why}"))
        if problems:
            raise ClosureError(sorted(problems))

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
