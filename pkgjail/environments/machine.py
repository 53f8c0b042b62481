"""The machine of an environment, which is kept running between entries."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import counted, text_path
from pkgjail.environments.directory import open_environment, read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.environments.record import Form, Header
    from pkgjail.machine.keeper import KeptMachine
    from pkgjail.machine.model import MachineOptions
    from pkgjail.stages.model import Request


def checked_machine(machine: MachineOptions, form: Form, request: Request) -> MachineOptions:
    """Return a machine as it is recorded; `request` is what an entry without options of its own asks for.

    Raises:
        InputError: the form has files of its own, or directories would be copied.
        MachineError: there is no kernel.
        NamesError: files have no digest.
        RefusedError: a machine cannot keep what is asked for.

    """
    from pkgjail.export.copied import refuse_undigested
    from pkgjail.machine.kernels import find_kernel
    from pkgjail.stages.vm import Vm

    if form != "host":
        why = (
            f"the form {form!r} has the files in the directory, and a machine has them on a disk in the cache"
        )
        raise InputError([Problem("", f"cannot build an environment with a machine: {why}; choose one")])
    if machine.share == "copy":
        why = "its machine is kept running, and shares directories; it does not copy them"
        raise InputError([Problem("", f"cannot build an environment with copies of directories: {why}")])
    Vm().refuse(request)
    refuse_undigested("a machine's disk", request.manifest)
    kernel = os.path.abspath(machine.kernel) if machine.kernel else ""
    find_kernel(request.manifest.header.architecture, named=kernel, root=request.root)
    return replace(machine, kernel=kernel, share="auto")


def run_in_kept_machine(  # noqa: PLR0913 - as `enter_environment`, and what it has read
    environment: EnvironmentDirectory,
    header: Header,
    manifest: Manifest,
    argv: Sequence[str],
    options: JailOptions,
    *,
    terminal: bool,
    reporter: Reporter,
) -> int:
    """Run `argv` in the machine of a locked environment, and start that if it does not run.

    Raises:
        CommandError, DriftError, MachineError, RefusedError: as `pkgjail.stages.run_in_stage`.

    """
    from pkgjail.stages import STAGES
    from pkgjail.stages.model import Request

    machine = header.machine
    if machine is None:
        raise _no_machine(environment)
    refuse_other_source(manifest, header.root)
    request = Request(
        manifest=manifest,
        argv=tuple(argv),
        options=options,
        root=header.root,
        terminal=terminal,
        machine=machine,
        keep=environment.path,
        reporter=reporter,
    )
    return STAGES["vm"].run(request)


def machine_of(directory: bytes) -> KeptMachine | None:
    """Return the machine that runs for an environment, as its keeper describes it.

    Raises:
        InputError: there is no environment, or it has no machine.

    """
    from pkgjail.machine.keeper import find_kept_machine

    with open_environment(directory, "enter") as environment:
        if read_record(environment).header.machine is None:
            raise _no_machine(environment)
        return find_kept_machine(environment.path)


def stop_idle_machine(directory: bytes) -> bool:
    """Stop the machine of an environment; return whether it ran.

    Raises:
        InputError: there is no environment, or it has no machine.
        MachineError: commands run in it, or it does not end.

    """
    from pkgjail.machine.model import MachineError

    found = machine_of(directory)
    if found is not None and found.commands:
        commands = counted(found.commands, "command")
        raise MachineError(
            f"cannot stop the machine of {text_path(directory)}: it runs {commands}; wait for the end"
        )
    with open_environment(directory, "enter") as environment:
        return stop_machine(environment)


def _no_machine(environment: EnvironmentDirectory) -> InputError:
    name = text_path(environment.path)
    return InputError([Problem("", f"{name} has no machine: its commands run in a jail")])


def stop_machine(environment: EnvironmentDirectory) -> bool:
    """Stop the machine of an environment; return whether it ran.

    Raises:
        MachineError: it does not end.

    """
    from pkgjail.machine.keeper import stop_kept_machine

    return stop_kept_machine(environment.path)
