"""Count the paths that a jail's processes ask for, within bounds, and tell what became of each.

Paths are counted as they were asked for. If there are too many, they are resolved, and what neither the jail
nor its source has is counted by directory from then on. So the size has a bound: what exists.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from pkgjail.sandbox.path_calls import EXEC, KINDS, LINK, LIST, OPEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.audit.answers import Answer, Answers
    from pkgjail.audit.processes import Processes, RunningProgram

    # A program, the number of a kind of call, what became of a path, and how often.
    Counted = tuple[RunningProgram, int, Answer, int]

MOST_BYTES = 32 << 20
"""How much memory counted paths may take before they are resolved."""

_ENTRY = 160  # bytes: a path's place in a table, and what its object takes besides its text
_MOST_DIRECTORIES = 4 << 20  # bytes of their paths
_ELSEWHERE = b"/"  # where names are counted whose directories are too many


class Tally:
    """Counts of one run.

    `processes` must be set before the first count. `rings` counts calls of io_uring_setup(2), `unread` calls
    whose path could not be read.
    """

    def __init__(self, answers: Answers, most: int = MOST_BYTES) -> None:
        self.rings = 0
        self.unread = 0
        self._folded = False
        self.processes: Processes
        self._answers = answers
        self._most = most
        self._size = 0
        self._nowhere: dict[bytes, list[int]] = {}
        self._directories = 0

    def grow(self, path: bytes) -> None:
        """Take note of a path that was not in its table, and fold if they take too much memory."""
        self._size += len(path) + _ENTRY
        if self._size > self._most:
            self._fold()

    def result(self) -> bytes:
        """Return everything, for `pkgjail.audit.evidence`, in marshal's format."""
        found = _Found(self._answers)
        for program, kind, answer, count in self._resolved():
            if answer.is_counted_by_directory:
                self._add_nowhere(answer.directory, count)
            else:
                found.add(answer, kind, program.number, count)
        for program in self.processes.programs:
            found.add_executed(program)
        record: Any = {
            "rings": self.rings,
            "unread": self.unread,
            "folded": self._folded or self.processes.gave_up,
            "programs": [program.record for program in self.processes.programs],
            "paths": found.records(),
            "listings": found.listings(),
            "nowhere": [(path, *counts) for path, counts in self._nowhere.items()],
        }
        return marshal.dumps(record)

    def _resolved(self) -> Iterator[Counted]:
        """Yield each counted path's program, kind of call, answer and count."""
        answers: dict[bytes, Answer] = {}
        for program in self.processes.programs:
            for kind, table in enumerate(program.tables):
                for path, count in table.items():
                    answer = answers.get(path)
                    if answer is None:
                        answer = answers[path] = self._answers.find(path)
                    yield program, kind, answer, count

    def _fold(self) -> None:
        """Resolve what was counted. If that leaves too much, give up names in binds, and then programs."""
        kept = list(self._without_nowhere())
        if _size(kept) > self._most // 2:
            kept = list(self._without_binds(kept))
        one = self.processes.others() if _size(kept) > self._most // 2 else None
        for program in self.processes.programs:
            for table in program.tables:
                table.clear()
        for program, kind, answer, count in kept:
            table = (one or program).tables[kind]
            table[answer.path] = table.get(answer.path, 0) + count
        tables = [table for program in self.processes.programs for table in program.tables]
        self._size = sum(len(path) + _ENTRY for table in tables for path in table)
        self._most = max(self._most, 2 * self._size)

    def _without_nowhere(self) -> Iterator[Counted]:
        for counted in self._resolved():
            answer, count = counted[2:]
            if answer.is_counted_by_directory:
                self._add_nowhere(answer.directory, count)
            else:
                yield counted

    def _without_binds(self, kept: Iterable[Counted]) -> Iterator[Counted]:
        self._folded = True
        for counted in kept:
            answer, count = counted[2:]
            if answer.area == "manifest":
                yield counted
            else:
                self._add_nowhere(answer.directory, count)

    def _add_nowhere(self, directory: bytes, count: int) -> None:
        if directory not in self._nowhere:
            if self._directories > _MOST_DIRECTORIES:
                directory = _ELSEWHERE
            self._directories += len(directory) + _ENTRY
        counts = self._nowhere.setdefault(directory, [0, 0])
        counts[0] += 1
        counts[1] += count


def _size(counted: Iterable[Counted]) -> int:
    return sum(len(answer.path) + _ENTRY for _, _, answer, _ in counted)


class _Found:
    """The resolved paths of a result, each with its calls by kind and its programs."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._found: dict[bytes, tuple[Answer, dict[str, int], dict[int, int]]] = {}
        self._listed: set[bytes] = set()
        self._executed: set[bytes] = set()

    def add(self, answer: Answer, kind: int, program: int, count: int) -> None:
        """Add a path that a program asked for, and what it leads to if it is a link or executed."""
        _, calls, programs = self._found.setdefault(answer.path, (answer, {}, {}))
        calls[KINDS[kind]] = calls.get(KINDS[kind], 0) + count
        programs[program] = programs.get(program, 0) + count
        is_listed = answer.inside == "directory" and kind in {LIST, OPEN}
        # Of a directory that is not there, no compiler or shell asks for what it would have had.
        if answer.area == "manifest" and (is_listed or answer.source == "directory"):
            self._listed.add(answer.path)
        if answer.then:
            led_to = self._answers.find(answer.then)
            if kind != LINK or led_to.inside != "absent":  # who reads a link may not follow it
                self.add(led_to, kind, program, count)
        elif kind == EXEC and answer.inside == "regular" and answer.path not in self._executed:
            self._executed.add(answer.path)
            self._add_interpreter(answer.path, program)

    def add_executed(self, program: RunningProgram) -> None:
        """Add a program's own file, unless it is there: it may be a script's interpreter."""
        if program.path and program.path not in self._executed:
            answer = self._answers.find(program.path)
            if not answer.is_counted_by_directory:
                self.add(answer, EXEC, program.number, 1)

    def records(self) -> list[tuple[Any, ...]]:
        """Return each path with the fields that `pkgjail.audit.evidence` reads."""
        return [(*answer[:5], calls, programs) for answer, calls, programs in self._found.values()]

    def listings(self) -> list[tuple[bytes, list[bytes]]]:
        """Return each directory of which a listing was read, with the names that it lacked."""
        listed = [(path, sorted(self._answers.hidden(path))) for path in sorted(self._listed)]
        return [(path, hidden) for path, hidden in listed if hidden]

    def _add_interpreter(self, path: bytes, program: int) -> None:
        """Add what the kernel itself opens: a script's interpreter, or the loader of an ELF file."""
        interpreter = self._answers.interpreter(path)
        if interpreter.startswith(b"/"):
            answer = self._answers.find(interpreter)
            if not answer.is_counted_by_directory:
                self.add(answer, EXEC, program, 1)
