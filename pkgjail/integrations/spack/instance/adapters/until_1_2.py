"""What differs in Spack 0.21 to 1.2: paths are expanded by another module."""

from __future__ import annotations

from pkgjail.integrations.spack.instance.adapters import current


class Adapter(current.Adapter):
    """The adapter for these versions."""

    def canonical_path(self, path: str) -> str:
        """Return a path of the configuration with Spack's and the environment's variables expanded."""
        return str(current.module("spack.util.path").canonicalize_path(path))
