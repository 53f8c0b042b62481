"""Read whitelists and blacklists, check them against the installed packages, and merge them.

The formats are described in docs/policy.md. All problems of all files are raised together.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import PolicyError
from pkgjail.core.model import Policy
from pkgjail.policy.includes import Loader, first, widest
from pkgjail.policy.lists import BLACKLIST, WHITELIST, Page, find
from pkgjail.policy.whitelist import read_whitelist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import PackageNames, Rule
    from pkgjail.policy.lists import Entry


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
    database: PackageNames,
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
    loader = Loader(database)
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
        recommends=first(recommends, widest(each.recommends for each in stated)) is True,
        essential=first(essential, widest(each.essential for each in stated)) is not False,
    )


def list_files(whitelists: Sequence[str], blacklists: Sequence[str] = ()) -> tuple[bytes, ...]:
    """The files that `load_policy` reads for these lists, by absolute paths; shipped ones are left out.

    What cannot be read is left out too, and so is what it would name.
    """
    files: dict[bytes, None] = {}
    waiting = [(WHITELIST, name, Path()) for name in whitelists]
    waiting += [(BLACKLIST, name, Path()) for name in blacklists]
    while waiting:
        kind, name, folder = waiting.pop()
        try:
            source = find(kind, name, folder)
            path = os.path.abspath(str(source.location))
            if source.folder is None or os.fsencode(path) in files:
                continue
            own = read_whitelist(source.read(), "", Page("")) if kind is WHITELIST else None
        except ValueError:
            continue
        files[os.fsencode(path)] = None
        if own is not None:
            waiting += [(WHITELIST, entry.text, source.folder) for entry in own.include]
            waiting += [(BLACKLIST, entry.text, source.folder) for entry in own.blacklists]
    return tuple(sorted(files))


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


def _once(lists: Iterable[tuple[Page, Iterable[Entry]]]) -> tuple[Rule, ...]:
    """The entries as rules, without those whose text was there before."""
    first: dict[str, Rule] = {}
    for page, entries in lists:
        for entry in entries:
            first.setdefault(entry.text, page.rule(entry))
    return tuple(first.values())
