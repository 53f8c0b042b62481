"""Learn the whitelist that a build needs: from one audited run with everything that the source has.

What the command asked for and got is used. Of the packages that have it, those stay in the list that no
other of them requires: the roots of the graph of dependencies. The list is then resolved, and what it does
not bring is added, until it brings all that was used.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from dataclasses import field, replace
from typing import TYPE_CHECKING

from pkgjail.api import (
    build_manifest,
    collect_files,
    load_policy,
    open_database,
    policy_digest,
    resolve_closure,
)
from pkgjail.audit.model import LookUp
from pkgjail.audit.owners import Owners
from pkgjail.audit.wanted import used_files
from pkgjail.core.families import with_family
from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.core.model import Requirement, Rule, record
from pkgjail.core.paths import follow, links_below
from pkgjail.core.reporter import SILENT, ProgressOnly
from pkgjail.core.sources import source_at
from pkgjail.core.text import counted, is_visible, printable, raw_path, text_path
from pkgjail.review.why import file_pattern, toml_string

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pkgjail.audit.model import Audit
    from pkgjail.audit.spack_names import SpackNames
    from pkgjail.core.model import Dependency, Manifest, PackageDatabase, Policy
    from pkgjail.core.reporter import Reporter

UNOWNED = ("/usr/local/**", "/opt/**")
"""Where files without a package are looked for, besides the package database."""

_ORIGIN = "everything:1"
_MOST_LINKS = 40
_VERBS = {
    "exec": "ran",
    "open": "read",
    "link": "read",
    "look": "looked at",
    "list": "listed",
    "change": "changed",
}


# Stands for a link on the way to a path, which is recorded without it.
_LINK_ON_THE_WAY = LookUp(
    path=b"a link on the way to what it used", inside="symlink", area="manifest", calls={"link": 1}
)


@record
class Line:
    """A line of a learned whitelist: a package's name or key, or a path, and the look-up that says most."""

    text: str
    look_up: LookUp


@record
class Learned:
    """A learned whitelist.

    `include` are whitelists that it includes, `packages` and `files` its own lines. `used` counts the
    packages of which the command used a file. `others` are packages of other families by a table of names,
    which nobody checked there. `refused` are paths that a whitelist cannot name.
    """

    family: str
    command: tuple[str, ...]
    include: tuple[str, ...]
    packages: tuple[Line, ...]
    files: tuple[Line, ...]
    used: int
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: tuple[bytes, ...] = ()


def everything(
    blacklists: Sequence[str] = (),
    *,
    root: bytes = b"/",
    backend: str = "auto",
    reporter: Reporter = SILENT,
) -> Manifest:
    """Return the manifest of all that a source has: each installed package, and files of `UNOWNED`.

    Files are not hashed. `blacklists` drop files, as for `pkgjail.resolve`.

    Raises:
        PolicyError: a blacklist cannot be used.
        DatabaseError: the package database cannot be read.
        OSError: a file cannot be read.

    """
    database = open_database(root, backend)
    packages = tuple(
        Requirement(text=_name(key, database), origin=_ORIGIN, groups=database.parse(_name(key, database)))
        for key in sorted(database.packages)
    )
    includes = tuple(Rule(pattern=pattern, origin=_ORIGIN) for pattern in UNOWNED)
    policy = replace(load_policy([], blacklists, database=database), packages=packages, includes=includes)
    closure = resolve_closure(database, policy)
    files = collect_files(database, closure, policy, root=root, hasher=None, reporter=ProgressOnly(reporter))
    return build_manifest(
        policy,
        policy_digest(policy),
        with_family(database.distribution, database.family),
        database.architecture,
        closure,
        files,
        source_at(root).recorded,
    )


def learn(  # noqa: PLR0913 - two say what; the rest have defaults
    audit: Audit,
    manifest: Manifest,
    *,
    base: Sequence[str] = (),
    names: SpackNames | None = None,
    root: bytes = b"/",
    backend: str = "auto",
    also: Iterable[str] = (),
) -> Learned:
    """Return the whitelist that brings everything that an audited command used of `manifest`.

    Args:
        audit: that of the run.
        manifest: what its jail had.
        base: whitelists that the result includes: what they bring needs no line.
        names: packages of other families; None for none.
        root: the source's root directory.
        backend: "auto", or a backend by name.
        also: keys of packages that were used although no look-up says so.

    Raises:
        PolicyError: `base` cannot be used.
        DatabaseError: the package database cannot be read.

    """
    database = open_database(root, backend)
    policy = load_policy(base, database=database)
    telling = _telling((*_command_look_ups(audit.command[0], manifest), *used_files(audit)), also)
    roots = _roots(telling, manifest, database, policy)
    included = {entry.path for entry in manifest.files if entry.origin == "include"}
    paths = [look_up for look_up in used_files(audit) if look_up.path in included]
    lines = [(look_up, file_pattern(look_up.path)) for look_up in paths]
    return Learned(
        family=database.family,
        command=audit.command,
        include=tuple(base),
        packages=tuple(Line(text=_name(key, database), look_up=telling[key]) for key in roots),
        files=tuple(Line(text=line, look_up=look_up) for look_up, line in lines if line),
        used=len(telling),
        others=_elsewhere(roots, database.family, names) if names else {},
        refused=tuple(look_up.path for look_up, line in lines if not line),
    )


def missed(first: Audit, second: Audit, root: bytes = b"/", backend: str = "auto") -> tuple[str, ...]:
    """Return the keys of packages that a second run lacked, although the first had used them.

    Those are packages of links to directories: a path is recorded behind them.
    """
    wanted = [look_up for look_up in second.look_ups if look_up.is_wanted]
    links = {link for look_up in wanted for link in _links_on(root, look_up.path)}
    keys = set(Owners(open_database(root, backend), root).of_files(links).values())
    before = {owner for look_up in used_files(first) for owner in look_up.owners}
    keys |= {owner for look_up in wanted for owner in look_up.owners} & before
    return tuple(sorted(keys))


def whitelist_text(learned: Learned) -> str:
    """Return a learned whitelist as TOML, with a comment for each line that says why it is there."""
    command = printable(" ".join(learned.command))[:200]
    lines = [
        f"# What this command needs, learned from one run of it: {command}",
        f"# It used files of {counted(learned.used, 'package')}; those that others require have no line.",
        "",
    ]
    if learned.include:
        lines += [f"include = [{', '.join(map(toml_string, learned.include))}]", ""]
    lines += ["[packages]", f"{learned.family} = ["]
    lines += [f"    {toml_string(line.text)},  # {_reason(line.look_up)}" for line in learned.packages]
    lines.append("]")
    for family, packages in sorted(learned.others.items()):
        listed = ", ".join(map(toml_string, packages))
        lines += ["# Not checked, and without what the table of names lacks:", f"# {family} = [{listed}]"]
    if learned.files:
        lines += ["", "[files]", "include = ["]
        lines += [f"    {toml_string(line.text)},  # {_reason(line.look_up)}" for line in learned.files]
        lines.append("]")
    return "\n".join(lines) + "\n"


def _command_look_ups(name: str, manifest: Manifest) -> Iterator[LookUp]:
    """Yield look-ups of the links that lead to the command itself, which ran before calls were seen."""
    entries = {entry.path: entry for entry in manifest.files}

    def target_of(path: bytes) -> bytes | None:
        return entries[path].target if path in entries else None

    for place in [name] if "/" in name else [f"{each}/{name}" for each in SEARCH_PATH.split(":")]:
        path = raw_path(place)
        for _ in range(_MOST_LINKS):
            directory, _, last = path.rpartition(b"/")
            path = posixpath.join(follow(directory or b"/", target_of), last)
            entry = entries.get(path)
            if entry is None or not entry.owners:
                break
            yield LookUp(
                path=path, inside=entry.kind, area="manifest", calls={"exec": 1}, owners=entry.owners
            )
            if entry.target is None:
                return
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))


def _telling(look_ups: Iterable[LookUp], also: Iterable[str]) -> dict[str, LookUp]:
    """Return the package of each file that was used, with the look-up that says most."""
    found: dict[str, list[LookUp]] = defaultdict(list)
    # What several packages have, as /lib where that is a link, is no reason for one more of them.
    for look_up in sorted(look_ups, key=lambda each: len(each.owners)):
        if look_up.owners and (len(look_up.owners) == 1 or found.keys().isdisjoint(look_up.owners)):
            found[look_up.owners[0]].append(look_up)
    telling = {key: min(look_ups, key=_order) for key, look_ups in found.items()}
    for key in also:
        telling.setdefault(key, _LINK_ON_THE_WAY)
    return telling


def _order(look_up: LookUp) -> tuple[object, ...]:
    calls = look_up.calls
    kind = next((number for number, call in enumerate(_VERBS) if call in calls), len(_VERBS))
    return (kind, look_up.inside != "regular", -sum(calls.values()), look_up.path)


def _roots(
    used: Collection[str], manifest: Manifest, database: PackageDatabase, policy: Policy
) -> tuple[str, ...]:
    """Return the used packages that no other one requires, and that `policy` does not bring."""
    brought = _closure(database, policy, ())
    needed = sorted(key for key in used if key in database.packages and key not in brought)
    graph = _graph(manifest.dependencies)
    reached: dict[str, set[str]] = {key: _reach(graph, key) for key in needed}
    chosen: list[str] = []
    for key in needed:
        above = [other for other in needed if other != key and key in reached[other]]
        # Of packages that require each other, the first by name stands for all.
        if all(key in reached[other] and other in reached[key] and key < other for other in above):
            chosen.append(key)
    while lacking := set(needed) - _closure(database, policy, chosen):
        chosen.append(min(lacking, key=lambda key: (-len(reached[key] & lacking), key)))
    return tuple(sorted(chosen))


def _closure(database: PackageDatabase, policy: Policy, keys: Sequence[str]) -> set[str]:
    """Return the keys of the packages that `policy` and these packages bring."""
    more = tuple((Rule(pattern=key, origin=_ORIGIN), key) for key in keys)
    return {package.key for package in resolve_closure(database, policy, more).packages}


def _graph(dependencies: Iterable[Dependency]) -> dict[str, list[str]]:
    graph: dict[str, list[str]] = defaultdict(list)
    for edge in dependencies:
        graph[edge.source].append(edge.target)
    return graph


def _reach(graph: Mapping[str, Sequence[str]], start: str) -> set[str]:
    """Return all that `start` requires, in turn; itself only if in a circle."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += graph.get(key, ())
    return found


def _name(key: str, database: PackageDatabase) -> str:
    """Return the text by which a whitelist names a package."""
    package = database.packages[key]
    return package.name if package.architecture in {database.architecture, "all", "noarch", "any"} else key


def _elsewhere(keys: Sequence[str], family: str, names: SpackNames) -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for key in keys:
        for other, package in names.elsewhere(family, key).items():
            found[other][package] = None
    return {other: tuple(packages) for other, packages in found.items()}


def _links_on(root: bytes, path: bytes) -> Iterator[bytes]:
    """Yield the symbolic links of the source on the way to a path."""
    target_of = links_below(root)
    here, waiting, seen = b"", path.strip(b"/").split(b"/")[::-1], 0
    while waiting:
        here = here.rstrip(b"/") + b"/" + waiting.pop()
        target = target_of(here)
        if target is not None and seen < _MOST_LINKS:
            seen += 1
            yield here
            real = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
            waiting += real.strip(b"/").split(b"/")[::-1]
            here = b""


def _reason(look_up: LookUp) -> str:
    call = next((call for call in _VERBS if call in look_up.calls), "look")
    path = text_path(look_up.path)
    if look_up is _LINK_ON_THE_WAY:
        return path
    return f"{_VERBS[call]} {path if is_visible(path) else printable(look_up.path)}"
