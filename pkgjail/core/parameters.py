"""The library's own parameters in messages, which each interface replaces by its own words.

A message that advises the caller to choose otherwise names a parameter in the library's language. The
command line shows its flag instead (`pkgjail.cli.flags`).
"""

from __future__ import annotations

from typing import Literal

Parameter = Literal[
    "Limits.memory",
    "allow_drift=True",
    "allow_unmet=True",
    "architecture",
    "at",
    "devices",
    "focus",
    "hashed=False",
    "kernel",
    "map_root=True",
    "package_database=False",
    "packages",
    "plan='auto'",
    "plan='binds'",
    "plan_packages",
    "limits.bytes",
    "limits.names",
    "quick=True",
    "replace=True",
    "root",
    "source",
    "stage='auto'",
    "stage='vm'",
    "store",
    "suite",
    "user",
    "verify='hash'",
]


def parameter(name: Parameter) -> str:
    """Return a parameter or a function of the library as messages name it."""
    return f"`{name}`"
