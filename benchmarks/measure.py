"""Time whole processes and compare them.

The subjects of a group run in turn (A B C, A B C, …) after a warm-up of each, so that other load on the
machine affects all of them alike.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# A subject whose warm-up took longer than this many seconds runs at most this many times, by default.
_SLOW_SECONDS, _SLOW_RUNS = 5.0, 3


class Subject(NamedTuple):
    """Something to time: `run` does it once and returns its seconds; `peer` names another to compare with."""

    name: str
    run: Callable[[], float]
    peer: str = ""


class Row(NamedTuple):
    """The times of one subject in milliseconds; `ratio` is its median divided by its peer's."""

    group: str
    name: str
    runs: int
    median: float
    least: float
    most: float
    peer: str
    ratio: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the row for `--json`; times are in milliseconds, `ratio` is null without a peer."""
        fields = self._asdict()
        return {**fields, "beside": fields.pop("peer"), "unit": "ms"}


def timed(
    *commands: Sequence[str], environment: Mapping[str, str] | None = None, input_fd: int | None = None
) -> float:
    """Run the commands one after the other, discard their output, and return their seconds together.

    Raises `CalledProcessError` with the standard error of a command that fails.
    """
    began = perf_counter()
    for command in commands:
        subprocess.run(
            command,
            check=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=() if input_fd is None else (input_fd,),
        )
    return perf_counter() - began


def measure(group: str, subjects: Sequence[Subject], runs: int, *, slow_runs: int = _SLOW_RUNS) -> list[Row]:
    """Warm each subject up, run all of them in turn, `runs` times or fewer if slow, and compare them."""
    counts: dict[str, int] = {}
    for subject in subjects:
        print(f"{group}: {subject.name}: warm-up", file=sys.stderr)
        counts[subject.name] = min(runs, slow_runs) if subject.run() > _SLOW_SECONDS else runs
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(runs):
        print(f"{group}: round {number + 1} of {runs}", file=sys.stderr)
        for subject in subjects:
            if number < counts[subject.name]:
                times[subject.name].append(1000 * subject.run())
    return [_row(group, subject, times) for subject in subjects]


def _row(group: str, subject: Subject, times: Mapping[str, list[float]]) -> Row:
    own, peer = times[subject.name], times.get(subject.peer)
    return Row(
        group=group,
        name=subject.name,
        runs=len(own),
        median=median(own),
        least=min(own),
        most=max(own),
        peer=subject.peer,
        ratio=median(own) / median(peer) if peer else None,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text for people, each group under its name."""
    width = max(len(row.name) for row in rows)
    lines: list[str] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", f"{group:{width}}  runs  median ms       min       max  ratio  to"]
        ratio = "     " if row.ratio is None else f"{row.ratio:5.2f}"
        figures = f"{row.runs:4}  {row.median:9.1f} {row.least:9.1f} {row.most:9.1f}"
        lines.append(f"{row.name:{width}}  {figures}  {ratio}  {row.peer}".rstrip())
    return "\n".join(lines[1:])
