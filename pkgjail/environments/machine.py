"""The machine of an environment, which is kept running between entries."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.model import text_path
from pkgjail.core.sources import refuse_other_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import JailOptions, Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.environments.record import Form, Header
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

    if header.machine is None:
        raise InputError([Problem("", f"{text_path(environment.path)} has no machine")])
    refuse_other_source(manifest, header.root)
    request = Request(
        manifest=manifest,
        argv=tuple(argv),
        options=options,
        root=header.root,
        terminal=terminal,
        machine=header.machine,
        keep=environment.path,
        reporter=reporter,
    )
    return STAGES["vm"].run(request)


def stop_machine(environment: EnvironmentDirectory) -> bool:
    """Stop the machine of an environment; return whether it ran.

    Raises:
        MachineError: it does not end.

    """
    from pkgjail.machine.keeper import stop_kept_machine

    return stop_kept_machine(environment.path)
