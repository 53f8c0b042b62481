"""Options for the virtual machine of an environment, which is kept running between commands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.cli.limit_options import count, size
from pkgjail.core.errors import UsageError
from pkgjail.core.stage_names import AUTO, DEFAULT, RUNGS

if TYPE_CHECKING:
    import argparse

    from pkgjail.machine.model import MachineOptions

_STAGES = (*RUNGS, AUTO, "vm")
_MACHINE = "vm"
_OPTIONS = ("kernel", "memory", "cpus", "scratch", "idle")


def add_kept_machine_options(parser: argparse.ArgumentParser, when: str) -> None:
    """Add the options for an environment's machine; `when` says when they apply."""
    group = parser.add_argument_group("virtual machine", when)
    group.add_argument(
        "--stage",
        metavar="STAGE",
        choices=_STAGES,
        default="",
        help="where commands run: in a jail (namespaces, root, helper, supervised; auto for the strongest of "
        "these that works at each command), or in a virtual machine (vm) that is started at the first and "
        "kept running between them (default: PKGJAIL_STAGE, or that of the settings, or namespaces)",
    )
    group.add_argument(
        "--kernel",
        metavar="PATH",
        help="a kernel's file, a directory with boot/ and lib/modules/, or a Debian package of one (default: "
        "the newest of the source or of this host); directories are shared by its 9p",
    )
    group.add_argument(
        "--memory", metavar="SIZE", type=size, help="give it SIZE of memory, such as 4G (default: 2G)"
    )
    group.add_argument(
        "--cpus", metavar="N", type=_processors, help="give it N processors (default: all that you may use)"
    )
    group.add_argument(
        "--scratch",
        metavar="SIZE",
        type=size,
        help="put what commands write outside of binds on a disk of this size, as 20G (default: memory)",
    )
    group.add_argument(
        "--idle",
        metavar="SECONDS",
        type=_seconds,
        help="stop it after SECONDS without a command; the next starts it again (default: 900)",
    )


def _processors(text: str) -> int:
    return count(text, "processors")


def _seconds(text: str) -> int:
    return count(text, "seconds")


def kept_stage(arguments: argparse.Namespace) -> tuple[str, MachineOptions | None]:
    """Return the stage of `add_kept_machine_options` or of the settings, and the machine, if it has one.

    Raises:
        SettingsError: a file of settings is wrong.
        UsageError: an option of machines is given without one, or the settings exclude the stage, or name one
            that no environment can have.

    """
    from pkgjail.machine.model import MachineOptions
    from pkgjail.settings.read import read_settings

    settings = read_settings()
    stage: str = arguments.stage or settings.stage
    if stage not in _STAGES:
        raise UsageError(
            f"{settings.origin} makes {stage} the default stage, which no environment can have; name one of "
            f"{', '.join(_STAGES)} by --stage"
        )
    if stage != AUTO:
        settings.refuse_excluded(stage)
    given = {name: value for name in _OPTIONS if (value := getattr(arguments, name)) is not None}
    if stage != _MACHINE:
        if given:
            raise UsageError(f"--{next(iter(given))} is for a virtual machine: it needs --stage {_MACHINE}")
        return stage, None
    if "kernel" in given:
        given["kernel"] = os.path.abspath(given["kernel"])
    if "cpus" in given:
        given["processors"] = given.pop("cpus")
    return DEFAULT, MachineOptions(**given)
