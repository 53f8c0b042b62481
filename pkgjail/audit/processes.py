"""Which program each process of a jail runs, and which programs started it.

A program is known by its file, and by the script that an interpreter was given. A process that has not made a
call yet has the program of the process that forked it. After execve(2) it is looked at again, once.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pkgjail.sandbox.path_calls import EXEC, KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.sandbox.observation import Observed

_DEEPEST = 64  # programs in a chain
_MOST_PROGRAMS = 5_000
_MOST_PROCESSES = 2_000  # before those that have ended are forgotten
_MOST_WORDS = 4096  # bytes of a command line that are read
# Programs whose first argument that is no option is a script.
_INTERPRETERS = re.compile(
    rb"(?:ba|da|k|z|mk|a)?sh|busybox|perl[\d.]*|python[\d.]*|ruby[\d.]*|[gmn]?awk|tclsh[\d.]*|guile[\d.-]*"
)


class RunningProgram:
    """A program in a chain. `tables` count paths by kind of call (`pkgjail.sandbox.path_calls.KINDS`)."""

    __slots__ = ("depth", "number", "parent", "path", "script", "tables")

    def __init__(self, number: int, path: bytes, script: bytes, parent: RunningProgram | None) -> None:
        self.number = number
        self.path = path
        self.script = script
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.tables: list[dict[bytes, int]] = [{} for _ in KINDS]

    @property
    def record(self) -> tuple[int, bytes, bytes, int]:
        """Return the fields of a `pkgjail.audit.model.Program`."""
        return self.number, self.path, self.script, self.parent.number if self.parent else 0


class Process:
    """A process, or a thread.

    `is_ours` is set until it executes the command. `root` is its root directory, b"" for the jail's.
    """

    __slots__ = ("group", "is_ours", "program", "root", "tables")

    def __init__(self, group: int, program: RunningProgram, root: bytes) -> None:
        self.group = group
        self.program = program
        self.root = root
        self.is_ours = program.parent is None
        self.tables = program.tables


class Processes:
    """The processes of one jail by their process ids, as far as they are known.

    `grow` is called for each new path in a table. `gave_up` is set when programs are too many to tell apart.
    """

    def __init__(self, jail: Observed, grow: Callable[[bytes], None]) -> None:
        self.gave_up = False
        self._init = jail.init
        self._grow = grow
        self._known: dict[int, Process] = {}
        self._before: dict[int, Process] = {}  # those that may have executed another program since
        self._start = RunningProgram(0, b"", b"", None)
        self._others: RunningProgram | None = None
        self._made: dict[tuple[int, bytes, bytes], RunningProgram] = {}
        self._own = (_link(f"/proc/{self._init}/exe"), _command_line(self._init))
        self.get = self._known.get

    @property
    def programs(self) -> list[RunningProgram]:
        """Return all programs that were seen, by number."""
        others = [] if self._others is None else [self._others]
        return [*self._made.values(), *others]

    def expect_change(self, process: int) -> None:
        """Look at a process again at its next call: it calls execve(2), which may fail."""
        state = self._known.pop(process, None)
        if state is None:
            return
        self._before[process] = state
        if state.group != process:  # the process goes on under the id of its thread group
            group = self._known.pop(state.group, None)
            self._before[state.group] = group or state

    def meet(self, process: int) -> Process:
        """Return what is known of a process that is new or may have changed, and remember it."""
        if len(self._known) + len(self._before) > _MOST_PROCESSES:
            self._forget_ended()
        group, parent = _ids(process)
        before = self._before.pop(process, None)
        if before is not None:
            program = before.program
        elif group != process:
            program = self._program_of(group)
        else:
            program = self._program_of(parent)
        path = _link(f"/proc/{process}/exe")
        # The command may be the same Python; only its command line tells it from the process before.
        is_ours = program.parent is None and self._own == (path, _command_line(process))
        if not is_ours:
            script = _script(process, path)
            if (path, script) != (program.path, program.script) and path:
                program = self._started(program, path, script)
        root = _link(f"/proc/{process}/root")
        state = Process(group, program, b"" if root == b"/" else root)
        self._known[process] = state
        return state

    def _program_of(self, process: int) -> RunningProgram:
        if process in {0, self._init}:
            return self._start
        known = self._known.get(process) or self._before.get(process)
        if known is None and os.path.exists(f"/proc/{process}"):
            known = self.meet(process)  # it has made no call, as a static program may
        return self._start if known is None else known.program

    def _started(self, parent: RunningProgram, path: bytes, script: bytes) -> RunningProgram:
        if parent.depth >= _DEEPEST and parent.parent is not None:
            parent = parent.parent
        key = (parent.number, path, script)
        program = self._made.get(key)
        if program is None:
            if len(self._made) >= _MOST_PROGRAMS:
                return self.others()
            program = self._made[key] = RunningProgram(len(self._made) + 1, path, script, parent)
        if parent is self._start:  # its own execution, which nobody else counts
            table = program.tables[EXEC]
            table[path] = table.get(path, 0) + 1
            self._grow(path)
        return program

    def others(self) -> RunningProgram:
        """Return the program that stands for all that are too many."""
        if self._others is None:
            self._others = RunningProgram(_MOST_PROGRAMS + 1, b"", b"", self._start)
            self.gave_up = True
        return self._others

    def _forget_ended(self) -> None:
        for table in (self._known, self._before):
            for process in [each for each in table if not os.path.exists(f"/proc/{each}")]:
                del table[process]


def _link(path: str) -> bytes:
    try:
        return os.readlink(os.fsencode(path))
    except OSError:  # it has ended, or may not be looked at
        return b""


def _ids(process: int) -> tuple[int, int]:
    """Return the thread group's id and the parent's process id, 0 if the process has ended."""
    group = parent = 0
    try:
        with open(f"/proc/{process}/status", "rb") as status:
            for line in status:
                if line.startswith(b"Tgid:"):
                    group = int(line[5:])
                elif line.startswith(b"PPid:"):
                    parent = int(line[5:])
                    break
    except OSError:
        return process, 0
    return group, parent


def _script(process: int, path: bytes) -> bytes:
    """Return the script that an interpreter was given; b"" for any other program."""
    if not _INTERPRETERS.fullmatch(path.rpartition(b"/")[2]):
        return b""
    for word in _command_line(process).split(b"\0")[1:]:
        if word in (b"-c", b"-e", b"-m"):
            return b""
        if word and not word.startswith(b"-"):
            return word
    return b""


def _command_line(process: int) -> bytes:
    """Return the words of a process's command line, each with a NUL, as far as they are read."""
    try:
        with open(f"/proc/{process}/cmdline", "rb", buffering=0) as file:
            return file.read(_MOST_WORDS)
    except OSError:
        return b""
