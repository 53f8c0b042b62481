"""What differs in Spack 0.18 to 0.20: the objects of a process have other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pkgjail.integrations.spack.instance.adapters import until_1_2
from pkgjail.integrations.spack.instance.adapters.current import module

if TYPE_CHECKING:
    from collections.abc import Iterable


class Adapter(until_1_2.Adapter):
    """The adapter for these versions."""

    def scopes(self) -> Iterable[Any]:
        """Return the scopes of the configuration; those that are directories have `path`."""
        return list(module("spack.config").config.scopes.values())

    def store(self) -> Any:
        """Return the tree of installed packages; it has `root` and may have `unpadded_root`."""
        return module("spack.store").store

    def package_class(self, name: str) -> Any:
        """Return a package's recipe, a class; Spack's own exception if no repository has it."""
        return module("spack.repo").path.get_pkg_class(name)
