"""The stage of runc(8), a runtime of the OCI specification. Its bundle is removed after the run."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from pkgjail.core.jail_names import ROOT_CAPABILITY_NAMES
from pkgjail.core.text import text_path
from pkgjail.export.image.bundle import KERNEL_MOUNTS, NO_CAPABILITIES, PRIVATE, mount, namespaces
from pkgjail.sandbox.id_maps import IdMaps
from pkgjail.stages.engine import GOES_ON, PROCESS_ONE, Engine, Started, check_texts
from pkgjail.stages.model import Promise
from pkgjail.stages.seccomp_profile import seccomp_profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pkgjail.stages.container import Container
    from pkgjail.stages.model import Property

_STATE, _LOG = "state", "log"
_SETS_OF_ROOT = ("bounding", "effective", "permitted")


class Runc(Engine):
    """Containers of runc, of root or of a user who is root in them."""

    name = "runc"
    summary = "runc, a runtime of the OCI specification"
    program = "runc"
    package = "runc"

    def differences(self) -> Mapping[Property, Promise]:
        """Return what differs from other engines."""
        user = bool(os.geteuid())
        return {
            "user": Promise(
                kept=not user, note="a user's runc knows user 0 alone: ask for that" if user else ""
            ),
            "map-root": Promise(
                kept=user,
                note="without subordinate ids and capabilities"
                if user
                else "root's user 0 would be the host's",
            ),
            "signals": Promise(kept=False, note=PROCESS_ONE),
            "ends": Promise(kept=False, note=GOES_ON),
        }

    @contextlib.contextmanager
    def started(self, container: Container) -> Iterator[Started]:
        """Write the bundle."""
        check_texts(self, container)
        with open(os.path.join(container.work, "config.json"), "x", encoding="utf-8") as file:
            json.dump(_config(container), file)
        log = ("--log", os.path.join(container.work, _LOG), "--log-format=json")
        words = (*self._words(container), *log, "run", "--bundle", container.work, container.name)
        yield Started(words, os.environ)

    def failure(self, container: Container, status: int) -> str:
        """Return the last error that runc wrote to its log."""
        errors = []
        with contextlib.suppress(FileNotFoundError), open(os.path.join(container.work, _LOG), "rb") as log:
            errors = [line["msg"] for line in map(json.loads, log) if line.get("level") in ("error", "fatal")]
        return str(errors[-1]) if errors and status else ""

    def leftover(self, container: Container) -> tuple[str, ...]:
        """Return the command that removes the container, if there is one."""
        if not os.path.lexists(os.path.join(container.work, _STATE, container.name)):
            return ()
        return (*self._words(container), "delete", "--force", container.name)

    def _words(self, container: Container) -> tuple[str, ...]:
        state = os.path.join(container.work, _STATE)
        return (self._path(), "--root", state)  # of runc


def _config(container: Container) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "ociVersion": "1.0.2",
        "hostname": container.hostname,
        "root": {"path": text_path(container.root), "readonly": True},
        "process": {
            "args": list(container.argv),
            "capabilities": _capabilities(container),
            "cwd": text_path(container.cwd),
            "env": [f"{name}={value}" for name, value in container.environment],
            "noNewPrivileges": True,
            "terminal": container.terminal,
            **_size_of_terminal(container),
            "user": {"uid": 0, "gid": 0},
        },
        "mounts": [
            *KERNEL_MOUNTS,
            *(mount(text_path(path), "tmpfs", "tmpfs", *PRIVATE, "mode=1777") for path in container.scratch),
            *(
                mount(
                    text_path(each.path),
                    "none",
                    text_path(each.source),
                    "rbind",
                    "rprivate",
                    *PRIVATE,
                    *(() if each.writable else ("rro",)),
                )
                for each in container.mounts
            ),
        ],
        "linux": {
            **_namespaces(container),
            "seccomp": seccomp_profile(keep_names=container.keep_names),
        },
    }


def _size_of_terminal(container: Container) -> dict[str, Any]:
    """Return the size of the caller's terminal: otherwise the command may start before runc copies it."""
    if not (container.terminal and os.isatty(0)):
        return {}
    columns, lines = os.get_terminal_size(0)
    return {"consoleSize": {"height": lines, "width": columns}}


def _capabilities(container: Container) -> dict[str, list[str]]:
    if not container.as_root:
        return NO_CAPABILITIES
    return {**NO_CAPABILITIES, **{each: list(ROOT_CAPABILITY_NAMES) for each in _SETS_OF_ROOT}}


def _namespaces(container: Container) -> dict[str, Any]:
    """Return the namespaces; for a user who is root inside, with the ids of the jail's own root map."""
    found = namespaces(os.geteuid(), os.getegid(), network=container.network)
    if container.as_root:
        maps = IdMaps(as_root=True)
        found.update(uidMappings=_lines(maps.users), gidMappings=_lines(maps.groups))
    return found


def _lines(lines: Iterable[tuple[int, int, int]]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in lines]
