"""The stage without namespaces: Landlock, and a supervisor that answers for names."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.sandbox import landlock
from pkgjail.stages.model import Promise, RefusedError, asked_for, promises_of_jail, refusals
from pkgjail.supervised.calls import calls_of
from pkgjail.supervised.run import run_command
from pkgjail.supervised.trial import try_supervision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.stages.model import Property, Request

_MODULES = "/sys/kernel/security/lsm"
_NO_NAMESPACES = "that takes namespaces"
_WARNING = (
    "the stage supervised is weaker than the default: a program that races the supervisor can learn which "
    "names this host has outside of the manifest, though never what is in files; see docs/supervised.md"
)


class Supervised:
    """A command beside a supervisor: no namespace, no root, no daemon, no copy."""

    name = "supervised"
    summary = "Landlock and a supervisor of system calls; no namespaces"

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        kept = promises_of_jail()
        for each in ("map-root", "limits", "ipc"):
            kept[each] = Promise(kept=False, note=_NO_NAMESPACES)
        kept["exact"] = Promise(kept=False, note="unless the process races the supervisor")
        kept["processes"] = Promise(
            kept=False, note="a racing program can guess others' ids; it cannot read, trace or signal them"
        )
        kept["network"] = Promise(kept=True, note="Unix sockets alone: there is no loopback device either")
        kept["kernel"] = Promise(kept=True, note="the host name is the host's")
        return kept

    def obstacle(self) -> str:
        """Return why it does not work here, or "", by trying."""
        return _missing() or try_supervision()

    def run(self, request: Request) -> int:
        """Run the command under supervision."""
        problems = refusals(self.promises(), asked_for(request))
        if request.root != b"/":
            problems.append("another source than this host (that takes namespaces)")
        if problems:
            raise RefusedError(self.name, problems)
        if why := _missing():
            raise JailError(f"cannot use the stage {self.name}: {why}")
        request.reporter.warn(_WARNING)
        return run_command(
            request.manifest,
            request.argv,
            request.options,
            publisher=request.publisher,
            terminal=request.terminal,
            reporter=request.reporter,
        )


def _missing() -> str:
    """Return what this machine or kernel lacks, or ""."""
    if calls_of() is None:
        return f"pkgjail does not know the system calls of {os.uname().machine} for it"
    return _no_landlock() if landlock.abi() < landlock.NEEDED_ABI else ""


def _no_landlock() -> str:
    """Return what of Landlock is missing, and how to get it."""
    found = landlock.abi()
    release = os.uname().release
    needed = f"Landlock's ABI {landlock.NEEDED_ABI} (Linux 6.12)"
    if found:
        return f"it needs {needed}, and this kernel ({release}) has ABI {found}; use a newer kernel"
    names = ""
    with contextlib.suppress(OSError):
        names = f" (its security modules are {Path(_MODULES).read_text(encoding='utf-8').strip()})"
    return (
        f"it needs {needed}, which this kernel ({release}) does not have or has off{names}; an administrator "
        "adds landlock to the boot option lsm="
    )
