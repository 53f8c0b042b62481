"""The ladder: the stages of pkgjail's own, the strongest first, of which "auto" takes the first that works.

It never steps down in silence, and never to a rung that settings exclude or that cannot keep what is asked
for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.stage_names import DEFAULT, RUNGS, WEAK_RUNGS
from pkgjail.jails.as_user import find_user
from pkgjail.stages.model import asked_for, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.settings.model import Settings
    from pkgjail.stages.model import Request, Stage

_ROOT = "root"


def strongest(stages: Mapping[str, Stage], settings: Settings, request: Request) -> str:
    """Return the name of the strongest rung that works here and keeps what is asked for.

    The request's reporter is warned if that is not the first rung, with the reasons.

    Args:
        stages: the stages by name.
        settings: which rungs may be taken.
        request: what is asked for; its command is not needed.

    Raises:
        JailError: there is none; it has the obstacle of each rung.

    """
    obstacles: dict[str, str] = {}
    for name in RUNGS:
        if name not in stages or (name == _ROOT and os.geteuid()):
            continue
        why = _excluded(name, settings) or _unkept(stages[name], request) or stages[name].obstacle()
        if not why:
            if obstacles:
                request.reporter.warn(_stepped_down(name, obstacles, request.user))
            return name
        obstacles[name] = why
    rows = "\n".join(f"  {name}: {why}" for name, why in obstacles.items())
    raise JailError(
        f"no stage of pkgjail's own can run this here:\n{rows}\n"
        "'pkgjail doctor' says what you or an administrator can do"
    )


def _stepped_down(name: str, obstacles: Mapping[str, str], user: str) -> str:
    promise = f"; it promises less than {DEFAULT} does" if name in WEAK_RUNGS else ""
    if name == _ROOT:
        promise = f", with the rights of the user {find_user(user).name}"
    why = "; ".join(f"not {each}: {obstacle}" for each, obstacle in obstacles.items())
    return f"this runs in the stage {name}, the strongest that can run it here{promise} ({why})"


def _excluded(name: str, settings: Settings) -> str:
    """Return why settings do not let a rung be taken, or ""."""
    if excluding := settings.excluded_by(name):
        return f"{excluding.origin} does not allow it"
    if not settings.is_climbable(name):
        return "it promises less, so it must be named, or be in 'allow' of a settings file"
    return ""


def _unkept(stage: Stage, request: Request) -> str:
    """Return what is asked for that a stage cannot keep, or ""."""
    promises = stage.promises()
    problems = refusals(promises, asked_for(request))
    if request.user and stage.name != _ROOT:
        problems.append(f"the rights of the user {request.user}")
    if request.manifest.devices and not promises["devices"].kept:
        problems.append("the devices that the manifest allows")
    return f"it cannot keep {'; '.join(problems)}" if problems else ""
