"""Find the packages that have a path of the source: by their lists, alternatives and generated files."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pkgjail.core.paths import links_below, resolve_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pkgjail.core.model import PackageDatabase

_MOST_OWNERS = 20
"""The most packages that are named for a directory."""


class Owners:
    """The packages of a source's paths. Without a database there are none."""

    def __init__(self, database: PackageDatabase | None, root: bytes) -> None:
        self._database = database
        self._root = root
        self._other_spellings = tuple(_top_links(root))

    def of_files(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the key of the package of each path that has one; the paths are resolved."""
        if self._database is None:
            return {}
        found = self._listed(paths)
        rest = [path for path in paths if path not in found]
        if rest:
            found.update(self._of_alternatives(rest))
            found.update(self._generated([path for path in rest if path not in found]))
            found.update(self._by_targets([path for path in rest if path not in found]))
        return found

    def of_directories(self, paths: Collection[bytes]) -> dict[bytes, tuple[str, ...]]:
        """Return the keys of the packages that list each directory, at most twenty, sorted."""
        if self._database is None or not paths:
            return {}
        spelled = {spelling: path for path in paths for spelling in (path, *self._spellings(path))}
        found: dict[bytes, set[str]] = defaultdict(set)
        for key, package in self._database.packages.items():
            for path in spelled.keys() & set(self._database.owned_paths(package)):
                found[spelled[path]].add(key)
        return {path: tuple(sorted(keys)[:_MOST_OWNERS]) for path, keys in found.items()}

    def _listed(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the owners by the packages' lists, in which /usr/lib/x may be /lib/x."""
        if self._database is None:
            return {}
        spelled = {path: (path, *self._spellings(path)) for path in paths}
        owners = self._database.owners({each for spellings in spelled.values() for each in spellings})
        return {
            path: owners[each]
            for path, spellings in spelled.items()
            for each in reversed(spellings)
            if each in owners
        }

    def _spellings(self, path: bytes) -> Iterable[bytes]:
        return (
            link + path[len(place) :]
            for link, place in self._other_spellings
            if path.startswith(place + b"/")
        )

    def _of_alternatives(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the packages of the targets that links of update-alternatives(1) have on the source."""
        if self._database is None:
            return {}
        names = {name for group in self._database.alternatives() for pair in group.links for name in pair}
        return self._by_targets([path for path in paths if path in names])

    def _by_targets(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the packages of what symbolic links lead to."""
        prefix = self._root.rstrip(b"/")
        targets: dict[bytes, bytes] = {}
        for path in paths:
            if os.path.islink(prefix + path):
                with contextlib.suppress(OSError):  # a circle
                    targets[path] = resolve_inside(self._root, path)[len(prefix) :]
        owners = self._listed(set(targets.values()))
        return {path: owners[target] for path, target in targets.items() if target in owners}

    def _generated(self, paths: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the packages that generated files are for."""
        if self._database is None:
            return {}
        found: dict[bytes, str] = {}
        by_name = {package.name: key for key, package in self._database.packages.items()}
        for rule in self._database.generated():
            if rule.package not in by_name:
                continue
            for path in paths:
                if fnmatchcase(os.fsdecode(path), rule.pattern):
                    found.setdefault(path, by_name[rule.package])
        return found


def _top_links(root: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the links in a root directory that lead to directories in it, as /lib does to /usr/lib."""
    prefix = root.rstrip(b"/")
    target_of = links_below(root)
    for name in sorted(os.listdir(root)):
        link = b"/" + name
        if target_of(link) is None or not os.path.isdir(prefix + link):
            continue
        place = resolve_inside(root, link)[len(prefix) :]
        if len(place) > 1:
            yield link, place
