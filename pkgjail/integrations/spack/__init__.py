"""Spack in the jail: the commands `spack jail` and `spack isolate`, and the hooks for all other commands.

Spack is not patched. There are two hooks: `hook` for Spack's entry points, and `wrapper` for `SPACK_PYTHON`.
Both call `inside`, which enters the environment that `active` records: by `replay` if it knows the command's
jail, and otherwise by `enter`. `caller` has what a command takes from its caller, and `instance` what its
Spack needs: in Spack's own process, `instance.description` reads Spack's configuration, by one of the
adapters, which alone know Spack's insides. `extension/` has the folders from which Spack loads the command
`spack jail`, which `jail` implements. docs/spack.md is the guide.

The three functions of the 2017 paper are here too, for Spack as a library.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Any

    from pkgjail.environments.isolate import (
        build_chroot_environment,
        isolate_environment,
        remove_chroot_environment,
    )

__all__ = ["build_chroot_environment", "isolate_environment", "remove_chroot_environment"]


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pkgjail.environments import isolate

    return getattr(isolate, name)
