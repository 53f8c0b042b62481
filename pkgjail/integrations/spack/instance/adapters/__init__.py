"""What pkgjail knows of Spack's insides, in Spack's own process: an adapter for each range of versions.

`current` describes the newest Spack. Each `until_VERSION` describes what differs up to that version, and
can be deleted when nobody needs these versions any more. Nothing else in pkgjail uses Spack's modules.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pkgjail.integrations.spack.instance.adapters.current import Adapter

# From the oldest on: the last version of each range, and its module.
_RANGES = (
    ((0, 16), "until_0_16"),
    ((0, 17), "until_0_17"),
    ((0, 20), "until_0_20"),
    ((1, 2), "until_1_2"),
)


def module_name(version: str) -> str:
    """Return the name of the module that has the adapter for a version of Spack, such as "1.1.1"."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    # A version that does not begin like this has not been released; then it is newer.
    number = (int(numbers[1]), int(numbers[2])) if numbers else (10**9, 0)
    return next((module for last, module in _RANGES if number <= last), "current")


def adapter() -> Adapter:
    """Return the adapter for the Spack that runs in this process."""
    module: Any = importlib.import_module(f"{__name__}.{module_name(spack_version())}")
    found: Adapter = module.Adapter()
    return found


def spack_version() -> str:
    """Return the version of the Spack that runs in this process."""
    spack: Any = importlib.import_module("spack")
    return str(spack.spack_version)
