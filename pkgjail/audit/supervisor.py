"""Receive the calls of a jail's processes, count the paths that they ask for, and let the kernel go on.

Every call with a path waits for this, so this imports the standard library and the sandbox alone, and does
no more than it must before the answer: read the path, and the directory that a relative one starts at.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pkgjail.audit.answers import Answers
from pkgjail.audit.processes import Processes
from pkgjail.audit.tally import Tally
from pkgjail.sandbox.notices import AT_FDCWD, GO_ON, absolute, error_answer, read_path, serve
from pkgjail.sandbox.path_calls import ARCHITECTURES, CHANGE, EXEC, LIST, OPEN, SET_UP_RING, shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pkgjail.sandbox.notices import Answer
    from pkgjail.sandbox.observation import Observed

# The process was killed meanwhile, or the kernel finds no path at the address either, or too long a one.
_NO_LOOK_UP = (errno.ESRCH, errno.ENOENT, errno.EFAULT, errno.ENAMETOOLONG)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Supervisor:
    """Answers the calls of one jail. `run` returns when the jail has ended."""

    def __init__(self, jail: Observed, processes: Processes, tally: Tally) -> None:
        self._jail = jail
        self._processes = processes
        self._tally = tally
        self._shapes = {architecture: shapes(architecture) for architecture in ARCHITECTURES}

    def run(self) -> None:
        """Receive and answer calls until the jail has ended."""
        serve(self._jail.listener, self._answer, self._count, self._jail.has_ended)

    def _answer(
        self, _number: int, process: int, architecture: int, call: int, arguments: Sequence[int]
    ) -> Answer:
        """Return the answer of a call, and note what it asks for until the answer was sent."""
        self._seen: Iterable[tuple[dict[bytes, int], bytes]] = ()
        if process == self._jail.init:
            return GO_ON
        self._seen, fault = self._see(process, architecture, call, arguments)
        return error_answer(fault) if fault else GO_ON

    def _count(self) -> None:
        for table, path in self._seen:
            if path in table:
                table[path] += 1
            else:
                table[path] = 1
                self._tally.grow(path)

    def _see(
        self, process: int, architecture: int, call: int, arguments: Sequence[int]
    ) -> tuple[list[tuple[dict[bytes, int], bytes]], int]:
        """Return each path that a call asks for, with the table to count it in, and the error to answer."""
        shape = self._shapes[architecture].get(call)
        if shape is None or shape[0] == CHANGE:  # chown(2) has ids, too
            fault = self._fault(process, architecture, call, arguments)
            if fault or shape is None:
                return [], fault
        kind, places, flags = shape
        if kind == OPEN and flags >= 0:
            kind = _kind_of_open(arguments[flags])
        state = self._processes.get(process) or self._processes.meet(process)
        if kind == EXEC:
            self._processes.expect_change(process)
        if state.is_ours:
            return [], 0
        table = state.tables[kind]
        seen = []
        for directory, position in places:
            address = arguments[position]
            if not address:
                continue  # utimensat(2) of an open file
            try:
                path = read_path(process, address)
                if path[:1] != b"/" or state.root:
                    start = arguments[directory] if directory >= 0 else AT_FDCWD
                    path = absolute(process, start, path, state.root)
            except OSError as error:
                if error.errno not in _NO_LOOK_UP:
                    self._tally.unread += 1
                continue
            seen.append((table, path))
        return seen, 0

    def _fault(self, process: int, architecture: int, call: int, arguments: Sequence[int]) -> int:
        """Return the error of a call that is refused, 0 for any other."""
        if call == SET_UP_RING:
            self._tally.rings += 1
            return errno.ENOSYS
        is_refused = self._jail.ids.is_refused(architecture, call, arguments, process)
        return errno.EPERM if is_refused else 0


def _kind_of_open(flags: int) -> int:
    if flags & _WRITES:
        return CHANGE
    return LIST if flags & os.O_DIRECTORY else OPEN


def observe(jail: Observed, root: bytes, binds: Sequence[bytes], libraries: Mapping[bytes, bytes]) -> bytes:
    """See the calls of a jail until it has ended, and return what `Tally.result` makes of them.

    `root` is the source's root directory; the further arguments are those of `pkgjail.audit.answers.Answers`.
    """
    source = os.open(root, os.O_PATH | os.O_DIRECTORY)
    tally = Tally(Answers(jail.root, source, root, binds, libraries))
    tally.processes = Processes(jail, tally.grow)
    Supervisor(jail, tally.processes, tally).run()
    return tally.result()
