"""The stage of virtual machines, of qemu."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.architectures import host_architecture
from pkgjail.core.errors import CommandError, JailError, PkgjailError
from pkgjail.core.model import raw_path, text_path
from pkgjail.core.parameters import parameter
from pkgjail.core.sources import refuse_other_source
from pkgjail.jail.diagnosis import diagnose
from pkgjail.jail.host_name import host_name
from pkgjail.jail.replay import read_account
from pkgjail.jail.run import directory_inside
from pkgjail.machine.agent import compiler
from pkgjail.machine.boot import started_machine
from pkgjail.machine.contents import contents_of
from pkgjail.machine.kernels import find_kernel
from pkgjail.machine.qemu import program_of
from pkgjail.machine.session import Command, NotStartedError, run_command
from pkgjail.sandbox.job import SetupError
from pkgjail.stages.command import find_command, variables_of
from pkgjail.stages.model import KEPT, PROPERTIES, Promise, RefusedError, asked_for, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.machine.boot import Guest
    from pkgjail.machine.model import MachineOptions
    from pkgjail.stages.model import Property, Request

_SESSION = 1
_KILLED = 137
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
        architecture = host.debian
        try:
            program, package = program_of(architecture)
            if shutil.which(program) is None:
                return f"the program {program} is not in PATH (Debian's package {package} has it)"
            compiler(architecture)
            find_kernel(architecture)
        except PkgjailError as error:
            return str(error)
        return ""

    def run(self, request: Request) -> int:
        """Run the command in a machine."""
        if problems := self._problems(request):
            raise RefusedError(self.name, problems)
        manifest, options = request.manifest, request.options
        root = os.path.realpath(request.root)
        refuse_other_source(manifest, root)
        find_command(request, manifest)
        hostname = host_name()
        contents = contents_of(manifest, options, hostname)
        if contents.read_only:
            names = ", ".join(map(text_path, contents.read_only))
            request.reporter.warn(f"shown read-only in the machine, because later runs depend on it: {names}")
        machine = started_machine(
            manifest,
            contents,
            _machine(request),
            root=root,
            hostname=hostname,
            network=options.network,
            reporter=request.reporter,
        )
        with machine as guest:
            return self._run(request, guest)

    def _run(self, request: Request, guest: Guest) -> int:
        command = _command(request)
        try:
            ended = run_command(guest.running, _SESSION, command)
        except NotStartedError as error:
            raise _not_started(error.doing, error.number, request) from error
        if ended.out_of_memory:
            why = (
                "the machine ran out of memory, and its kernel killed a process; "
                f"raise {parameter('Limits.memory')}, or run fewer jobs at once"
            )
            if ended.status:
                raise CommandError(why, _KILLED)
            request.reporter.warn(why)
        return ended.status

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


def _machine(request: Request) -> MachineOptions:
    limits = request.options.limits
    return replace(
        request.machine,
        memory=limits.memory or 0,
        processors=0 if limits.cpus is None else math.ceil(limits.cpus),
    )


def _command(request: Request) -> Command:
    options = request.options
    cwd = directory_inside(request.manifest, options)
    variables = variables_of(options, cwd)
    uid, gid, _, _, groups = read_account()
    return Command(
        argv=tuple(map(raw_path, request.argv)),
        cwd=cwd,
        environment=tuple(raw_path(f"{name}={value}") for name, value in sorted(variables.items())),
        uid=uid,
        gid=gid,
        groups=tuple(number for number, _ in groups),
        umask=_umask(),
        processes=options.limits.pids or 0,
        terminal=request.terminal,
    )


def _not_started(doing: str, number: int, request: Request) -> JailError:
    if doing != "execute":
        return NotStartedError(doing, number)
    return diagnose(SetupError("execute", number, raw_path(request.argv[0]), []), request.argv[0])


def _umask() -> int:
    """Return this process's umask; setting it to read it would change it for other threads meanwhile."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields.get("Umask", "022"), 8)
