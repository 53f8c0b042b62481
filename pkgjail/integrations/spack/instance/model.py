"""The needs of a Spack, as its own configuration describes them, and the binds that show them in a jail."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.model import record
from pkgjail.core.options import UserBind
from pkgjail.environments.enter import shows
from pkgjail.integrations.spack.caller.places import LOCAL, SHARED, SYSTEM, TEMPORARY, has_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Tool(NamedTuple):
    """A compiler or an external package in Spack's configuration; it needs one of these files.

    `has_headers` says that builds may use headers of it: it is no compiler.
    """

    name: str
    paths: tuple[str, ...]
    has_headers: bool = False


@record
class Instance:
    """A Spack: its root, its Python, its directories, and the tools in its configuration.

    `groups` are the names of groups to which it gives what it installs.
    `variables` are the names of environment variables that its configuration refers to.
    `watched` are the files and directories that this description depends on.
    `own` are the files and directories that Spack itself reads while it builds, and `private` those in which
    a build may see only its own part: trees of packages, views, and the place of builds.
    `module_roots` are the directories of the module files that are written after each build.
    """

    root: str
    python: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    tools: tuple[Tool, ...]
    watched: tuple[str, ...]
    groups: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    module_roots: tuple[str, ...] = ()


def parse_instance(values: Mapping[str, Any]) -> Instance:
    """Read what the extension's `describe` returns.

    Raises:
        KeyError, TypeError: it is something else.

    """
    return Instance(
        root=values["root"],
        python=values["python"],
        writable=tuple(values["writable"]),
        readable=tuple(values["readable"]),
        tools=tuple(
            Tool(tool["name"], tuple(tool["paths"]), tool.get("has_headers", False))
            for tool in values["tools"]
        ),
        watched=tuple(values["watched"]),
        groups=tuple(values.get("groups", ())),
        variables=tuple(values.get("variables", ())),
        own=tuple(values.get("own", ())),
        private=tuple(values.get("private", ())),
        module_roots=tuple(values.get("module_roots", ())),
    )


def make_directories(instance: Instance) -> None:
    """Create the directories that Spack would create when it needs them: a missing one cannot be bound."""
    for path in instance.writable:
        with contextlib.suppress(OSError):
            os.makedirs(path, exist_ok=True)


def instance_binds(instance: Instance) -> tuple[UserBind, ...]:
    """Return the binds that show the Spack in a jail at the same paths as on the host.

    A directory below another with the same access needs no bind of its own. If a path is a symbolic link,
    its real path is bound too. A directory on a read-only file system stays read-only even if that becomes
    writable: what is to be protected in it may be missing, and cannot be made.
    """
    usable = [path for path in instance.writable if _may_be_bound(instance, path)]
    read_only = set(filter(_is_read_only, usable))
    writable = _outermost(path for path in usable if path not in read_only)
    readable = _outermost((*outermost_paths(instance, instance.readable), *read_only))
    access = {path: False for path in readable if not _is_below(path, writable)}
    access.update(dict.fromkeys(writable, True))
    # What is below another is mounted later.
    return tuple(
        UserBind(source=os.fsencode(path), destination=os.fsencode(path), writable=is_writable)
        for path, is_writable in sorted(access.items())
    )


def is_covered(bind: UserBind, others: Iterable[UserBind]) -> bool:
    """Check whether a bind shows nothing more than others that are writable too.

    A mount of its own would keep programs from moving files between it and what is around it.
    """
    real = os.fsdecode(os.path.realpath(bind.source))
    around = [os.fsdecode(other.source) for other in others if other.writable]
    return bind.writable and os.fsdecode(bind.destination) == real and _is_below(real, around)


def never_shown(instance: Instance, binds: Iterable[UserBind]) -> list[str]:
    """Return the directories that Spack writes to and that are never shown whole, unless `binds` show them.

    The directory of temporary files is none of these, as each jail has one of its own.
    """
    return [
        path
        for path in dict.fromkeys(instance.writable)
        if os.path.normpath(path) not in TEMPORARY
        and (os.path.normpath(path) in SHARED or _is_home(instance, path))
        and not shows(binds, os.fsencode(path))
    ]


def has_all_paths(instance: Instance, binds: Sequence[UserBind]) -> bool:
    """Check whether all that a Spack names exists and can be written to as it says.

    Otherwise later entries must look again: a file system may be mounted, or become writable.
    """
    return all(
        os.path.exists(path) or _is_system(path) or shows(binds, os.fsencode(path))
        for path in (*instance.writable, *instance.readable)
    ) and not any(map(_is_read_only, filter(os.path.exists, instance.writable)))


def _is_read_only(path: str) -> bool:
    """Check whether a path is on a file system that is mounted read-only."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def symbolic_links(instance: Instance) -> list[bytes]:
    """Return the symbolic links among the paths of a Spack: the binds depend on where they lead."""
    return [os.fsencode(path) for path in (*instance.writable, *instance.readable) if os.path.islink(path)]


def _may_be_bound(instance: Instance, path: str) -> bool:
    if not os.path.isabs(path) or os.path.normpath(path) in SHARED or not os.path.exists(path):
        return False
    return not _is_home(instance, path)


def _is_home(instance: Instance, path: str) -> bool:
    """Check whether a path is the user's home, or has it in it, and is not Spack's own root."""
    return has_home(path) and os.path.realpath(path) != os.path.realpath(instance.root)


def _is_system(path: str) -> bool:
    real = os.path.realpath(path)
    return _is_below(real, SYSTEM) and not _is_below(real, (LOCAL,))


def outermost_paths(instance: Instance, paths: Iterable[str]) -> list[str]:
    """Return the paths that a jail shows whatever its manifest says, without those below another."""
    return _outermost(path for path in paths if _may_be_bound(instance, path) and not _is_system(path))


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths and their real paths, without those below another."""
    every = {one for path in paths for one in (os.path.normpath(path), os.path.realpath(path))}
    return sorted(path for path in every if not _is_below(path, every - {path}))


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any((path + "/").startswith(other.rstrip("/") + "/") for other in others)
