"""External packages that the jail shows without the headers that the host has for them.

A build that finds such a package, but not its headers, may go on without a part of itself and end with 0:
setuptools does, with a Python that has no `Python.h`.

Packages come from the same source if they have the same version and one requires exactly this version of the
other, as Debian Policy 8.1 and Fedora's guidelines ask of packages with headers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.integrations.spack.instance.uncovered import UncoveredTool, is_shown, recorded_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.options import UserBind
    from pkgjail.integrations.spack.instance.model import Tool


def find_without_headers(
    tools: Iterable[Tool], manifest: Manifest, binds: Sequence[UserBind]
) -> list[UncoveredTool]:
    """Return a header of each package that has headers of an external package, if the jail lacks it.

    Raises:
        DatabaseError: the host's package database cannot be read.

    """
    names = {entry.path for entry in manifest.files}
    shown = {
        tool.name: [path for path in map(os.fsencode, tool.paths) if is_shown(path, names, binds)]
        for tool in tools
        if tool.has_headers
    }
    if not any(shown.values()):
        return []
    from pkgjail.api import open_database

    database = open_database()
    found = []
    for name, paths in shown.items():
        for key, headers in headers_of(paths, database).items():
            hidden = (path for path in headers if os.path.lexists(path) and not is_shown(path, names, binds))
            path = next(hidden, None)
            if path is not None:
                found.append(UncoveredTool(name, os.fsdecode(path), "headers", key.rpartition(":")[0]))
    return found


def headers_of(paths: Iterable[bytes], database: PackageDatabase) -> dict[str, list[bytes]]:
    """Return the headers of the packages from the same sources as those that have `paths`, by package.

    Raises:
        DatabaseError: the database cannot be read.

    """
    owners = database.owners({one for path in paths for one in recorded_paths(path)})
    related = {key for owner in set(owners.values()) for key in _same_source(owner, database)}
    headers = {
        key: sorted(filter(_is_header, database.owned_paths(database.packages[key])))
        for key in sorted(related)
    }
    return {key: found for key, found in headers.items() if found}


def _same_source(key: str, database: PackageDatabase) -> set[str]:
    """Return the keys of the packages from the same source as `key`, which is one of them."""
    version = database.packages[key].version
    same = {each: package for each, package in database.packages.items() if package.version == version}
    related: dict[str, set[str]] = {each: set() for each in same}
    for each, package in same.items():
        for group in database.requirements(package, recommends=False):
            for relation in group.alternatives:
                if relation.operator != "=":
                    continue
                for other in database.candidates(relation, package.architecture):
                    if other.key in same:
                        related[each].add(other.key)
                        related[other.key].add(each)
    found, new = {key}, {key}
    while new:
        new = {other for each in new for other in related[each]} - found
        found |= new
    return found


def _is_header(path: bytes) -> bool:
    return path.endswith(b".h") and path.startswith((b"/usr/include/", b"/usr/lib"))
