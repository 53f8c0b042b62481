"""What a Spack needs of the host, as its own configuration says, and the binds that show that."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.model import UserBind, record
from pkgjail.environments.enter import shows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Of the host's own directories Spack's Python may name some, and the manifest decides about those.
_SYSTEM = (
    "/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib32/", "/lib64/", "/proc/", "/run/", "/sbin/", "/sys/",
    "/usr/",
)  # fmt: skip
_LOCAL = "/usr/local/"
_NEVER = ("/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var", "/var/tmp")  # noqa: S108


class Tool(NamedTuple):
    """A compiler or an external package of Spack's configuration, and files of which it needs one."""

    name: str
    paths: tuple[str, ...]


@record
class Instance:
    """A Spack: its root, its Python, its directories, and the tools that it was told of.

    `watched` has the files and directories that this rests on.
    """

    root: str
    python: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    tools: tuple[Tool, ...]
    watched: tuple[str, ...]


def parse_instance(values: Mapping[str, Any]) -> Instance:
    """Read what the extension's `describe` tells.

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
    )


def make_directories(instance: Instance) -> None:
    """Make the directories that Spack would make when it needs them: what is not there cannot be bound."""
    for path in instance.writable:
        with contextlib.suppress(OSError):
            os.makedirs(path, exist_ok=True)


def binds_of(instance: Instance) -> tuple[UserBind, ...]:
    """What shows the Spack in a jail where it is on the host.

    A directory below another of the same sort needs no bind of its own. Links within are followed:
    what they lead to is bound too.
    """
    writable = _outermost(filter(_is_ours, instance.writable))
    readable = _outermost(path for path in instance.readable if _is_ours(path) and not _is_system(path))
    readable = [path for path in readable if not _is_below(path, writable)]
    return tuple(
        UserBind(source=os.fsencode(path), destination=os.fsencode(path), writable=may_write)
        for paths, may_write in ((writable, True), (readable, False))
        for path in paths
    )


def is_whole(instance: Instance, binds: Sequence[UserBind]) -> bool:
    """Whether all that a Spack names is there: if not, what comes later must be shown then."""
    return all(
        os.path.exists(path) or _is_system(path) or shows(binds, os.fsencode(path))
        for path in (*instance.writable, *instance.readable)
    )


def links_of(instance: Instance) -> list[bytes]:
    """The symbolic links among what a Spack names: were one to lead elsewhere, so would the binds."""
    return [os.fsencode(path) for path in (*instance.writable, *instance.readable) if os.path.islink(path)]


def _is_ours(path: str) -> bool:
    return os.path.isabs(path) and os.path.normpath(path) not in _NEVER and os.path.exists(path)


def _is_system(path: str) -> bool:
    whole = os.path.realpath(path) + "/"
    return whole.startswith(_SYSTEM) and not whole.startswith(_LOCAL)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Each path and what it really is, less those below another."""
    every = {one for path in paths for one in (os.path.normpath(path), os.path.realpath(path))}
    return sorted(path for path in every if not _is_below(path, every - {path}))


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any((path + "/").startswith(other.rstrip("/") + "/") for other in others)
