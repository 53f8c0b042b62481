"""Progress, warnings and sizes on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from pkgjail.cli.verbosity import is_quiet, is_verbose

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID
    from typing_extensions import Self


def human_size(size: int) -> str:
    """Format a size in bytes for people, in powers of 1000: `551.2 MB`."""
    from rich.filesize import decimal

    return decimal(size)


class ConsoleReporter:
    """A reporter that prints warnings on standard error, and draws progress there if it is a terminal.

    Use it as a context manager, which removes the progress bar at the end. With `as_json`, a warning is
    a JSON object on a line of its own. With -q neither is printed; with -v each task that is done is a line.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._done: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}
        for line in self._done:
            print(line, file=sys.stderr)
        self._done = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Draw the progress of `task` until all tasks are done; only on a terminal."""
        if is_quiet():
            return
        if is_verbose() and not self._as_json:
            self._note_time(task, done, total)
        if self._progress is None:
            # Checked once: the stream that rich before version 15 then puts in its place is never a terminal.
            if done >= total or not sys.stderr.isatty():
                self._stop()
                return
            self._progress = _started_progress()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._progress.update(self._tasks[task], completed=done, total=total)
        if self._progress.finished:  # removed before a command gets the terminal
            self._stop()

    def _note_time(self, task: str, done: int, total: int) -> None:
        """Keep a line for a task that is done; it is printed when no bar is drawn."""
        began = self._began.setdefault(task, time.monotonic())
        if done >= total:
            seconds = time.monotonic() - self._began.pop(task, began)
            self._done.append(f"pkgjail: {task}: {total:,} in {seconds:.2f} s")

    def warn(self, message: str) -> None:
        """Print a warning on standard error."""
        from pkgjail.cli.output import print_warning

        print_warning(message, as_json=self._as_json)


def _started_progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
    progress.start()
    return progress
