"""Compilers and external packages that Spack was told of and that the jail does not show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.environments.enter import shows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pkgjail.core.model import Manifest, UserBind
    from pkgjail.integrations.spack.instance import Tool


class Outside(NamedTuple):
    """One of them: its name, a file of it, and the package that would bring that, or ""."""

    name: str
    path: str
    package: str

    def __str__(self) -> str:
        if self.package:
            return (
                f"{self.name} is outside of the jail: {self.path} belongs to the package {self.package}; "
                "add that to the whitelist, or take it out of Spack's configuration"
            )
        if not os.path.lexists(self.path):
            return f"{self.name} is not on this host: there is no {self.path}"
        return (
            f"{self.name} is outside of the jail: {self.path} belongs to no package; show it with --ro-bind, "
            "or take it out of Spack's configuration"
        )


def find_outside(tools: Iterable[Tool], manifest: Manifest, binds: Sequence[UserBind]) -> list[Outside]:
    """Those of `tools` none of whose files is in `manifest` or shown by `binds`.

    Raises:
        DatabaseError: the host's package database cannot be read.

    """
    names = {entry.path for entry in manifest.files}
    hidden = [
        (tool.name, tool.paths[0])
        for tool in tools
        if not any(_is_shown(os.fsencode(path), names, binds) for path in tool.paths)
    ]
    owners = _owners(path for _, path in hidden) if hidden else {}
    return [Outside(name, path, owners[path]) for name, path in dict.fromkeys(hidden)]


def _is_shown(path: bytes, names: set[bytes], binds: Sequence[UserBind]) -> bool:
    return _placed(path) in names or shows(binds, path)


def _placed(path: bytes) -> bytes:
    """`path` by the real path of its directory, as manifests have it; a link itself is not followed."""
    directory, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(directory), name)


def _owners(paths: Iterable[str]) -> dict[str, str]:
    """For each path the package that has it, or has what it leads to."""
    from pkgjail.api import open_database

    candidates = {
        path: (_placed(os.fsencode(path)), os.path.realpath(os.fsencode(path))) for path in set(paths)
    }
    found = open_database().owners({one for both in candidates.values() for one in both})
    named = {path: next(filter(None, map(found.get, both)), "") for path, both in candidates.items()}
    return {path: key.rpartition(":")[0] for path, key in named.items()}
