"""The needs of a Spack, as its own configuration describes them, and the binds that show them in a jail."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.model import UserBind, record
from pkgjail.environments.enter import shows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Spack's Python may name some of the host's own directories, but the manifest decides about those.
_SYSTEM = (
    "/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib32/", "/lib64/", "/proc/", "/run/", "/sbin/", "/sys/",
    "/usr/",
)  # fmt: skip
_LOCAL = "/usr/local/"
_NEVER = ("/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var", "/var/tmp")  # noqa: S108


class Tool(NamedTuple):
    """A compiler or an external package in Spack's configuration; it needs one of these files."""

    name: str
    paths: tuple[str, ...]


@record
class Instance:
    """A Spack: its root, its Python, its directories, and the tools in its configuration.

    `groups` are the names of groups to which it gives what it installs.
    `watched` are the files and directories that this description depends on.
    """

    root: str
    python: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    tools: tuple[Tool, ...]
    watched: tuple[str, ...]
    groups: tuple[str, ...] = ()


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
        tools=tuple(Tool(tool["name"], tuple(tool["paths"])) for tool in values["tools"]),
        watched=tuple(values["watched"]),
        groups=tuple(values.get("groups", ())),
    )


def make_directories(instance: Instance) -> None:
    """Create the directories that Spack would create when it needs them: a missing one cannot be bound."""
    for path in instance.writable:
        with contextlib.suppress(OSError):
            os.makedirs(path, exist_ok=True)


def instance_binds(instance: Instance) -> tuple[UserBind, ...]:
    """Return the binds that show the Spack in a jail at the same paths as on the host.

    A directory below another with the same access needs no bind of its own. If a path is a symbolic link,
    its real path is bound too.
    """
    writable = _outermost(filter(_may_be_bound, instance.writable))
    readable = _outermost(path for path in instance.readable if _may_be_bound(path) and not _is_system(path))
    readable = [path for path in readable if not _is_below(path, writable)]
    return tuple(
        UserBind(source=os.fsencode(path), destination=os.fsencode(path), writable=is_writable)
        for paths, is_writable in ((writable, True), (readable, False))
        for path in paths
    )


def has_all_paths(instance: Instance, binds: Sequence[UserBind]) -> bool:
    """Check whether all that a Spack names exists. Otherwise later entries must look for it again."""
    return all(
        os.path.exists(path) or _is_system(path) or shows(binds, os.fsencode(path))
        for path in (*instance.writable, *instance.readable)
    )


def symbolic_links(instance: Instance) -> list[bytes]:
    """Return the symbolic links among the paths of a Spack: the binds depend on where they lead."""
    return [os.fsencode(path) for path in (*instance.writable, *instance.readable) if os.path.islink(path)]


def _may_be_bound(path: str) -> bool:
    return os.path.isabs(path) and os.path.normpath(path) not in _NEVER and os.path.exists(path)


def _is_system(path: str) -> bool:
    real = os.path.realpath(path) + "/"
    return real.startswith(_SYSTEM) and not real.startswith(_LOCAL)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths and their real paths, without those below another."""
    every = {one for path in paths for one in (os.path.normpath(path), os.path.realpath(path))}
    return sorted(path for path in every if not _is_below(path, every - {path}))


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any((path + "/").startswith(other.rstrip("/") + "/") for other in others)
