"""Find and read the lists that a policy names and everything that they include, and note all problems."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from pkgjail.core.model import Requirement, record
from pkgjail.core.nearest import suggestion
from pkgjail.core.parameters import parameter
from pkgjail.core.recognise import mistaken_for
from pkgjail.core.text import text_path
from pkgjail.policy.lists import BLACKLIST, WHITELIST, Entry, ListProblems, Source, find
from pkgjail.policy.patterns import check_pattern, rule_text
from pkgjail.policy.whitelist import Whitelist, read_whitelist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pkgjail.core.model import DependencyGroup, PackageNames, Rule

_MAX_RULES = 10_000  # of a blacklist
_MAX_DEPTH = 50  # lists that include each other
_MAX_SUGGESTIONS = 20
ASKED = "packages"
"""What stands in the place of a list's file for requirements that are asked for by name."""


@record
class LoadedWhitelist:
    """A whitelist, with what follows from the lists that it includes.

    `requirements` are its own, for the family of the database. `families` are those that any of the lists
    names; `complete` says that all of them could be read.
    """

    source: Source
    problems: ListProblems
    own: Whitelist
    requirements: tuple[Requirement, ...]
    families: frozenset[str]
    recommends: bool | None
    essential: bool | None
    package_database: bool | None
    complete: bool


class PolicyReader:
    """The state of one `load_policy`: the lists read so far, in the order of merging, and their problems."""

    def __init__(self, database: PackageNames) -> None:
        self.database = database
        self.command_line = ListProblems("")
        self.problems = [self.command_line]
        self.merged: list[LoadedWhitelist] = []
        self.blacklists: list[Source] = []
        self.drops: list[Rule] = []
        self._whitelists: dict[str, LoadedWhitelist | None] = {}
        self._suggestions = 0

    def read_whitelist(
        self,
        name: str,
        folder: Path | None,
        namer: ListProblems,
        line: int,
        including: tuple[Source, ...] = (),
    ) -> LoadedWhitelist | None:
        """Read the list `name`, relative to `folder`, and all that it includes.

        The list is named in the `line` of `namer`, which receives the problem if it cannot be found.
        `including` are the lists that are being read. The result is None if the list itself cannot be read.
        """
        try:
            source = find(WHITELIST, name, folder)
            _refuse_cycle((*including, source))
            if source.identity in self._whitelists:
                return self._whitelists[source.identity]
            data = source.read()
        except ValueError as error:
            namer.add(line, f"{error}{self._as_package(name)}")
            return None
        problems = self._problems_of(source)
        own = read_whitelist(data, self.database.family, problems)
        loaded = self._with_included(source, own, problems, (*including, source)) if own else None
        self._whitelists[source.identity] = loaded
        if loaded:
            self.merged.append(loaded)
        return loaded

    def read_packages(self, texts: Iterable[str]) -> tuple[Requirement, ...]:
        """Read requirements that no list has, in any order. Their origin is `packages`."""
        problems = ListProblems(ASKED)
        self.problems.append(problems)
        entries = (Entry(text=text, line=0) for text in sorted({" ".join(text.split()) for text in texts}))
        return tuple(self._requirements(entries, problems))

    def read_blacklist(self, name: str, folder: Path | None, namer: ListProblems, line: int) -> None:
        """Read the blacklist that `namer` names in its `line`, unless it was read before."""
        try:
            source = find(BLACKLIST, name, folder)
            if source.identity in [each.identity for each in self.blacklists]:
                return
            data = source.read()
        except ValueError as error:
            namer.add(line, str(error))
            return
        self.blacklists.append(source)
        self.drops.extend(_blacklist_rules(data, self._problems_of(source)))

    def _as_package(self, name: str) -> str:
        """Say how to ask for a package that was named in the place of a list, for the end of a message."""
        if any(package.name == name for package in self.database.packages.values()):
            return f"; {name!r} is a package: ask for it with {parameter('packages')}"
        return ""

    def _problems_of(self, source: Source) -> ListProblems:
        self.problems.append(ListProblems(source.file, shipped=source.folder is None))
        return self.problems[-1]

    def _with_included(
        self, source: Source, own: Whitelist, problems: ListProblems, including: tuple[Source, ...]
    ) -> LoadedWhitelist:
        entries = own.packages.get(self.database.family, ())
        requirements = tuple(self._requirements(entries, problems))
        results = [
            None
            if problems.is_full
            else self.read_whitelist(entry.text, source.folder, problems, entry.line, including)
            for entry in own.include
        ]
        included = [each for each in results if each]
        loaded = LoadedWhitelist(
            source=source,
            problems=problems,
            own=own,
            requirements=requirements,
            families=frozenset(own.packages).union(*(each.families for each in included)),
            recommends=first_stated(own.recommends, any_stated(each.recommends for each in included)),
            essential=first_stated(own.essential, any_stated(each.essential for each in included)),
            package_database=first_stated(
                own.package_database, any_stated(each.package_database for each in included)
            ),
            complete=len(included) == len(results) and all(each.complete for each in included),
        )
        self._check_family(loaded, problems)
        return loaded

    def _check_family(self, loaded: LoadedWhitelist, problems: ListProblems) -> None:
        """A list with packages must have some for the host's family; one without any serves them all."""
        family = self.database.family
        only_files = (loaded.own.files or loaded.own.owners or loaded.own.devices) and not loaded.families
        if loaded.complete and family not in loaded.families and not only_files:
            has = f"has {', '.join(sorted(loaded.families))}" if loaded.families else "is empty"
            message = f"no packages for this host's family: [packages] {has}; add {family} = [...]"
            problems.add(loaded.own.packages_line, message)

    def _requirements(self, entries: Iterable[Entry], problems: ListProblems) -> Iterator[Requirement]:
        """The entries that can be parsed; it is a problem if no package satisfies one."""
        for entry in entries:
            if problems.is_full:
                return
            try:
                groups = self.database.parse(entry.text)
            except ValueError as error:
                problems.add(entry.line, f"bad requirement {entry.text!r}: {error}")
                continue
            if reasons := "; ".join(filter(None, map(self._unmet_reason, groups))):
                problems.add(entry.line, f"cannot satisfy {entry.text!r}: {reasons}")
            yield Requirement(text=entry.text, origin=problems.origin(entry.line), groups=groups)

    def _unmet_reason(self, group: DependencyGroup) -> str:
        """Say why no package satisfies `group`; "" if one does, or if its conditions cannot be met."""
        architecture = self.database.architecture
        if any(self.database.candidates(relation, architecture) for relation in group.alternatives):
            return ""
        if not all(self.database.candidates(relation, architecture) for relation in group.conditions):
            return ""
        names = {package.name for package in self.database.packages.values()}
        return "; ".join(
            self._absence(relation.name, self.database.unmet_reason(relation, architecture), names)
            for relation in group.alternatives[:_MAX_SUGGESTIONS]
        )

    def _absence(self, name: str, reason: str, names: set[str]) -> str:
        """Return the reason with similar names, and without the advice to install what does not exist.

        There are none for the hundredth name, because each takes a long search.
        """
        if name in names or self._suggestions == _MAX_SUGGESTIONS:
            return reason
        self._suggestions += 1
        available = self.database.available_names()
        if name in available:
            return reason
        what, install, _ = reason.partition("; install it")
        near = suggestion(name, names, available)
        if install and available:
            return f"{what}, and no repository that this host knows has it{near}"
        return f"{what if install and near else reason}{near}"


def _refuse_cycle(including: tuple[Source, ...]) -> None:
    """Raise `ValueError` if the last list is among those before it, or if there are too many."""
    *before, last = including
    if len(before) > _MAX_DEPTH:
        raise ValueError(f"{last.file} is included through a chain of more than {_MAX_DEPTH} lists")
    names = [each.identity for each in before]
    if last.identity in names:
        cycle = [*before[names.index(last.identity) :], last]
        raise ValueError(f"include cycle: {' -> '.join(each.file for each in cycle)}")


def _blacklist_rules(data: bytes, problems: ListProblems) -> Iterator[Rule]:
    """The rules of a blacklist's content, in which any bytes may occur, as in paths."""
    rules = 0
    if mistaken := mistaken_for(data, "blacklist"):
        problems.add(1, mistaken)
        return
    for line, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        text = rule_text(text_path(raw.removesuffix(b"\r")))
        if not text:
            continue
        rules += 1
        if rules > _MAX_RULES or problems.is_full:
            problems.add(line, f"a blacklist has {_MAX_RULES:,} patterns at most")
            return
        if fault := check_pattern(text):
            problems.add(line, f"bad pattern {text!r}: {fault}")
        else:
            yield problems.rule(Entry(text=text, line=line))


def first_stated(*values: bool | None) -> bool | None:
    """Return the first value that is not None."""
    return next((value for value in values if value is not None), None)


def any_stated(values: Iterable[bool | None]) -> bool | None:
    """Return whether any value is true; None if all are None."""
    stated = [value for value in values if value is not None]
    return any(stated) if stated else None
