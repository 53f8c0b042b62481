"""The kernel, its settings, and how this process may use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.doctor.model import Finding, KernelReport, Remedy
from pkgjail.jails.causes import RESTRICTED, is_chrooted, read_setting
from pkgjail.jails.container import read_confinement
from pkgjail.jails.probe import probe_obstacle
from pkgjail.sandbox import landlock
from pkgjail.storage.locations import runtime_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import StrategyName

_SETTINGS = (
    "user.max_user_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces",
    "kernel.unprivileged_userns_clone", RESTRICTED, "fs.mount-max",
)  # fmt: skip
_STRATEGIES: tuple[StrategyName, ...] = ("tree", "mask", "whole")
_SHOWN = b"/usr"
_SAMPLE = b"bin/env"
# Files by which engines mark their containers.
_VARIABLE = "container"  # of systemd's container interface
_MARKS = {"/run/.containerenv": "podman", "/.dockerenv": "docker"}


def examine_kernel(proc: Path = Path("/proc")) -> KernelReport:
    """Look at the kernel and at this process, and try each strategy for `/usr`."""
    confinement = read_confinement(proc)
    found = os.uname()
    return KernelReport(
        release=found.release,
        machine=found.machine,
        landlock=landlock.abi(),
        settings={name: value for name in _SETTINGS if (value := read_setting(name, proc)) is not None},
        strategies=_strategies(),
        container=container_around(),
        filtered=confinement.filtered,
        profile=confinement.profile,
        covered=confinement.covered,
        chrooted=is_chrooted(proc),
        findings=tuple(_findings(proc)),
    )


def _findings(proc: Path) -> Iterator[Finding]:
    if not (proc / "self/status").exists():
        lines = ("mount -t proc proc /proc",)
        mount = Remedy(what="Mount /proc", who="administrator", lines=lines)
        yield Finding(
            what="/proc is not mounted, so nothing can be found out, and no jail be made", remedies=(mount,)
        )


def container_around() -> str:
    """Return the engine of the container around this process, as far as it can be told; or ""."""
    marked = next((engine for path, engine in _MARKS.items() if os.path.exists(path)), "")
    return marked or os.environ.get(_VARIABLE, "")


def _strategies() -> Mapping[str, str]:
    """Return for each strategy why it cannot show `/usr`, or ""; each is tried in a process of its own."""
    cache = Path(runtime_directory())
    found: dict[str, str] = {}
    for strategy in _STRATEGIES:
        sample = _SAMPLE if strategy == "tree" else None
        try:
            found[strategy] = probe_obstacle(strategy, _SHOWN, cache, sample)
        except OSError as error:
            found[strategy] = os_error_text(error, cache)
    return found
