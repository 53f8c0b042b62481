"""Compilers and external packages in Spack's configuration that the jail does not show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from pkgjail.environments.enter import shows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.integrations.spack.instance.model import Tool


class UncoveredTool(NamedTuple):
    """A tool that the jail does not show, and a path of it.

    `reason` is "packaged" if a package that is not in the manifest has the file, "missing" if the host does
    not have it, "unowned" if no package has it, and "headers" if the jail shows the tool without this header.
    `package` is the package's name, or "". `variable` is the environment variable that names the tool, or ""
    if Spack's configuration does.
    """

    name: str
    path: str
    reason: Literal["packaged", "missing", "unowned", "headers"]
    package: str = ""
    variable: str = ""

    def __str__(self) -> str:
        if self.reason == "packaged":
            return (
                f"{self.name} is outside of the jail: {self.path} belongs to the package {self.package}; "
                f"add that to the whitelist, or {self._otherwise}"
            )
        if self.reason == "headers":
            return (
                f"{self.name} is in the jail without {self.path}, which this host has: a build may go on "
                f"without the parts that need it; add the package {self.package} to the whitelist"
            )
        if self.reason == "missing":
            return f"{self.name} is not on this host: {self.path} does not exist"
        return (
            f"{self.name} is outside of the jail: {self.path} belongs to no package; show it with --ro-bind, "
            f"or {self._otherwise}"
        )

    @property
    def _otherwise(self) -> str:
        if self.variable:
            return f"name another one in {self.variable}"
        return "remove the tool from Spack's configuration"


def find_uncovered(
    tools: Iterable[Tool], manifest: Manifest, binds: Sequence[UserBind]
) -> list[UncoveredTool]:
    """Return the tools of which neither `manifest` nor `binds` have a file.

    Raises:
        DatabaseError: the host's package database cannot be read.

    """
    names = {entry.path for entry in manifest.files}
    uncovered = [
        (tool.name, tool.paths[0])
        for tool in tools
        if not any(is_shown(os.fsencode(path), names, binds) for path in tool.paths)
    ]
    owners = _owners(path for _, path in uncovered) if uncovered else {}
    return [_uncovered_tool(name, path, owners[path]) for name, path in dict.fromkeys(uncovered)]


def _uncovered_tool(name: str, path: str, package: str) -> UncoveredTool:
    if package:
        return UncoveredTool(name, path, "packaged", package)
    return UncoveredTool(name, path, "unowned" if os.path.lexists(path) else "missing")


def is_shown(path: bytes, names: set[bytes], binds: Sequence[UserBind]) -> bool:
    """Check whether a manifest with these names, or one of the binds, shows a path."""
    return _manifest_path(path) in names or shows(binds, path)


def _manifest_path(path: bytes) -> bytes:
    """Return `path` with the real path of its directory, as in manifests; a final link is not followed."""
    directory, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(directory), name)


def recorded_paths(path: bytes) -> tuple[bytes, ...]:
    """Return the paths by which a package database may have a path, or what it leads to.

    Packages of distributions with a merged /usr may still record `/lib/…` for `/usr/lib/…`.
    """
    there = (_manifest_path(path), os.path.realpath(path))
    unmerged = (one[4:] for one in there if one.startswith(b"/usr/"))
    return (*there, *(one for one in unmerged if os.path.realpath(one) in there))


def _owners(paths: Iterable[str]) -> dict[str, str]:
    """Return for each path the name of the package that has it, or has the file that it leads to; or ""."""
    from pkgjail.api import open_database

    candidates = {path: recorded_paths(os.fsencode(path)) for path in set(paths)}
    found = open_database().owners({one for names in candidates.values() for one in names})
    keys = {path: next(filter(None, map(found.get, names)), "") for path, names in candidates.items()}
    return {path: key.rpartition(":")[0] for path, key in keys.items()}
