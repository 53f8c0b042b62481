"""The parser of all verbs: argparse's, with a verb's own exit status for bad usage."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Ends with a verb's default `failure` where that is not 0.

    In `run` and `shell` any status up to 124 may be that of the command in the jail.
    """

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the arguments, and exit."""
        self.print_usage(sys.stderr)
        self.exit(self.get_default("failure") or 2, f"{self.prog}: error: {message}\n")
