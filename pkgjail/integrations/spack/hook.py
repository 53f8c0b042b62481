"""The hooks by which Spack's own plug-in mechanism calls pkgjail: the entry points in pyproject.toml.

Spack calls `go_inside` (`spack.config`) when it makes its configuration, at the start of every command that
has one. It calls `extension_folders` (`spack.extensions`) to find the command `spack jail`. If Spack changes
this mechanism, this is the module to change. The hook without Spack's help is in `wrapper`.
"""

from __future__ import annotations

import os
import sys

from pkgjail.environments.process import process_argv
from pkgjail.integrations.spack.extensions import extension_paths
from pkgjail.integrations.spack.inside import run_inside

# Whether Spack has called `go_inside` in this process.
_called = False


def go_inside() -> None:
    """Run this Spack command in the active environment, and end with its status.

    Returns if no environment is active, if this process already runs in the jail, and for `spack jail`
    itself. Otherwise the process ends at once. `SystemExit` would not work: Spack's main catches it and
    reads the configuration, which calls this function again.
    """
    global _called  # noqa: PLW0603 - about Spack in this process
    _called = True
    root = _loaded_root()
    if root is None:
        return
    status = run_inside(root, sys.executable, process_argv()[1:], sys.argv[1:])
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def extension_folders() -> list[str]:
    """Return the folders of the commands that this Spack gets from pkgjail."""
    return extension_paths(_loaded_root())


def is_called() -> bool:
    """Check whether the Spack of this process calls pkgjail's entry point `spack.config`."""
    return _called


def _loaded_root() -> str | None:
    """Return the root of the Spack that runs in this process; None if none does."""
    return getattr(sys.modules.get("spack.paths"), "prefix", None)
