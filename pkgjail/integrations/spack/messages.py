"""Messages in Spack's own form, on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pkgjail.core.parameters import parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.parameters import Parameter

# What `spack jail` has instead of options of pkgjail's own command line.
_INSTEAD: Mapping[Parameter, str] = {
    "limits.bytes": "--max-size of 'pkgjail image import'",
    "limits.names": "--max-names of 'pkgjail image import'",
    "root": "--source dir:PATH",
}


def print_error(message: str) -> int:
    """Print an error in Spack's form; return the exit status."""
    _print("Error", message)
    return 1


def print_warning(message: str) -> None:
    """Print a warning in Spack's form."""
    _print("Warning", message)


def with_options(message: str) -> str:
    """Return a message of the library in the words of `spack jail`."""
    from pkgjail.cli.flags import with_flags

    for name, words in _INSTEAD.items():
        message = message.replace(parameter(name), words)
    return with_flags(message)


def _print(kind: str, message: str) -> None:
    from pkgjail.core.text import printable

    lines = map(printable, with_options(message).split("\n"))
    sys.stderr.write(f"==> {kind}: " + "\n    ".join(lines) + "\n")
    sys.stderr.flush()
