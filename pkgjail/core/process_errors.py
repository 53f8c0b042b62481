"""Errors of commands that ran. They are those of `subprocess`, too, which most entries need not import."""

from __future__ import annotations

import subprocess

from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import shell_quote


class CommandStatusError(PkgjailError, subprocess.CalledProcessError):
    """A command with `check` ended with another status than 0; the attributes are `CalledProcessError`'s."""

    def __str__(self) -> str:
        return f"the command {_shown(self.cmd)} ended with status {self.returncode}"


class CommandTimeoutError(PkgjailError, subprocess.TimeoutExpired):
    """A command did not end within its `timeout` and was killed; the attributes are `TimeoutExpired`'s."""

    def __str__(self) -> str:
        return f"the command {_shown(self.cmd)} did not end within {self.timeout:.10g} s, and was killed"


def _shown(argv: list[str]) -> str:
    return " ".join(map(shell_quote, argv))
