"""Add unowned files: those that belong to a set of packages although no package lists them.

These are alternatives (update-alternatives(1)), the backend's allow-list of generated files, those that
maintainer scripts name, the package database of the set, byte code that Python compiled when packages were
installed, and the policy's own file patterns.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from pkgjail.core.entries import OWN_CHOICE
from pkgjail.core.jail_names import DOCUMENTATION, KERNEL_DIRECTORIES
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import warn_each
from pkgjail.core.text import raw_path, text_path
from pkgjail.fileset.builder import Name
from pkgjail.fileset.owned import matches
from pkgjail.policy.patterns import matcher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from pkgjail.core.model import AlternativeGroup, DatabaseFile, Generated, Package, Rule
    from pkgjail.core.reporter import Reporter
    from pkgjail.fileset.builder import FileSetBuilder
    from pkgjail.fileset.rootfs import Tree

    OwnersOf = Callable[[Collection[bytes]], Mapping[bytes, str]]

# The end of a pattern's literal start: a wildcard, or a backslash that quotes one.
_GLOB = re.compile(r"[*?\[\\]")
# /usr/share/octave or deeper, but no directory of an architecture: everybody uses it, as they do /usr/share.
_OWN_DIRECTORY = re.compile(rb"/usr/(?!local/)[^/]+/(?![^/]*-linux-gnu[^/]*$)[^/]+(?:/.+)?", re.DOTALL)
# What scripts leave beside what they make. A cache of icons names those that no package of the set has.
_BY_PRODUCT = re.compile(
    rb".*(?:~|\.(?:bak|lock|log|old|orig|(?:dpkg|ucf)-[a-z]+))|icon-theme\.cache", re.DOTALL
)
_WITHOUT: Final = "package_database=False"
# PEP 3147 and 488: NAME.cpython-311.opt-1.pyc is the byte code of NAME.py.
_BYTE_CODE = re.compile(rb"(?P<stem>[^/]+?)\.[^./]+(?:\.opt-[^./]+)?\.pyc")


def add_alternatives(builder: FileSetBuilder, groups: Sequence[AlternativeGroup], reporter: Reporter) -> None:
    """Add both links of every group with a candidate in the set, such as `/usr/bin/awk` and that in `/etc`.

    If the host's choice is in the set, the links are those of the host. Otherwise the jail makes links to
    the best candidate in the set.
    """
    left = list(groups)
    # A candidate may be the link of another group: /usr/bin/emacs is one for /usr/bin/editor.
    for add in (_add_hosts_choice, _add_best):
        count = -1
        while len(left) != count:
            count = len(left)
            left = [group for group in left if not add(builder, group)]
    without: list[str] = []
    for group in left:
        link = group.links[0][0]
        if any(builder.was_dropped(c.targets[0]) for c in group.choices) and not builder.drops(link):
            without.append(f"alternatives: the blacklist leaves no candidate for {text_path(link)}")
    warn_each(reporter, without, "links of alternatives without a candidate")


def _add_hosts_choice(builder: FileSetBuilder, group: AlternativeGroup) -> bool:
    """Add the links of the group as the host has them if they lead into the set; return whether they do."""
    choice = _hosts_choice(builder, group)
    if choice is None or not builder.has(choice[0]):
        return False
    _add_links(builder, group, choice, "")
    return True


def _add_best(builder: FileSetBuilder, group: AlternativeGroup) -> bool:
    """Add links to the best candidate of the group that is in the set; return whether there is one."""
    candidates = [c for c in group.choices if builder.has(c.targets[0])]
    if candidates:
        best = min(candidates, key=lambda c: (-c.priority, c.targets))
        _add_links(builder, group, best.targets, OWN_CHOICE)
    return bool(candidates)


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
    builder.add(_without_dangling(builder, names))


def add_made_by_scripts(
    builder: FileSetBuilder,
    packages: Sequence[Package],
    words_of: Callable[[Package], Collection[bytes]],
    owners_of: OwnersOf,
) -> None:
    """Add the unowned files that packages' maintainer scripts name, in directories that the packages list.

    A script that makes a file names it, or the script that removes it does: libgvc6's postrm removes
    `config6a`, graphviz' list of plugins. Such a file is the package's. Only directories below /usr count:
    those in /etc and /var have the system's own state too. Those that everybody uses, such as /usr/bin, do
    not count either, since a script may name a program that the administrator put there. Whole directories
    that no package lists are left out, and so are files that others may not read.
    """
    keys = {package.key: package for package in packages}
    words: dict[str, Collection[bytes]] = {}
    names: dict[bytes, Name] = {}
    for directory, name in list(builder.kept.items()):
        if not name.owners or not _OWN_DIRECTORY.fullmatch(directory):
            continue
        if (directory + b"/").startswith(DOCUMENTATION):
            continue  # an index of info(1) names the pages of the whole host
        for file in builder.tree.names(directory):
            path = directory + b"/" + file
            if builder.is_decided(path) or not _is_made(builder.tree, path):
                continue
            for owner in name.owners:
                if owner not in words:
                    words[owner] = words_of(keys[owner])
            owners = tuple(owner for owner in name.owners if file in words[owner])
            if owners:
                names[path] = Name(owners, "generated", "maintainer script")
    for path in owners_of(names.keys()) if names else ():
        del names[path]
    builder.add(_without_dangling(builder, names))


def _is_made(tree: Tree, path: bytes) -> bool:
    """Return whether programs may need the file: it is no log, backup, lock or cache of icons."""
    found = tree.lstat(path)
    if found is None or _BY_PRODUCT.fullmatch(path.rpartition(b"/")[2]):
        return False
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH))


def _without_dangling(builder: FileSetBuilder, names: Mapping[bytes, Name]) -> dict[bytes, Name]:
    """Return `names` without the host's links that lead out of the set, as to a plugin of another package."""
    kept = dict(names)
    while True:
        outside = [path for path in kept if not _leads_inside(builder, path, kept)]
        if not outside:
            return kept
        for path in outside:
            del kept[path]


def _leads_inside(builder: FileSetBuilder, path: bytes, names: Mapping[bytes, Name]) -> bool:
    found = None if names[path].made_by_jail else builder.tree.lstat(path)
    if found is None or not stat.S_ISLNK(found.st_mode):
        return True
    end = builder.tree.real(posixpath.join(posixpath.dirname(path), builder.tree.readlink(path)))
    end = builder.tree.real(posixpath.normpath(end))
    return end in builder.kept or end in names


def add_package_database(builder: FileSetBuilder, files: Sequence[DatabaseFile], reporter: Reporter) -> None:
    """Add the files of the package database that describe the packages of the set. Warn of obstacles."""
    for file in files:
        if file.obstacle:
            reporter.warn(
                f"{file.manager} will find no packages in the jail: {file.obstacle}; "
                f"leave {file.package} out, or accept that with {parameter(_WITHOUT)}"
            )
    builder.add(
        {
            builder.real_path(file.path): Name(
                owners=(file.package,),
                origin="entry" if file.at_entry else "generated",
                detail=file.manager,
                made_by_jail=file.at_entry,
            )
            for file in files
            if not file.obstacle
        }
    )


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


def add_unowned_matches(builder: FileSetBuilder, rules: Sequence[Rule], owners_of: OwnersOf) -> None:
    """Add what the policy's `owners` match and no package owns: a vendor's installer put it there."""
    for rule in rules:
        paths = [path for path in matches(builder.tree, rule) if not builder.is_decided(path)]
        owned = owners_of(paths)
        name = Name(origin="include", detail=rule.origin)
        builder.add({path: name for path in paths if path not in owned})


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
