"""What a project asks for."""

from __future__ import annotations

from pkgjail.core.model import record

FILE = "pkgjail.toml"
"""The file of a project, in its directory."""
PYPROJECT = "pyproject.toml"
"""The file of a Python project, which may have the same in `[tool.pkgjail]`."""
LOCK = "pkgjail.lock.jsonl"
"""The manifest of a project, beside its file."""


@record
class Project:
    """A project's file: what its jail has, and how commands run in it.

    `file` is its name. `lists`, `packages` and `blacklists` are as `pkgjail.api.resolve` takes them. `bind`,
    `ro_bind` and `env` are words for the options of `pkgjail run` with these names; with `cwd`, the project's
    directory is bound, and the command starts in it.
    """

    file: str
    lists: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    blacklists: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()
    ro_bind: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: bool = True
    network: bool = True
