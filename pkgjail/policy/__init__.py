"""Read whitelists and blacklists, check them against the installed packages, and merge them.

The formats are described in docs/policy.md. All problems of all files are raised together.

lists      find lists, and note their problems
whitelist  read one whitelist
toml_lines the lines of a TOML file's values
includes   read all lists of a policy
patterns   match paths with a blacklist's patterns
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import PolicyError
from pkgjail.core.given import list_names, words
from pkgjail.core.model import Policy
from pkgjail.policy.includes import PolicyReader, any_stated, first_stated
from pkgjail.policy.lists import BLACKLIST, WHITELIST, ListProblems, find
from pkgjail.policy.whitelist import read_whitelist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import PackageNames, Requirement, Rule


def shipped_whitelists() -> tuple[str, ...]:
    """Return the names of the whitelists that come with pkgjail, sorted."""
    return WHITELIST.shipped()


def shipped_blacklists() -> tuple[str, ...]:
    """Return the names of the blacklists that come with pkgjail, sorted."""
    return BLACKLIST.shipped()


def load_policy(  # noqa: PLR0913 - two by position; the rest have defaults
    whitelists: Iterable[AnyPath],
    blacklists: Iterable[AnyPath] = (),
    *,
    packages: Iterable[str] = (),
    database: PackageNames,
    recommends: bool | None = None,
    essential: bool | None = None,
    package_database: bool | None = None,
) -> Policy:
    """Read the named lists and everything that they include, for the family of `database`.

    `packages` are requirements of no list, as the family writes them, and come first; their origins are
    `packages`.

    Each name of a list is that of a shipped list, or a path: one with a slash, or that ends in `.toml` or
    `.ignore`.
    `recommends`, `essential` and `package_database` override the options of the whitelists; None leaves it to
    them. An option of a list overrides those of the lists that it includes; of lists named side by side, one
    true is enough.

    Entries of included lists come before those of the including one. Each list counts once, and so does
    each entry. Blacklists apply in the order of the whitelists' options, then of `blacklists`; one that is
    named twice has its first position.

    Raises `PolicyError` with every problem of every list, and `DatabaseError` as `database` does.
    """
    whitelists = list_names(whitelists, "whitelists")
    blacklists = list_names(blacklists, "blacklists")
    packages = words(packages, "packages")
    reader = PolicyReader(database)
    named = [reader.read_whitelist(name, Path(), reader.command_line, 1) for name in whitelists]
    asked = reader.read_packages(packages)
    for each in reader.merged:
        for entry in each.own.blacklists:
            reader.read_blacklist(entry.text, each.source.folder, each.problems, entry.line)
    for name in blacklists:
        reader.read_blacklist(name, Path(), reader.command_line, 1)
    problems = [problem for of_list in reader.problems for problem in of_list.in_order()]
    if problems:
        raise PolicyError(problems)
    lists = reader.merged
    read = [each for each in named if each]
    required: dict[str, Requirement] = {}
    includes: dict[str, Rule] = {}
    devices: dict[str, Rule] = {}
    owners: dict[str, Rule] = {}
    for requirement in asked:
        required.setdefault(requirement.text, requirement)
    for each in lists:
        for requirement in each.requirements:
            required.setdefault(requirement.text, requirement)
        for entry in each.own.files:
            includes.setdefault(entry.text, each.problems.rule(entry))
        for entry in each.own.devices:
            devices.setdefault(entry.text, each.problems.rule(entry))
        for entry in each.own.owners:
            owners.setdefault(entry.text, each.problems.rule(entry))
    return Policy(
        whitelists=tuple(each.source.name for each in lists),
        blacklists=tuple(source.name for source in reader.blacklists),
        packages=tuple(required.values()),
        includes=tuple(includes.values()),
        drops=tuple(reader.drops),
        devices=tuple(devices.values()),
        owners=tuple(owners.values()),
        recommends=first_stated(recommends, any_stated(each.recommends for each in read)) is True,
        essential=first_stated(essential, any_stated(each.essential for each in read)) is not False,
        package_database=first_stated(package_database, any_stated(each.package_database for each in read))
        is not False,
    )


def list_files(whitelists: Sequence[str], blacklists: Sequence[str] = ()) -> tuple[bytes, ...]:
    """Return the absolute paths of the files that `load_policy` reads for these lists, without shipped ones.

    A list that cannot be read is left out, with the lists that it would name.
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
            own = read_whitelist(source.read(), "", ListProblems("")) if kind is WHITELIST else None
        except ValueError:
            continue
        files[os.fsencode(path)] = None
        if own is not None:
            waiting += [(WHITELIST, entry.text, source.folder) for entry in own.include]
            waiting += [(BLACKLIST, entry.text, source.folder) for entry in own.blacklists]
    return tuple(sorted(files))


def policy_digest(policy: Policy) -> str:
    """Return `sha256:` and a digest in hex of the content of `policy`.

    It covers requirements, include patterns and drop patterns, each in their order, the patterns of devices,
    those of files whose owners are required, and the options.
    So equal digests mean equal jails on equal hosts. Names and origins are left out: a comment, a moved
    line or a renamed file does not change what is in a jail. The order counts for all three, because the
    last drop decides, and the first requirement or include for a name is recorded as its reason.
    """
    content = {
        "packages": [requirement.text for requirement in policy.packages],
        "includes": [rule.pattern for rule in policy.includes],
        "drops": [rule.pattern for rule in policy.drops],
        "recommends": policy.recommends,
        "essential": policy.essential,
        **({} if policy.package_database else {"package_database": False}),
    }
    # Left out if empty, as in versions without them.
    if policy.devices:
        content["devices"] = sorted(rule.pattern for rule in policy.devices)
    if policy.owners:
        content["owners"] = [rule.pattern for rule in policy.owners]
    # ASCII, because a pattern may have bytes that are not UTF-8.
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"
