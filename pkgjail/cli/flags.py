"""The flags of the command line, in the place of the library's parameters that messages name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.parameters import Parameter

FLAGS: Mapping[Parameter, str] = {
    "Limits.memory": "--memory",
    "allow_drift=True": "'--allow-drift'",
    "allow_unmet=True": "--allow-unmet",
    "architecture": "--arch",
    "at": "--at",
    "devices": "--device",
    "focus": "--focus",
    "hashed=False": "--no-hash",
    "kernel": "--kernel",
    "map_root=True": "--map-root",
    "package_database=False": "--no-package-database",
    "packages": "--package",
    "plan='auto'": "'--strategy auto'",
    "plan='binds'": "'--strategy binds'",
    "plan_packages": "'pkgjail resolve --available'",
    "limits.bytes": "--max-size",
    "limits.names": "--max-names",
    "quick=True": "'--quick'",
    "replace=True": "--replace",
    "root": "--root",
    "source": "--source",
    "stage='auto'": "'--stage auto'",
    "stage='vm'": "'--stage vm'",
    "store": "--store",
    "suite": "--suite",
    "user": "--user",
    "verify='hash'": "'=hash'",
}
_BY_NAME: Mapping[str, str] = {f"`{name}`": flag for name, flag in FLAGS.items()}
_PARAMETER = re.compile("|".join(map(re.escape, _BY_NAME)))


def with_flags(message: str) -> str:
    """Return a message of the library in the words of the command line."""
    return _PARAMETER.sub(lambda match: _BY_NAME[match[0]], message)
