"""What differs in Spack 0.13 to 0.16: no function returns the active environment."""

from __future__ import annotations

from typing import Any

from pkgjail.integrations.spack.instance.adapters import until_0_17
from pkgjail.integrations.spack.instance.adapters.current import module


class Adapter(until_0_17.Adapter):
    """The adapter for these versions."""

    def environment(self) -> Any:
        """Return Spack's active environment or None; it has `path` and may have `views` and `dev_specs`."""
        return module("spack.environment")._active_environment  # noqa: SLF001 - there is no other way
