"""Try each stage, and say what it promises; `pkgjail stages` shows the same."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from pkgjail.core.architectures import host_architecture
from pkgjail.core.reporter import SILENT
from pkgjail.core.stage_names import AUTO, DEFAULT, RUNGS
from pkgjail.doctor import remedies
from pkgjail.doctor.model import COLUMNS, DefaultReport, StageReport
from pkgjail.jails.diagnosis import explain
from pkgjail.machine.qemu import program_of
from pkgjail.stages import STAGES
from pkgjail.stages.engine import Engine
from pkgjail.stages.namespaces import Namespaces
from pkgjail.stages.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.doctor.model import Remedy
    from pkgjail.doctor.remedies import Surroundings
    from pkgjail.jails.causes import Cause
    from pkgjail.settings.model import Settings
    from pkgjail.stages.model import Stage

_OF_NAMESPACES = frozenset({"bwrap", "podman", "runc"})  # engines that make user namespaces for users


def examine_stages(
    settings: Settings, around: Surroundings, reporter: Reporter = SILENT
) -> tuple[StageReport, ...]:
    """Try all stages, each in processes of its own that end with the trial."""
    first = STAGES[DEFAULT]
    cause = first.cause() if isinstance(first, Namespaces) else None
    reports = []
    for number, stage in enumerate(STAGES.values()):
        reporter.progress("trying stages", number, len(STAGES))
        reports.append(_examine(stage, cause, settings, around))
    reporter.progress("trying stages", len(STAGES), len(STAGES))
    return tuple(reports)


def _examine(stage: Stage, cause: Cause | None, settings: Settings, around: Surroundings) -> StageReport:
    own = cause if stage.name == DEFAULT else None
    # The default stage was tried to learn the cause.
    obstacle = (explain(own) if own else "") if stage.name == DEFAULT else stage.obstacle()
    excluding = settings.excluded_by(stage.name)
    promises = stage.promises()
    return StageReport(
        name=stage.name,
        summary=stage.summary,
        promises={each: promises[each].kept for each in COLUMNS},
        obstacle=obstacle,
        cause=own.kind if own else "",
        excluded=excluding.origin if excluding else "",
        remedies=_remedies(stage, obstacle, cause, around) if obstacle else (),
    )


def _remedies(stage: Stage, obstacle: str, cause: Cause | None, around: Surroundings) -> tuple[Remedy, ...]:
    """Return what can be done about the obstacle of a stage; `cause` is that of the default one."""
    if isinstance(stage, Engine) and shutil.which(stage.program) is None:
        return (remedies.installation(stage.name, around),)
    if stage.name in {DEFAULT, *_OF_NAMESPACES}:
        found = remedies.of_cause(cause, around) if cause else ()
        if stage.name == "podman" and not found:
            return (remedies.of_limits() if "rlimit" in obstacle else remedies.subordinate_ids(),)
        return found
    if isinstance(stage, Vm):
        return (_of_machine(around),)
    of_rungs = {
        "root": remedies.of_root(around),
        "helper": remedies.of_helper(),
        "supervised": remedies.of_supervised(),
    }
    return (of_rungs[stage.name],) if stage.name in of_rungs else ()


def _of_machine(around: Surroundings) -> Remedy:
    """Return what is to be installed for a machine: the program first, then a kernel."""
    host = host_architecture()
    program = program_of(host.debian)[0] if host else ""
    return remedies.installation("kernel" if program and shutil.which(program) else "vm", around)


def default_of(settings: Settings, stages: Sequence[StageReport]) -> DefaultReport:
    """Return which stage commands run in here by default."""
    by_name = {each.name: each for each in stages}
    taken = ""
    if settings.stage == AUTO:
        climbable = [name for name in RUNGS if name in by_name and settings.is_climbable(name)]
        usable = [name for name in climbable if name != "root" or not os.geteuid()]
        taken = next((name for name in usable if by_name[name].works), "")
    elif settings.stage in by_name and by_name[settings.stage].works:
        taken = settings.stage
    return DefaultReport(stage=settings.stage, origin=settings.origin, taken=taken)
