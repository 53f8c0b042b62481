"""Find the closure of a policy: every package that it requires, and the reason for each.

A requirement that one package satisfies is settled at once. If several installed packages satisfy it,
it waits until nothing else is left, because by then one of them is often in the closure for another
reason. A requirement with conditions counts as soon as they are met, before any choice is made.
Waiting requirements are settled in the order of their texts and not of the lines that have them, so
that the order of a whitelist's lines does not matter.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pkgjail.closure.reasons import ESSENTIAL, shortest_reasons
from pkgjail.core.model import Closure, Dependency, Unmet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.model import DependencyGroup, Package, Policy, Relation, Rule

# The text of edges to essential packages: Debian marks them by a field, other families have a list.
_ESSENTIAL_TEXTS = {"debian": "Essential: yes"}

# The kind of a whitelist's entry.
_ENTRY = "whitelist"

# Fields whose requirements are optional: one that no installed package satisfies is left out silently.
_WEAK = frozenset({"Recommends"})

# rpm's requirements of a package's scripts alone: `Requires(post)`, `Requires(pre,postun)`.
_OF_SCRIPTS = "Requires("
_ONLY_SCRIPTS = "only scripts of the package need it, and none runs in a jail"


class Searched(Protocol):
    """The part of `model.PackageDatabase` that a search uses, where each method is described."""

    @property
    def family(self) -> str:
        """The key of `[packages]` in a whitelist."""
        ...

    @property
    def architecture(self) -> str:
        """The native architecture."""
        ...

    @property
    def packages(self) -> Mapping[str, Package]:
        """Every package by its `key`; at least each that `candidates` returned."""
        ...

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return the requirements of `package`."""
        ...

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation` for a package of `architecture`."""
        ...

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Say why `candidates` is empty, and what to do."""
        ...


class _Choice(NamedTuple):
    """A requirement that several packages satisfy. Choices are settled in the order of these fields."""

    text: str
    architecture: str
    source: str
    kind: str
    candidates: tuple[str, ...]


def resolve_closure(database: Searched, policy: Policy, owners: Iterable[tuple[Rule, str]] = ()) -> Closure:
    """Return the packages that `policy` requires, and everything that they require, of those installed.

    Of the members of an or-group, the first counts that any installed package satisfies (Debian Policy 7.1).
    Of several packages that satisfy it, one that is in the closure for another reason is taken (one of
    that very name before its providers), otherwise the one of that name, otherwise the first provider by
    name. An entry of a whitelist that names a package always brings that one. A package that satisfies its
    own requirement needs no other. The result does not depend on the order of the policy's rules. `owners`
    are packages that a rule requires by their keys.

    Requirements that nothing satisfies are no error: they are the closure's `unmet`.
    """
    search = _Search(database, recommends=policy.recommends)
    for requirement in policy.packages:
        for group in requirement.groups:
            search.require(requirement.origin, database.architecture, group)
    for rule, key in owners:
        search.add(rule.origin, key, "whitelist", rule.pattern)
    if policy.essential:
        text = _ESSENTIAL_TEXTS.get(database.family, "base set")
        for package in database.packages.values():
            if package.essential:
                search.add(ESSENTIAL, package.key, ESSENTIAL, text)
    search.run()
    return search.result()


def may_be_gone(unmet: Unmet) -> bool:
    """Return whether a sound system may lack what satisfies a requirement: only rpm's scripts need it.

    Images are made so: rpm itself verifies such requirements when it runs the scripts, and not later.
    """
    return unmet.kind.startswith(_OF_SCRIPTS)


class _Search:
    """The state of one resolution."""

    def __init__(self, database: Searched, *, recommends: bool) -> None:
        self._database = database
        self._recommends = recommends
        self._chosen: dict[str, Package] = {}
        self._unread: list[Package] = []
        self._choices: list[_Choice] = []
        self._conditional: list[tuple[str, str, DependencyGroup]] = []
        self._edges: set[tuple[str, str, str, str]] = set()
        self._unmet: set[tuple[str, str, str, str]] = set()

    def run(self) -> None:
        """Work until every requirement is settled."""
        while self._unread or self._apply_conditional() or self._choices:
            if self._unread:
                self._read(self._unread.pop())
            elif self._choices:
                self._settle(heapq.heappop(self._choices))

    def _read(self, package: Package) -> None:
        for group in self._database.requirements(package, recommends=self._recommends):
            self.require(package.key, package.architecture, group)

    def _apply_conditional(self) -> bool:
        """Apply the requirements whose conditions the closure meets by now; return whether there were any."""
        due = [each for each in self._conditional if self._is_due(each[1], each[2])]
        if due:
            self._conditional = [each for each in self._conditional if each not in due]
        for source, architecture, group in due:
            self._apply(source, architecture, group)
        return bool(due)

    def _is_due(self, architecture: str, group: DependencyGroup) -> bool:
        return all(
            any(package.key in self._chosen for package in self._database.candidates(each, architecture))
            for each in group.conditions
        )

    def require(self, source: str, architecture: str, group: DependencyGroup) -> None:
        """Apply a requirement, or put it off until its conditions are met."""
        if group.conditions:
            self._conditional.append((source, architecture, group))
        else:
            self._apply(source, architecture, group)

    def _apply(self, source: str, architecture: str, group: DependencyGroup) -> None:
        """Settle a requirement that one package satisfies, put off a choice, or note an unmet one."""
        for relation in group.alternatives:
            keys = tuple(package.key for package in self._database.candidates(relation, architecture))
            if not keys:
                continue
            if source in keys:
                return
            is_named = group.kind == _ENTRY and self._database.packages[keys[0]].name == relation.name
            if len(keys) == 1 or is_named:
                self.add(source, keys[0], group.kind, group.text)
            else:
                heapq.heappush(self._choices, _Choice(group.text, architecture, source, group.kind, keys))
            return
        if group.kind not in _WEAK:
            reasons = dict.fromkeys(
                self._database.unmet_reason(each, architecture) for each in group.alternatives
            )
            if group.kind.startswith(_OF_SCRIPTS):
                reasons = {_ONLY_SCRIPTS: None}
            self._unmet.add((source, group.kind, group.text, "; ".join(reasons)))

    def _settle(self, choice: _Choice) -> None:
        """Take a candidate that is in the closure already, otherwise the first one."""
        present = (key for key in choice.candidates if key in self._chosen)
        self.add(choice.source, next(present, choice.candidates[0]), choice.kind, choice.text)

    def add(self, source: str, target: str, kind: str, text: str) -> None:
        """Note the edge, and bring the package `target` into the closure if it is not there."""
        self._edges.add((source, target, kind, text))
        if target not in self._chosen:
            package = self._database.packages[target]
            self._chosen[target] = package
            self._unread.append(package)

    def result(self) -> Closure:
        """Return the finished closure, sorted."""
        dependencies = tuple(
            Dependency(source=source, target=target, kind=kind, text=text)
            for source, target, kind, text in sorted(self._edges)
        )
        return Closure(
            packages=tuple(self._chosen[key] for key in sorted(self._chosen)),
            dependencies=dependencies,
            reasons=shortest_reasons(dependencies),
            unmet=tuple(
                Unmet(source=source, kind=kind, text=text, reason=reason)
                for source, kind, text, reason in sorted(self._unmet)
            ),
        )
