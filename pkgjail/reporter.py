"""How long work tells of its progress: through a reporter that the caller passes.

The library never prints. A command passes a reporter that draws on the terminal, a test passes
one that remembers, and who passes none gets `Silent`.
"""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Hooks that a stage calls while it works. Each must return quickly and never raise."""

    def progress(self, task: str, done: int, total: int) -> None:
        """`task` (a present participle, "hashing") has done `done` of `total` steps."""

    def warn(self, message: str) -> None:
        """Something the user should know, that does not stop the work."""


class Silent:
    """A reporter that says nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""


SILENT = Silent()
