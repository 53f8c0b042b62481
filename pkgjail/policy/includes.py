"""Find the lists that a policy names and all that they include, and note what is wrong with each."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from pkgjail.core.model import record, text_path
from pkgjail.policy.lists import BLACKLIST, WHITELIST, Entry, Page, Source, did_you_mean, find
from pkgjail.policy.patterns import check_pattern, rule_text
from pkgjail.policy.whitelist import Whitelist, read_whitelist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pkgjail.core.model import DependencyGroup, PackageNames, Rule

_MOST_RULES = 10_000  # of a blacklist
_DEEPEST = 50  # lists that include each other
_MOST_TOLD = 20


@record
class Loaded:
    """A whitelist with what comes of the lists that it includes.

    `families` are those that any of them names; `complete` says that all of them could be read.
    """

    source: Source
    page: Page
    own: Whitelist
    families: frozenset[str]
    recommends: bool | None
    essential: bool | None
    complete: bool


class Loader:
    """The state of one `load_policy`: what was read, in the order of merging, and what is wrong."""

    def __init__(self, database: PackageNames) -> None:
        self.database = database
        self.command_line = Page("")
        self.pages = [self.command_line]
        self.merged: list[Loaded] = []
        self.blacklists: list[Source] = []
        self.drops: list[Rule] = []
        self._whitelists: dict[str, Loaded | None] = {}
        self._meanings = 0

    def whitelist(
        self, name: str, folder: Path | None, asker: Page, line: int, trail: tuple[Source, ...] = ()
    ) -> Loaded | None:
        """Load the list that `asker` names in its `line`, relative to `folder`, and all it includes.

        `trail` are the lists that are being loaded. What is wrong is noted on the pages; None is
        returned where the list itself cannot be read.
        """
        try:
            source = find(WHITELIST, name, folder)
            _refuse_cycle((*trail, source))
            if source.identity in self._whitelists:
                return self._whitelists[source.identity]
            data = source.read()
        except ValueError as error:
            asker.add(line, str(error))
            return None
        page = self._page(source)
        own = read_whitelist(data, self.database.family, page)
        loaded = self._with_included(source, own, page, (*trail, source)) if own else None
        self._whitelists[source.identity] = loaded
        if loaded:
            self.merged.append(loaded)
        return loaded

    def blacklist(self, name: str, folder: Path | None, asker: Page, line: int) -> None:
        """Load the blacklist that `asker` names in its `line`, unless it was there before."""
        try:
            source = find(BLACKLIST, name, folder)
            if source.identity in [each.identity for each in self.blacklists]:
                return
            data = source.read()
        except ValueError as error:
            asker.add(line, str(error))
            return
        self.blacklists.append(source)
        self.drops.extend(_read_blacklist(data, self._page(source)))

    def _page(self, source: Source) -> Page:
        self.pages.append(Page(source.file, shipped=source.folder is None))
        return self.pages[-1]

    def _with_included(self, source: Source, own: Whitelist, page: Page, trail: tuple[Source, ...]) -> Loaded:
        self._check_packages(own.packages.get(self.database.family, ()), page)
        asked = [
            None if page.is_full else self.whitelist(entry.text, source.folder, page, entry.line, trail)
            for entry in own.include
        ]
        included = [each for each in asked if each]
        loaded = Loaded(
            source=source,
            page=page,
            own=own,
            families=frozenset(own.packages).union(*(each.families for each in included)),
            recommends=first(own.recommends, widest(each.recommends for each in included)),
            essential=first(own.essential, widest(each.essential for each in included)),
            complete=len(included) == len(asked) and all(each.complete for each in included),
        )
        self._check_family(loaded, page)
        return loaded

    def _check_family(self, loaded: Loaded, page: Page) -> None:
        """A list that brings files alone serves every family; one of packages must have the host's."""
        family = self.database.family
        only_files = loaded.own.files and not loaded.families
        if loaded.complete and family not in loaded.families and not only_files:
            has = f"has {', '.join(sorted(loaded.families))}" if loaded.families else "is empty"
            message = f"no packages for this host's family: [packages] {has}; add {family} = [...]"
            page.add(loaded.own.packages_line, message)

    def _check_packages(self, entries: Iterable[Entry], page: Page) -> None:
        for entry in entries:
            if page.is_full:
                return
            try:
                groups = self.database.parse(entry.text)
            except ValueError as error:
                page.add(entry.line, f"bad requirement {entry.text!r}: {error}")
                continue
            if fault := "; ".join(filter(None, map(self._shortcoming, groups))):
                page.add(entry.line, f"cannot satisfy {entry.text!r}: {fault}")

    def _shortcoming(self, group: DependencyGroup) -> str:
        """Why no installed package satisfies `group`; "" where one does, or where nothing asks it."""
        architecture = self.database.architecture
        if any(self.database.candidates(relation, architecture) for relation in group.alternatives):
            return ""
        if not all(self.database.candidates(relation, architecture) for relation in group.conditions):
            return ""
        names = {package.name for package in self.database.packages.values()}
        return "; ".join(
            self.database.shortcoming(relation, architecture) + self._meant(relation.name, names)
            for relation in group.alternatives[:_MOST_TOLD]
        )

    def _meant(self, name: str, names: set[str]) -> str:
        """The packages that a name may have meant; not for the hundredth one, as each is a long search."""
        if name in names or self._meanings == _MOST_TOLD:
            return ""
        self._meanings += 1
        return did_you_mean(name, names)


def _refuse_cycle(trail: tuple[Source, ...]) -> None:
    """Raise `ValueError` where the last of `trail` is in it before, or `trail` is too long."""
    *before, last = trail
    if len(before) > _DEEPEST:
        raise ValueError(f"{last.file} is included by more than {_DEEPEST} lists, one by the other")
    names = [each.identity for each in before]
    if last.identity in names:
        cycle = [*before[names.index(last.identity) :], last]
        raise ValueError(f"include cycle: {' -> '.join(each.file for each in cycle)}")


def _read_blacklist(data: bytes, page: Page) -> Iterator[Rule]:
    """The rules of a blacklist's content, which may hold any bytes, as paths may."""
    rules = 0
    for line, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        text = rule_text(text_path(raw))
        if not text:
            continue
        rules += 1
        if rules > _MOST_RULES or page.is_full:
            page.add(line, f"a blacklist has {_MOST_RULES:,} patterns at most")
            return
        if fault := check_pattern(text):
            page.add(line, f"bad pattern {text!r}: {fault}")
        else:
            yield page.rule(Entry(text=text, line=line))


def first(*values: bool | None) -> bool | None:
    """The first value that is stated."""
    return next((value for value in values if value is not None), None)


def widest(values: Iterable[bool | None]) -> bool | None:
    """True where any value is, as more is then asked for; None where none is stated."""
    stated = [value for value in values if value is not None]
    return any(stated) if stated else None
