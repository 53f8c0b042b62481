"""The stage of an environment: what its commands run in, if that is not a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.stage_names import AUTO, DEFAULT
from pkgjail.core.text import printable
from pkgjail.environments.record import STAGES
from pkgjail.settings.read import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.environments.record import Header
    from pkgjail.stages.model import Request

MACHINE = "vm"
"""The stage of machines."""


def refuse_stage(stage: str, request: Request) -> None:
    """Refuse a stage that cannot be an environment's, or cannot keep what each entry asks for.

    Raises:
        InputError: it is none of pkgjail's own stages.
        RefusedError: it cannot keep what is asked for.
        UsageError: settings exclude it.

    """
    if stage not in STAGES:
        why = f"{printable(stage)!r} cannot be its stage; the stages of environments are {', '.join(STAGES)}"
        raise InputError([Problem("", f"cannot build an environment: {why}")])
    if stage in {DEFAULT, AUTO}:
        return
    from pkgjail.stages import STAGES as ALL
    from pkgjail.stages import choose_stage
    from pkgjail.stages.model import RefusedError, asked_for, refusals

    choose_stage(stage, request)
    if problems := refusals(ALL[stage].promises(), asked_for(request)):
        raise RefusedError(stage, problems)


def stage_of_entry(header: Header, request: Callable[[], Request]) -> str:
    """Return the stage in which an entry runs; "vm" with a machine.

    Raises:
        JailError: the environment's is "auto", and none can run it.
        SettingsError: a file of settings is wrong.
        UsageError: settings exclude the environment's stage.

    """
    settings = read_settings()
    stage = MACHINE if header.machine is not None else header.stage
    if stage in {DEFAULT, MACHINE}:
        settings.refuse_excluded(stage)
        return stage
    from pkgjail.stages import choose_stage  # loads all stages

    return choose_stage(stage, request(), settings)
