"""Read whitelists and blacklists, check them against the installed packages, and merge them.

The formats are described in docs/policy.md. All problems of all files are raised together.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.errors import PolicyError
from pkgjail.lists import BLACKLIST, WHITELIST, Entry, Page, Source, did_you_mean, find
from pkgjail.model import Policy, Rule, record, text_path
from pkgjail.patterns import check_pattern, rule_text
from pkgjail.whitelist import Whitelist, read_whitelist

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.model import DependencyGroup, PackageDatabase


def shipped_whitelists() -> tuple[str, ...]:
    """Return the names of the whitelists that come with pkgjail, sorted."""
    return WHITELIST.shipped()


def shipped_blacklists() -> tuple[str, ...]:
    """Return the names of the blacklists that come with pkgjail, sorted."""
    return BLACKLIST.shipped()


def load_policy(
    whitelists: Sequence[str],
    blacklists: Sequence[str] = (),
    *,
    database: PackageDatabase,
    recommends: bool | None = None,
    essential: bool | None = None,
) -> Policy:
    """Read the named lists and all that they include, for the family of `database`.

    Each name is a shipped list's or a path (see lists.py). `recommends` and `essential` override
    what the whitelists' options say; None leaves it to them. There a list's own word comes before
    that of the lists it includes, and of lists side by side one that says true is enough.

    Included lists' entries come before the including one's, each list once, and an entry that was
    there before is not repeated. Blacklists apply in the order whitelists' options, command line;
    one that is named twice keeps its first place.

    Raises `PolicyError` with every problem of every list, `DatabaseError` as `database` does.
    """
    loader = _Loader(database)
    roots = [loader.whitelist(name, Path(), loader.command_line, 1) for name in whitelists]
    for each in loader.merged:
        for entry in each.own.blacklists:
            loader.blacklist(entry.text, each.source.folder, each.page, entry.line)
    for name in blacklists:
        loader.blacklist(name, Path(), loader.command_line, 1)
    problems = [problem for page in loader.pages for problem in page.problems()]
    if problems:
        raise PolicyError(problems)
    lists = loader.merged
    stated = [root for root in roots if root]
    return Policy(
        whitelists=tuple(each.source.name for each in lists),
        blacklists=tuple(source.name for source in loader.blacklists),
        packages=_once((each.page, each.own.packages.get(database.family, ())) for each in lists),
        includes=_once((each.page, each.own.files) for each in lists),
        drops=tuple(loader.drops),
        recommends=_first(recommends, _widest(each.recommends for each in stated)) is True,
        essential=_first(essential, _widest(each.essential for each in stated)) is not False,
    )


def policy_digest(policy: Policy) -> str:
    """Return `sha256:` and a digest in hex of what `policy` asks for.

    It covers package requirements, include patterns and drop patterns, each in their order, and
    the two options. Equal digests thus mean equal jails of equal hosts. Names and origins are left
    out: a comment, a moved line or a renamed file changes what is said about the jail and nothing
    that is in it. The order is kept for all three, since the last drop wins, and the first
    requirement or include that brings something is the one that is named for it.
    """
    content = {
        "packages": [rule.pattern for rule in policy.packages],
        "includes": [rule.pattern for rule in policy.includes],
        "drops": [rule.pattern for rule in policy.drops],
        "recommends": policy.recommends,
        "essential": policy.essential,
    }
    # ASCII, as a pattern may hold bytes that are no UTF-8.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


@record
class _Loaded:
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


class _Loader:
    """The state of one `load_policy`: what was read, in the order of merging, and what is wrong."""

    def __init__(self, database: PackageDatabase) -> None:
        self.database = database
        self.command_line = Page("")
        self.pages = [self.command_line]
        self.merged: list[_Loaded] = []
        self.blacklists: list[Source] = []
        self.drops: list[Rule] = []
        self._whitelists: dict[str, _Loaded | None] = {}

    def whitelist(
        self, name: str, folder: Path | None, asker: Page, line: int, trail: tuple[Source, ...] = ()
    ) -> _Loaded | None:
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
        self.pages.append(Page(source.file))
        return self.pages[-1]

    def _with_included(
        self, source: Source, own: Whitelist, page: Page, trail: tuple[Source, ...]
    ) -> _Loaded:
        self._check_packages(own.packages.get(self.database.family, ()), page)
        asked = [self.whitelist(entry.text, source.folder, page, entry.line, trail) for entry in own.include]
        included = [each for each in asked if each]
        loaded = _Loaded(
            source=source,
            page=page,
            own=own,
            families=frozenset(own.packages).union(*(each.families for each in included)),
            recommends=_first(own.recommends, _widest(each.recommends for each in included)),
            essential=_first(own.essential, _widest(each.essential for each in included)),
            complete=len(included) == len(asked) and all(each.complete for each in included),
        )
        self._check_family(loaded, page)
        return loaded

    def _check_family(self, loaded: _Loaded, page: Page) -> None:
        """A list that brings files alone serves every family; one of packages must have the host's."""
        family = self.database.family
        only_files = loaded.own.files and not loaded.families
        if loaded.complete and family not in loaded.families and not only_files:
            has = f"has {', '.join(sorted(loaded.families))}" if loaded.families else "is empty"
            message = f"no packages for this host's family: [packages] {has}; add {family} = [...]"
            page.add(loaded.own.packages_line, message)

    def _check_packages(self, entries: Iterable[Entry], page: Page) -> None:
        for entry in entries:
            try:
                group = self.database.parse(entry.text)
            except ValueError as error:
                page.add(entry.line, f"bad requirement {entry.text!r}: {error}")
                continue
            if fault := self._shortcoming(group):
                page.add(entry.line, f"cannot satisfy {entry.text!r}: {fault}")

    def _shortcoming(self, group: DependencyGroup) -> str:
        """Why no installed package satisfies `group`; "" where one does."""
        architecture = self.database.architecture
        if any(self.database.candidates(relation, architecture) for relation in group.alternatives):
            return ""
        names = {package.name for package in self.database.packages.values()}
        return "; ".join(
            self.database.shortcoming(relation, architecture)
            + ("" if relation.name in names else did_you_mean(relation.name, names))
            for relation in group.alternatives
        )


def _refuse_cycle(trail: tuple[Source, ...]) -> None:
    """Raise `ValueError` where the last of `trail` is in it before."""
    *before, last = trail
    names = [each.identity for each in before]
    if last.identity in names:
        cycle = [*before[names.index(last.identity) :], last]
        raise ValueError(f"include cycle: {' -> '.join(each.file for each in cycle)}")


def _read_blacklist(data: bytes, page: Page) -> Iterator[Rule]:
    """The rules of a blacklist's content, which may hold any bytes, as paths may."""
    for line, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        text = rule_text(text_path(raw))
        if not text:
            continue
        if fault := check_pattern(text):
            page.add(line, f"bad pattern {text!r}: {fault}")
        else:
            yield page.rule(Entry(text=text, line=line))


def _once(lists: Iterable[tuple[Page, Iterable[Entry]]]) -> tuple[Rule, ...]:
    """The entries as rules, without those whose text was there before."""
    first: dict[str, Rule] = {}
    for page, entries in lists:
        for entry in entries:
            first.setdefault(entry.text, page.rule(entry))
    return tuple(first.values())


def _first(*values: bool | None) -> bool | None:
    """The first value that is stated."""
    return next((value for value in values if value is not None), None)


def _widest(values: Iterable[bool | None]) -> bool | None:
    """True where any value is, as more is then asked for; None where none is stated."""
    stated = [value for value in values if value is not None]
    return any(stated) if stated else None
