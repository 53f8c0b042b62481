"""The stage of systemd-nspawn(1), which only root may use."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import RUN, TMP
from pkgjail.core.text import text_path
from pkgjail.export.image.bundle import hidden_paths
from pkgjail.stages.engine import KILLED_AT_ONCE, Engine, Started
from pkgjail.stages.model import Promise, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.stages.container import Container, Mount
    from pkgjail.stages.model import Property

_SPECIAL = re.compile(rb"[:\\]")
_COVERED = (RUN, TMP)
_FLAGS = (
    "--quiet", "--register=no", "--keep-unit", "--read-only", "--as-pid2", "--private-users=no",
    "--no-new-privileges=yes", "--drop-capability=all", "--resolv-conf=off", "--timezone=off",
    "--link-journal=no", "--settings=no",
)  # fmt: skip


class Nspawn(Engine):
    """Containers of systemd-nspawn."""

    name = "nspawn"
    summary = "systemd-nspawn, for root"
    program = "systemd-nspawn"
    package = "systemd-container"

    def differences(self) -> Mapping[Property, Promise]:
        """Return what differs from other engines."""
        return {
            "exact": Promise(kept=False, note="systemd-nspawn adds /run"),
            "kernel": Promise(
                kept=False, note="root's command can write to /proc/sysrq-trigger and to control groups"
            ),
            "filter": Promise(kept=False, note="systemd-nspawn's own filter of system calls"),
            "signals": Promise(kept=False, note=KILLED_AT_ONCE),
            "variables": Promise(kept=False, note="systemd-nspawn adds container, NOTIFY_SOCKET and others"),
            "ends": Promise(kept=False, note="untried"),
            "failure": Promise(kept=False, note="systemd-nspawn's failures have the status 1"),
        }

    def obstacle(self) -> str:
        """Return why it does not work here, or ""."""
        return "only root may use it" if os.geteuid() else super().obstacle()

    @contextlib.contextmanager
    def started(self, container: Container) -> Iterator[Started]:
        """Pass variables by the environment: others can read a command line."""
        if os.geteuid():
            raise RefusedError(self.name, ["a command of an ordinary user (only root may use it)"])
        self._refuse(container)
        yield Started((self._path(), *_options(container), *container.argv), dict(container.environment))

    def _refuse(self, container: Container) -> None:
        covered = [
            f"the name {text_path(mount.path)} (systemd-nspawn has a file system of its own there)"
            for mount in container.mounts
            if mount.path.startswith(tuple(path + b"/" for path in _COVERED))
        ]
        if container.keep_names:
            covered.append(
                "a writable bind with names on which later runs depend, such as the manifest; move them, or "
                "bind a directory further down"
            )
        if covered:
            raise RefusedError(self.name, covered)


def _options(container: Container) -> Iterator[str | bytes]:
    yield from _FLAGS
    yield f"--console={'interactive' if container.terminal else 'pipe'}"
    yield b"--directory=" + container.root
    yield f"--machine={container.name}"
    yield f"--hostname={container.hostname}"
    if not container.network:
        yield "--private-network"
    for name, _ in container.environment:
        yield f"--setenv={name}"
    for path in container.scratch:
        if path not in _COVERED:
            yield b"--tmpfs=%s:mode=1777" % _escaped(path)
    # What is in /proc cannot be covered: systemd-nspawn mounts it later.
    for path in hidden_paths(as_root=True):
        if path.startswith(b"/sys/"):
            yield b"--tmpfs=%s:ro" % _escaped(path)
    for mount in container.mounts:
        yield _mount(mount)
    yield b"--chdir=" + container.cwd


def _mount(mount: Mount) -> bytes:
    option = b"--bind" if mount.writable else b"--bind-ro"
    return b"%s=%s:%s" % (option, _escaped(mount.source), _escaped(mount.path))


def _escaped(path: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\g<0>", path)
