"""Processes that tests start, and recognize in /proc while they sleep."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path


class Marked:
    """Processes that are recognized by the odd time for which they sleep, or by another beginning."""

    def __init__(self, beginning: str = "") -> None:
        self.seconds = f"1000.{time.time_ns()}"
        self._beginning = beginning or f"sleep {self.seconds}"

    def states(self) -> list[str]:
        """Return the state of each process: S asleep, T stopped; see proc_pid_stat(5)."""
        found = subprocess.run(
            ["pgrep", "-f", f"^{self._beginning}"], capture_output=True, text=True, check=False
        )
        states = []
        for number in found.stdout.split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                text = Path(f"/proc/{number}/stat").read_text(encoding="ascii")
                states.append(text.rpartition(")")[2].split()[0])
        return states

    def wait_for(self, *states: str) -> None:
        """Wait until the processes are in these states."""
        deadline = time.monotonic() + 30
        while self.states() != list(states):
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.02)
