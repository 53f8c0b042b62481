"""What differs in Spack 0.17: it refuses sections that it does not know; extensions have no entry point."""

from __future__ import annotations

from typing import Any

from pkgjail.integrations.spack.instance.adapters import until_0_20
from pkgjail.integrations.spack.instance.adapters.current import module


class Adapter(until_0_20.Adapter):
    """The adapter for these versions."""

    def setting(self, key: str) -> Any:
        """Return a setting, such as "config:misc_cache", or a section; None if it is not set."""
        configuration = module("spack.config")
        return configuration.get(key) if key.partition(":")[0] in configuration.section_schemas else None

    def extensions(self) -> list[str]:
        """Return the folders of Spack's extensions."""
        return [self.canonical_path(path) for path in self.setting("config:extensions") or ()]
