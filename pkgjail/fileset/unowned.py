"""Add unowned files: those that belong to a set of packages although no package lists them.

These are alternatives (update-alternatives(1)), the backend's allow-list of generated files, byte code
that Python compiled when packages were installed, and the policy's own file patterns.
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
    from pkgjail.fileset.builder import FileSetBuilder
    from pkgjail.fileset.rootfs import Tree

    OwnersOf = Callable[[Collection[bytes]], Mapping[bytes, str]]

# The end of a pattern's literal start: a wildcard, or a backslash that quotes one.
_GLOB = re.compile(r"[*?\[\\]")
# PEP 3147 and 488: NAME.cpython-311.opt-1.pyc is the byte code of NAME.py.
_BYTE_CODE = re.compile(rb"(?P<stem>[^/]+?)\.[^./]+(?:\.opt-[^./]+)?\.pyc")


def add_alternatives(builder: FileSetBuilder, groups: Sequence[AlternativeGroup], reporter: Reporter) -> None:
    """Add both links of every group with a candidate in the set, such as `/usr/bin/awk` and that in `/etc`.

    If the host's choice is in the set, the links are those of the host. Otherwise the jail makes links to
    the best candidate in the set.
    """
    without: list[str] = []
    for group in groups:
        choice = _hosts_choice(builder, group)
        if choice is not None and builder.has(choice[0]):
            _add_links(builder, group, choice, "")
            continue
        candidates = [c for c in group.choices if builder.has(c.targets[0])]
        if candidates:
            best = min(candidates, key=lambda c: (-c.priority, c.targets))
            _add_links(builder, group, best.targets, OWN_CHOICE)
        elif any(builder.was_dropped(c.targets[0]) for c in group.choices):
            link = group.links[0][0]
            if not builder.drops(link):
                without.append(f"alternatives: the blacklist leaves no candidate for {text_path(link)}")
    warn_each(reporter, without, "links of alternatives without a candidate")


def _hosts_choice(builder: FileSetBuilder, group: AlternativeGroup) -> tuple[bytes, ...] | None:
    """The targets of the group's links on the host, the master's first; b"" if a link leads nowhere."""
    targets = [_link_end(builder, link, admin) for link, admin in group.links]
    return tuple(targets) if targets[0] else None


def _link_end(builder: FileSetBuilder, link: bytes, admin: bytes) -> bytes:
    real_link, real_admin = builder.tree.real(link), builder.tree.real(admin)
    for place in (real_link, real_admin):
        found = builder.tree.lstat(place)
        if found is None or not stat.S_ISLNK(found.st_mode):
            return b""
    if builder.tree.readlink(real_link) != admin:
        return b""  # a link of the administrator, not of update-alternatives
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(real_admin), builder.tree.readlink(real_admin))
    )


def _add_links(builder: FileSetBuilder, group: AlternativeGroup, targets: Sequence[bytes], note: str) -> None:
    names = {}
    for (link, admin), target in zip(group.links, targets):
        if not target or not builder.has(target):
            continue
        name = Name(
            owners=builder.kept[builder.tree.real(target)].owners,
            origin="alternative",
            detail=group.name + note,
            made_by_jail=True,
        )
        names[builder.real_path(link)] = name._replace(target=admin)
        names[builder.real_path(admin)] = name._replace(target=target)
    builder.add(names)


def add_generated(
    builder: FileSetBuilder,
    rules: Sequence[Generated],
    keys: Mapping[str, tuple[str, ...]],
    owners_of: OwnersOf,
) -> None:
    """Add the files of the allow-list whose package is in the set; `keys` maps package names to keys."""
    names: dict[bytes, Name] = {}
    for rule in rules:
        if rule.package and rule.package not in keys:
            continue
        owners = keys.get(rule.package, ())
        if rule.at_entry:
            name = Name(owners, origin="entry", detail=rule.made_by, made_by_jail=True)
            builder.add({builder.real_path(raw_path(rule.pattern)): name})
        else:
            name = Name(owners, origin="generated", detail=rule.made_by)
            found = map(builder.real_path, _glob(builder.tree, raw_path(rule.pattern)))
            names.update((path, name) for path in found if not builder.is_decided(path))
    for path in owners_of(names.keys()):
        del names[path]
    builder.add(names)


def _glob(tree: Tree, pattern: bytes) -> Iterator[bytes]:
    """The paths that match a glob(3) pattern. Python's glob would follow links out of the root."""
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
    """The real path of a directory, including its last name."""
    return tree.real(directory + b"/.")[: -len(b"/.")]


def add_byte_code(builder: FileSetBuilder) -> None:
    """Add the byte code of each Python file of the set that the host has beside the file."""
    sources: dict[bytes, dict[bytes, Name]] = {}
    for path, name in builder.kept.items():
        if path.endswith(b".py"):
            directory, _, file = path.rpartition(b"/")
            sources.setdefault(directory, {})[file[: -len(b".py")]] = name
    compiled = {}
    for directory, stems in sources.items():
        cache = directory + b"/__pycache__"
        for file in builder.tree.names(cache):
            match = _BYTE_CODE.fullmatch(file)
            source = stems.get(match["stem"]) if match else None
            if source is not None:
                compiled[cache + b"/" + file] = Name(source.owners, "generated", "compileall")
    builder.add(compiled)


def add_includes(
    builder: FileSetBuilder, rules: Sequence[Rule], owners_of: OwnersOf, reporter: Reporter
) -> None:
    """Add paths that match the policy's file patterns (gitignore syntax) and that no package owns.

    A path of a package outside the set is not added; a warning names that package.
    """
    found = [(rule, _included(builder, rule)) for rule in rules]
    owners = owners_of({place for _, places in found for place in places})
    warnings: list[str] = []
    for rule, places in found:
        if not places:
            warnings.append(f"{rule.origin}: {rule.pattern} matches nothing that is not already in the set")
        for owner, count in sorted(Counter(owners[place] for place in places if place in owners).items()):
            warnings.append(
                f"{rule.origin}: {count} paths that {rule.pattern} matches belong to package {owner}, "
                "which is not in the set; name the package instead"
            )
        name = Name(origin="include", detail=rule.origin)
        builder.add({builder.real_path(path): name for place, path in places.items() if place not in owners})
    warn_each(reporter, warnings, "warnings of rules that bring files")


def _included(builder: FileSetBuilder, rule: Rule) -> dict[bytes, bytes]:
    """The real paths that a rule adds, and the path by which each of them matches it."""
    matches = matcher((rule,))
    return {
        place: path
        for path, place, is_directory in _walk(builder.tree, rule.pattern)
        if not builder.is_decided(place) and matches(path, is_directory=is_directory) is not None
    }


def _walk(tree: Tree, pattern: str) -> Iterator[tuple[bytes, bytes, bool]]:
    """Everything that a pattern could match: the path, the real path, and whether it is a directory.

    The walk starts at the last directory before any wildcard, which may be a link or below one
    (`/usr/local/cuda/**`). Links below it are not followed. Directories of the kernel, such as /proc, are
    left out, because the jail has its own.
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
