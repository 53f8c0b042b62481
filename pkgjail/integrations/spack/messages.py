"""Messages in Spack's own form, on standard error."""

from __future__ import annotations

import sys


def print_error(message: str) -> int:
    """Print an error in Spack's form; return the exit status."""
    _print("Error", message)
    return 1


def print_warning(message: str) -> None:
    """Print a warning in Spack's form."""
    _print("Warning", message)


def _print(kind: str, message: str) -> None:
    from pkgjail.cli.flags import with_flags
    from pkgjail.core.text import printable

    lines = map(printable, with_flags(message).split("\n"))
    sys.stderr.write(f"==> {kind}: " + "\n    ".join(lines) + "\n")
    sys.stderr.flush()
