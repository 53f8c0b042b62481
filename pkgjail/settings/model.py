"""Settings as they were read, with the place that each value came from."""

from __future__ import annotations

from pkgjail.core.errors import UsageError
from pkgjail.core.model import record
from pkgjail.core.stage_names import DEFAULT, WEAK_RUNGS


@record
class AllowedStages:
    """A list of the stages that a file allows, and its place: `/etc/pkgjail.toml:3`."""

    stages: tuple[str, ...]
    origin: str


@record
class Settings:
    """The settings that apply to this process.

    `stage` is the default, a stage's name or "auto". `origin` is the place that it came from: `FILE:LINE`,
    "PKGJAIL_STAGE", or "" if nobody chose it. `allowed` has the site's list and the user's, as far as they
    exist: a stage must be in all of them.
    """

    stage: str = DEFAULT
    origin: str = ""
    allowed: tuple[AllowedStages, ...] = ()

    def excluded_by(self, stage: str) -> AllowedStages | None:
        """Return the first list that a stage is not in, or None if it may be used."""
        return next((each for each in self.allowed if stage not in each.stages), None)

    def is_climbable(self, rung: str) -> bool:
        """Return whether "auto" may take a rung: it is not excluded, and a weak one is listed."""
        return self.excluded_by(rung) is None and (rung not in WEAK_RUNGS or bool(self.allowed))

    def refuse_excluded(self, stage: str) -> None:
        """Refuse a stage that a list excludes.

        Raises:
            UsageError: names the list.

        """
        excluding = self.excluded_by(stage)
        if excluding is not None:
            chosen = f", which {self.origin} makes the default" if self.origin and stage == self.stage else ""
            raise UsageError(
                f"cannot use the stage {stage}{chosen}: {excluding.origin} allows only "
                f"{', '.join(excluding.stages)}; name one of these"
            )
