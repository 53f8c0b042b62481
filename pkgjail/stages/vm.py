"""The stage of virtual machines, of qemu."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pkgjail.core.architectures import host_architecture
from pkgjail.core.errors import PkgjailError
from pkgjail.machine.agent import compiler
from pkgjail.machine.kernels import find_kernel
from pkgjail.machine.qemu import program_of
from pkgjail.machine.run import run_in_machine
from pkgjail.stages.model import KEPT, PROPERTIES, Promise, RefusedError, asked_for, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.stages.model import Property, Request

_OWN = "a machine has a kernel of its own"
_COPY = "the files are a copy of what the manifest says"


class Vm:
    """A virtual machine with a kernel of its own, for this architecture or another one."""

    name = "vm"
    summary = "a virtual machine of qemu, also for other architectures"

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        kept: dict[Property, Promise] = dict.fromkeys(PROPERTIES, KEPT)
        kept["kernel"] = kept["filter"] = Promise(kept=True, note=_OWN)
        kept["ipc"] = kept["devices"] = kept["map-root"] = Promise(kept=False, note=_OWN)
        kept["drift"] = Promise(kept=False, note=_COPY)
        kept["signals"] = Promise(kept=True, note="but standard input is read ahead, as ssh does")
        return kept

    def obstacle(self) -> str:
        """Return what of a machine is missing for this host's architecture, or "".

        Nothing is booted: that takes seconds, and an emulated machine needs nothing of the host.
        """
        host = host_architecture()
        if host is None:
            return f"there is no machine for this host, {os.uname().machine}"
        try:
            program, package = program_of(host.debian)
            if shutil.which(program) is None:
                return f"the program {program} is not in PATH (Debian's package {package} has it)"
            compiler(host.debian)
            find_kernel(host.debian)
        except PkgjailError as error:
            return str(error)
        return ""

    def run(self, request: Request) -> int:
        """Run the command in a machine."""
        self.refuse(request)
        return run_in_machine(
            request.manifest,
            request.argv,
            request.options,
            machine=request.machine,
            keep=request.keep,
            root=request.root,
            terminal=request.terminal,
            reporter=request.reporter,
        )

    def refuse(self, request: Request) -> None:
        """Refuse what a machine cannot keep.

        Raises:
            RefusedError: as `pkgjail.stages.run_in_stage`.

        """
        if problems := self._problems(request):
            raise RefusedError(self.name, problems)

    def _problems(self, request: Request) -> list[str]:
        promises = self.promises()
        problems = refusals(promises, asked_for(request))
        if request.options.plan != "auto":
            problems.append("a strategy (the files are one disk)")
        if request.manifest.devices:
            patterns = ", ".join(device.pattern for device in request.manifest.devices)
            problems.append(f"the devices that the manifest allows ({patterns})")
        if request.options.limits.pids and os.getuid() == 0:
            problems.append("a limit of processes (the user is root, whom the guest's kernel does not limit)")
        return problems
