"""The names of the stages, for what must know them without importing the stages."""

from __future__ import annotations

DEFAULT = "namespaces"
"""The stage if nobody chooses another one."""
AUTO = "auto"
"""The name by which the strongest rung that works is chosen."""
RUNGS = (DEFAULT, "root", "helper", "supervised")
"""The stages of pkgjail's own, the strongest first: the ladder of `AUTO`."""
WEAK_RUNGS = frozenset({"supervised"})
"""The rungs that `AUTO` takes only if settings list them: they promise less than the default."""
STAGE_NAMES = (*RUNGS, "bwrap", "podman", "runc", "nspawn", "vm")
"""All stages that there can be."""
