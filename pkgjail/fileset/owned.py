"""Packages that are required by a file of theirs: a whitelist's `[files] owners`.

Which package has the libraries of a driver differs from one distribution and release to the next, and an
installer of the vendor's may have put them there without any package. Their names differ little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.globs import expand
from pkgjail.core.text import first_of, raw_path
from pkgjail.fileset.rootfs import Tree

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pkgjail.core.model import PackageDatabase, Rule
    from pkgjail.core.reporter import Reporter

_MOST_SHOWN = 3  # patterns


class Owners:
    """Finds owners of paths among all packages of the database."""

    def __init__(self, database: PackageDatabase, tree: Tree) -> None:
        self._database = database
        self._tree = tree

    def __call__(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the key of the owner of each real path that has one.

        A package may record `/usr/lib/x` as `/lib/x` if `/lib` is a link to `usr/lib`.
        """
        spelled = {path: path for path in paths}
        for link, target in self._tree.top_links():
            below = target + b"/"
            spelled.update((link + p[len(target) :], p) for p in paths if p.startswith(below))
        return {spelled[path]: key for path, key in self._database.owners(spelled.keys()).items()}


def matches(tree: Tree, rule: Rule) -> list[bytes]:
    """Return the paths of the tree that a pattern matches (`pkgjail.core.globs`). No link is followed."""

    def paths_in(directory: bytes) -> list[bytes]:
        return [directory + b"/" + name for name in tree.names(directory)]

    found = expand(raw_path(rule.pattern), paths_in)
    return [path for path in dict.fromkeys(found) if tree.lstat(path) is not None]


def required_owners(
    database: PackageDatabase, rules: Sequence[Rule], root: bytes, reporter: Reporter
) -> tuple[tuple[Rule, str], ...]:
    """Return the keys of the packages that own what the patterns match, each with its rule.

    Warns of each list of whose patterns none matches anything.
    """
    if not rules:
        return ()
    tree = Tree(root)
    found = [(rule, matches(tree, rule)) for rule in rules]
    owners = Owners(database, tree)({path for _, paths in found for path in paths})
    by_list: dict[str, list[Rule]] = {}
    for rule in rules:
        by_list.setdefault(rule.origin.rpartition(":")[0], []).append(rule)
    with_files = {rule.origin.rpartition(":")[0] for rule, paths in found if paths}
    for name in by_list.keys() - with_files:
        patterns = first_of([rule.pattern for rule in by_list[name]], _MOST_SHOWN)
        reporter.warn(
            f"{name}: the system has none of the files whose owners it names: {', '.join(patterns)}"
        )
    required = {
        (rule.pattern, owners[path]): rule for rule, paths in found for path in paths if path in owners
    }
    return tuple((rule, key) for (_, key), rule in sorted(required.items(), key=lambda item: item[0]))
