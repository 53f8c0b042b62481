"""The adapter for Spack 1.3 and newer, and what all versions have in common."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class Adapter:
    """The parts of a Spack that differ between its versions, or are not in its configuration."""

    def setting(self, key: str) -> Any:
        """Return a setting, such as "config:misc_cache", or a section; None if it is not set."""
        return module("spack.config").get(key)

    def canonical_path(self, path: str) -> str:
        """Return a path of the configuration with Spack's and the environment's variables expanded."""
        return str(module("spack.config").canonicalize_path(path))

    def scopes(self) -> Iterable[Any]:
        """Return the scopes of the configuration; those that are directories have `path`."""
        return list(module("spack.config").CONFIG.scopes.values())

    def path(self, name: str) -> str | None:
        """Return one of Spack's own paths, such as "prefix"; None if this Spack has none of that name."""
        found: str | None = getattr(module("spack.paths"), name, None)
        return found

    def stage(self) -> str:
        """Return the directory where Spack builds."""
        return str(module("spack.stage").get_stage_root())

    def store(self) -> Any:
        """Return the tree of installed packages; it has `root` and may have `unpadded_root`."""
        return module("spack.store").STORE

    def extensions(self) -> list[str]:
        """Return the folders of Spack's extensions."""
        return list(module("spack.extensions").get_extension_paths())

    def package_class(self, name: str) -> Any:
        """Return a package's recipe, a class; Spack's own exception if no repository has it."""
        return module("spack.repo").PATH.get_pkg_class(name)

    def environment(self) -> Any:
        """Return Spack's active environment or None; it has `path` and may have `views` and `dev_specs`."""
        return module("spack.environment").active_environment()


def module(name: str) -> Any:
    """Return a module of Spack, which exists only in Spack's own process."""
    return importlib.import_module(name)
