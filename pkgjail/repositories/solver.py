"""One question to libsolv: what would be installed where nothing is.

Each line of a whitelist is a package of our own that requires what the line asks for, so that libsolv
settles all of them by its rules for packages, conditions too, and its problems can be traced to lines.

Where several packages could answer, libsolv takes the first by name. Ours is the order of the closure of
what is installed (`pkgjail.closure.search`): an or-group's first alternative, the package of that very
name, then
a provider that every system has by its priority (Debian), then the first by key. So we ask it where it
had a choice, favour what we prefer, and ask again. What cannot be installed with the rest is not taken,
favoured or not; nor is what another's choice makes needless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import ClosureError, Problem
from pkgjail.core.model import Dependency, record
from pkgjail.repositories.problems import OWN, problems_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import Package, Policy, Relation
    from pkgjail.repositories.pool import Universe

_ESSENTIAL = "essential"


@record
class Chosen:
    """A package that would be installed, who has it, and the size of its file in bytes."""

    package: Package
    repository: str
    download: int


@record
class Solution:
    """What would be installed, and the edges from who asks to what answers; both sorted."""

    chosen: tuple[Chosen, ...]
    dependencies: tuple[Dependency, ...]


@record
class _Line:
    """A line of a whitelist, or a part of the base set, and the package that stands for it."""

    origin: str
    kind: str
    text: str
    solvable: Any


def solve(universe: Universe, policy: Policy) -> Solution:
    """What would be installed where nothing is. Raises `ClosureError` with all that is in the way."""
    base = universe.base() if policy.essential else ()
    return _Solving(universe).solve(policy, base)


class _Solving:
    """The state of one `solve`."""

    def __init__(self, universe: Universe) -> None:
        self._solv = universe.solv
        self._universe = universe
        self._pool = universe.pool
        self._kind = universe.kind
        self._lines: list[_Line] = []

    def solve(self, policy: Policy, base: Sequence[tuple[str, ...]]) -> Solution:
        """Ask until nothing is preferred to what was chosen. Raises `ClosureError`."""
        asked = list(self._asked(policy, base))  # whole: a pool that grows cannot tell who provides what
        own = self._pool.add_repo("pkgjail")
        try:
            for number, (origin, kind, text, requirements) in enumerate(asked):
                solvable = self._stand_in(own, number, requirements)
                self._lines.append(_Line(origin=origin, kind=kind, text=text, solvable=solvable))
            self._index()
            return self._settle(recommends=policy.recommends)
        finally:
            own.free(True)
            self._index()

    def _index(self) -> None:
        self._pool.addfileprovides()
        self._pool.createwhatprovides()

    def _asked(
        self, policy: Policy, base: Sequence[tuple[str, ...]]
    ) -> Iterator[tuple[str, str, str, list[Any]]]:
        """Who asks, how, in which words, and for what; in an order that is not the whitelists'."""
        for rule in sorted(policy.packages, key=lambda rule: rule.pattern):
            groups = [self._universe.group(group) for group in self._universe.parse(rule.pattern)]
            yield rule.origin or "command line", "whitelist", rule.pattern, groups
        for names in base:
            parts = [self._universe.named(name) for name in names]
            yield (
                _ESSENTIAL,
                _ESSENTIAL,
                " or ".join(names),
                [self._universe.joined(parts, self._solv.REL_OR)],
            )

    def _stand_in(self, repository: Any, number: int, requirements: Sequence[Any]) -> Any:
        """A package of our own that requires what a line asks for."""
        own = repository.add_solvable()
        own.name, own.evr = f"{OWN}{number}", "0"
        own.archid = self._pool.str2id(self._kind.everywhere)
        for one in requirements:
            own.add_requires(one)
        return own

    def _settle(self, *, recommends: bool) -> Solution:
        favoured: list[Any] = []
        settled: set[tuple[str, ...]] = set()
        solver = self._ask(favoured, recommends=recommends)
        while better := list(self._better(solver, settled)):
            # libsolv heeds the last one most: what was settled first, as in the closure.
            favoured = [*reversed(better), *favoured]
            solver = self._ask(favoured, recommends=recommends)
        return self._solution(solver, recommends=recommends)

    def _ask(self, favoured: Sequence[Any], *, recommends: bool) -> Any:
        job = self._solv.Job
        install, favour = (one | job.SOLVER_SOLVABLE for one in (job.SOLVER_INSTALL, job.SOLVER_FAVOR))
        jobs = [self._pool.Job(install, line.solvable.id) for line in self._lines]
        jobs += [self._pool.Job(favour, one.id) for one in favoured]
        solver = self._pool.Solver()
        solver.set_flag(self._solv.Solver.SOLVER_FLAG_IGNORE_RECOMMENDED, not recommends)
        problems = solver.solve(jobs)
        if problems:
            raise ClosureError(problems_in_words(problems, [line.origin for line in self._lines]))
        return solver

    def _better(self, solver: Any, settled: set[tuple[str, ...]]) -> Iterator[Any]:
        """What is preferred where libsolv has chosen something else; each choice is looked at once."""
        for choice in solver.alternatives():
            asked = choice.dep or (choice.rule.info().dep if choice.rule else None)
            candidates = list(choice.choices())
            identity = (str(asked), *sorted(str(one) for one in candidates))
            if asked is None or identity in settled:
                continue
            settled.add(identity)
            preferred = self._preferred(str(asked), candidates)
            if preferred.id != choice.chosen.id:
                yield preferred

    def _preferred(self, asked: str, candidates: Sequence[Any]) -> Any:
        """Of `candidates`, which all satisfy the requirement `asked`, the first in our order."""
        first, own = self._universe.preferred, (self._universe.architecture, self._kind.everywhere)
        ranked = sorted(
            candidates, key=lambda one: (one.arch not in own, one.name not in first, f"{one.name}:{one.arch}")
        )
        for name in self._kind.alternatives(asked):
            named = [one for one in ranked if one.name == name]
            providers = {one.id for one in self._pool.whatprovides(self._pool.Dep(name))}
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
            for kind, asked in self._requirements(solvable, recommends=recommends):
                parts = () if line else self._kind.clauses(str(asked))
                word, text = (line.kind, line.text) if line else (kind, self._kind.shown(str(asked)))
                for target in self._answers(solvable, asked, parts, real):
                    edges.add((source, f"{target.name}:{target.arch}", word, text))
        self._refuse_unanswered(installed.values(), own)
        return Solution(
            chosen=tuple(sorted(self._chosen(real), key=lambda one: one.package.key)),
            dependencies=tuple(
                Dependency(source=source, target=target, kind=kind, text=text)
                for source, target, kind, text in sorted(edges)
            ),
        )

    def _answers(
        self, asker: Any, asked: Any, parts: Sequence[Relation], installed: Sequence[Any]
    ) -> Iterator[Any]:
        """Those of `installed` that answer a requirement: one, or one for each of its `parts`."""
        for part in [self._universe.requirement(one) for one in parts] or [asked]:
            providers = {one.id for one in self._pool.whatprovides(part)}
            found = [one for one in installed if one.id in providers]
            if found and asker.id not in providers:
                yield self._preferred(str(part), found)

    def _refuse_unanswered(self, installed: Iterable[Any], own: Mapping[int, _Line]) -> None:
        """Stop where libsolv's rules are laxer than the package manager's."""
        everything = list(installed)
        problems = []
        for asker in everything:
            for _, asked in self._requirements(asker, recommends=False):
                text = str(asked)
                providers = {one.id for one in self._pool.whatprovides(asked)}
                found = [one for one in everything if one.id in providers]
                if found and not any(self._is_answer(text, one) for one in found):
                    line = own.get(asker.id)
                    names = ", ".join(sorted({one.name for one in found}))
                    said = f"{names} provides it without a version, which is no answer here"
                    who = "" if line else f"{asker.name} requires "
                    problems.append(
                        Problem(line.origin if line else "", f"cannot be installed: {who}{text}: {said}")
                    )
        if problems:
            raise ClosureError(sorted(problems))

    def _is_answer(self, text: str, solvable: Any) -> bool:
        if solvable.name in self._kind.alternatives(text):
            return True
        provides = [str(one) for one in solvable.lookup_deparray(self._solv.SOLVABLE_PROVIDES)]
        return self._kind.is_answered(text, provides)

    def _requirements(self, solvable: Any, *, recommends: bool) -> Iterator[tuple[str, Any]]:
        plain, before = self._kind.fields
        for word, marker in ((plain, -1), (before, 1)):
            for asked in solvable.lookup_deparray(self._solv.SOLVABLE_REQUIRES, marker):
                yield word, asked
        if recommends:
            for asked in solvable.lookup_deparray(self._solv.SOLVABLE_RECOMMENDS):
                yield "Recommends", asked

    def _chosen(self, solvables: Sequence[Any]) -> list[Chosen]:
        by_repository: dict[str, list[tuple[Package, int]]] = {}
        for one in solvables:
            known = by_repository.setdefault(str(one.repo.name), [])
            known.append((self._universe.package(one), one.lookup_num(self._solv.SOLVABLE_DOWNLOADSIZE)))
        return [
            Chosen(package=package, repository=name, download=size or sizes.get(package.key, 0))
            for name, members in by_repository.items()
            for sizes in [self._universe.downloads([package for package, _ in members], name)]
            for package, size in members
        ]
