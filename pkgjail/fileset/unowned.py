"""What belongs to a set of packages though no package lists it.

Alternatives (update-alternatives(1)), the backend's allow-list of generated files, byte code that
Python compiled when its packages were installed, and the policy's own file patterns.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pkgjail.core.entries import OWN_CHOICE
from pkgjail.core.jail_names import KERNEL_DIRECTORIES
from pkgjail.core.model import raw_path, text_path
from pkgjail.core.reporter import warn_each
from pkgjail.fileset.builder import Name
from pkgjail.policy.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pkgjail.core.model import AlternativeGroup, Generated, Rule
    from pkgjail.core.reporter import Reporter
    from pkgjail.fileset.builder import Draft
    from pkgjail.fileset.rootfs import Tree

    OwnersOf = Callable[[Collection[bytes]], Mapping[bytes, str]]

# Where a pattern no longer spells out a path: a wildcard, or a backslash that quotes one.
_GLOB = re.compile(r"[*?\[\\]")
# PEP 3147 and 488: NAME.cpython-311.opt-1.pyc is the byte code of NAME.py.
_BYTE_CODE = re.compile(rb"(?P<stem>[^/]+?)\.[^./]+(?:\.opt-[^./]+)?\.pyc")


def add_alternatives(draft: Draft, groups: Sequence[AlternativeGroup], reporter: Reporter) -> None:
    """Both links of every group that has a candidate in the set: `/usr/bin/awk` and its `/etc` end.

    Where the host's choice is in the set the host's links are taken as they are; else the best
    candidate inside gets links of ours.
    """
    without: list[str] = []
    for group in groups:
        choice = _hosts_choice(draft, group)
        if choice is not None and draft.has(choice[0]):
            _add_links(draft, group, choice, "")
            continue
        inside = [c for c in group.choices if draft.has(c.targets[0])]
        if inside:
            best = min(inside, key=lambda c: (-c.priority, c.targets))
            _add_links(draft, group, best.targets, OWN_CHOICE)
        elif any(draft.was_dropped(c.targets[0]) for c in group.choices):
            link = group.links[0][0]
            if not draft.drops(link):
                without.append(f"alternatives: the blacklist leaves no candidate for {text_path(link)}")
    warn_each(reporter, without, "links of alternatives without a candidate")


def _hosts_choice(draft: Draft, group: AlternativeGroup) -> tuple[bytes, ...] | None:
    """What each link of the group leads to on the host, the master first; b"" for nothing."""
    targets = [_link_end(draft, link, admin) for link, admin in group.links]
    return tuple(targets) if targets[0] else None


def _link_end(draft: Draft, link: bytes, admin: bytes) -> bytes:
    real_link, real_admin = draft.tree.real(link), draft.tree.real(admin)
    for place in (real_link, real_admin):
        found = draft.tree.lstat(place)
        if found is None or not stat.S_ISLNK(found.st_mode):
            return b""
    if draft.tree.readlink(real_link) != admin:
        return b""  # the administrator's own link, not one of update-alternatives
    return posixpath.normpath(posixpath.join(posixpath.dirname(real_admin), draft.tree.readlink(real_admin)))


def _add_links(draft: Draft, group: AlternativeGroup, targets: Sequence[bytes], note: str) -> None:
    names = {}
    for (link, admin), target in zip(group.links, targets):
        if not target or not draft.has(target):
            continue
        name = Name(
            owners=draft.kept[draft.tree.real(target)].owners,
            origin="alternative",
            detail=group.name + note,
            is_ours=True,
        )
        names[draft.place(link)] = name._replace(target=admin)
        names[draft.place(admin)] = name._replace(target=target)
    draft.add(names)


def add_generated(
    draft: Draft, rules: Sequence[Generated], keys: Mapping[str, tuple[str, ...]], owners_of: OwnersOf
) -> None:
    """The files of the allow-list whose package is in the set; `keys` maps its names to keys."""
    names: dict[bytes, Name] = {}
    for rule in rules:
        if rule.package and rule.package not in keys:
            continue
        owners = keys.get(rule.package, ())
        if rule.at_entry:
            name = Name(owners, origin="entry", detail=rule.made_by, is_ours=True)
            draft.add({draft.place(raw_path(rule.pattern)): name})
        else:
            name = Name(owners, origin="generated", detail=rule.made_by)
            found = map(draft.place, _glob(draft.tree, raw_path(rule.pattern)))
            names.update((path, name) for path in found if not draft.settled(path))
    for path in owners_of(names.keys()):
        del names[path]
    draft.add(names)


def _glob(tree: Tree, pattern: bytes) -> Iterator[bytes]:
    """The paths that a glob(3) pattern matches; Python's own would follow links out of the root."""
    found = [b""]
    for part in pattern.split(b"/")[1:]:
        if _GLOB.search(text_path(part)):
            found = [
                path + b"/" + name
                for path in found
                for name in tree.names(_followed(tree, path))
                if fnmatchcase(name, part) and name.startswith(b".") <= part.startswith(b".")
            ]
        else:
            found = [path + b"/" + part for path in found]
    return (path for path in found if tree.lstat(tree.real(path)) is not None)


def _followed(tree: Tree, directory: bytes) -> bytes:
    """The real path of a directory, its own last name followed too."""
    return tree.real(directory + b"/.")[: -len(b"/.")]


def add_byte_code(draft: Draft) -> None:
    """The compiled form of each Python file of the set, where the host has it beside the file."""
    sources: dict[bytes, dict[bytes, Name]] = {}
    for path, name in draft.kept.items():
        if path.endswith(b".py"):
            directory, _, file = path.rpartition(b"/")
            sources.setdefault(directory, {})[file[: -len(b".py")]] = name
    compiled = {}
    for directory, stems in sources.items():
        cache = directory + b"/__pycache__"
        for file in draft.tree.names(cache):
            match = _BYTE_CODE.fullmatch(file)
            source = stems.get(match["stem"]) if match else None
            if source is not None:
                compiled[cache + b"/" + file] = Name(source.owners, "generated", "compileall")
    draft.add(compiled)


def add_includes(draft: Draft, rules: Sequence[Rule], owners_of: OwnersOf, reporter: Reporter) -> None:
    """The policy's file patterns (gitignore syntax): paths that no package owns.

    A path that a package outside the set owns is not taken; the reporter names the package.
    """
    found = [(rule, _included(draft, rule)) for rule in rules]
    owners = owners_of({place for _, places in found for place in places})
    told: list[str] = []
    for rule, places in found:
        if not places:
            told.append(f"{rule.origin}: {rule.pattern} matches nothing that is not in already")
        for owner, count in sorted(Counter(owners[place] for place in places if place in owners).items()):
            told.append(
                f"{rule.origin}: {count} paths that {rule.pattern} matches belong to package {owner}, "
                "which is not in the set; name the package instead"
            )
        name = Name(origin="include", detail=rule.origin)
        draft.add({draft.place(path): name for place, path in places.items() if place not in owners})
    warn_each(reporter, told, "warnings of rules that bring files")


def _included(draft: Draft, rule: Rule) -> dict[bytes, bytes]:
    """The real paths that a rule brings, and the path by which each of them matches it."""
    wanted = matcher((rule,))
    return {
        place: path
        for path, place, is_directory in _walk(draft.tree, rule.pattern)
        if not draft.settled(place) and wanted(path, is_directory=is_directory) is not None
    }


def _walk(tree: Tree, pattern: str) -> Iterator[tuple[bytes, bytes, bool]]:
    """All that a pattern could match: the path, the real path, and whether it is a directory.

    The walk starts at the last directory that the pattern spells out, be it a link or behind one
    (`/usr/local/cuda/**`); links below are names like others. What the jail has of its own, /proc
    and its like, is left out.
    """
    wildcard = _GLOB.search(pattern)
    if wildcard is None:
        todo = [raw_path(pattern)]
    else:
        start = raw_path(pattern[: wildcard.start()].rpartition("/")[0])
        todo = [start + b"/" + name for name in tree.names(_followed(tree, start))]
    while todo:
        path = todo.pop()
        place = tree.real(path)
        found = tree.lstat(place)
        if found is None or (place + b"/").startswith(tuple(top + b"/" for top in KERNEL_DIRECTORIES)):
            continue
        is_directory = stat.S_ISDIR(found.st_mode)
        yield path, place, is_directory
        if is_directory:
            todo.extend(path + b"/" + name for name in tree.names(place))
