"""How long work tells of its progress: through a reporter that the caller passes.

The library never prints. A command passes a reporter that draws on the terminal, a test passes
one that remembers, and who passes none gets `Silent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pkgjail.core.text import MOST_SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reporter(Protocol):
    """Hooks that a stage calls while it works. Each must return quickly and never raise."""

    def progress(self, task: str, done: int, total: int) -> None:
        """`task` (a present participle, "hashing") has done `done` of `total` steps."""

    def warn(self, message: str) -> None:
        """Something the user should know, that does not stop the work."""


def warn_each(reporter: Reporter, messages: Sequence[str], others: str) -> None:
    """Warn of each thing of one kind, and beyond the first few of how many there are: "12 more OTHERS"."""
    for message in messages[:MOST_SHOWN]:
        reporter.warn(message)
    if len(messages) > MOST_SHOWN:
        reporter.warn(f"and {len(messages) - MOST_SHOWN:,} more {others}")


class Silent:
    """A reporter that says nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""


class ProgressOnly:
    """A reporter that passes progress on to another one, and no warnings."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, task: str, done: int, total: int) -> None:
        """Pass it on."""
        self._reporter.progress(task, done, total)

    def warn(self, message: str) -> None:
        """Say nothing."""


SILENT = Silent()
