"""Reporters, which receive the progress and the warnings of long work.

The library never prints: the caller passes a reporter. The command line passes one that draws on the
terminal, tests pass one that records, and the default is `Silent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pkgjail.core.text import MOST_SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reporter(Protocol):
    """Hooks that are called during the work. Each must return quickly and never raise."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Report that `task` (a present participle, "hashing") has done `done` of `total` steps."""

    def warn(self, message: str) -> None:
        """Report something that the user should know and that does not stop the work."""


def warn_each(reporter: Reporter, messages: Sequence[str], others: str) -> None:
    """Warn with the first few of several messages, and of how many there are besides: "12 more OTHERS"."""
    for message in messages[:MOST_SHOWN]:
        reporter.warn(message)
    if len(messages) > MOST_SHOWN:
        reporter.warn(f"and {len(messages) - MOST_SHOWN:,} more {others}")


class Silent:
    """A reporter that does nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Do nothing."""

    def warn(self, message: str) -> None:
        """Do nothing."""


class ProgressOnly:
    """A reporter that passes progress on to another one, and drops warnings."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def progress(self, task: str, done: int, total: int) -> None:
        """Pass it on."""
        self._reporter.progress(task, done, total)

    def warn(self, message: str) -> None:
        """Do nothing."""


SILENT = Silent()
