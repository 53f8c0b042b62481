"""Calls in processes of their own, which end with this one, and whose output goes to a file."""

from __future__ import annotations

import os
import pickle
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from pkgjail.core.errors import PkgjailError
from pkgjail.core.parallel import die_with, without_fork_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn

Result = TypeVar("Result")

_BLOCK = 1 << 20


class Child(Generic[Result]):
    """A call in another process. It has no standard input, and its standard output and error go to a file.

    `doing` names the work in messages ("building"). `kill` must be called at the end, also after `result`.
    """

    def __init__(self, work: Callable[[], Result], output: bytes, doing: str) -> None:
        self._doing = doing
        self._answer = bytearray()
        parent = os.getpid()
        self._reading, writing = os.pipe()
        with without_fork_warning():
            self._pid = os.fork()
        if not self._pid:
            _run(work, output, writing, parent)
        os.close(writing)

    def fileno(self) -> int:
        """Return the descriptor that can be read when the call is at its end, or has a part of its result."""
        return self._reading

    def has_ended(self) -> bool:
        """Read what there is of the result; return whether it is complete. Waits for a part."""
        block = os.read(self._reading, _BLOCK)
        self._answer += block
        return not block

    def result(self) -> Result:
        """Wait for the end. Return the result, or raise what the call raised.

        Raises:
            PkgjailError: the process was killed.

        """
        while not self.has_ended():
            pass
        if not self._answer:
            raise PkgjailError(
                f"cannot finish {self._doing}: its process was killed, perhaps for want of memory; try again"
            )
        is_error, found = pickle.loads(self._answer)  # noqa: S301 - this process's own child wrote it
        if is_error:
            raise found
        result: Result = found
        return result

    def kill(self) -> None:
        """End the process, if it has not ended, with all that it started in a jail."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._reading)
            self._pid = 0


def first_ended(children: Collection[Child[Result]]) -> Child[Result]:
    """Wait until one of the calls is at its end, and return it."""
    waiting = {child.fileno(): child for child in children}
    with select.epoll() as poll:
        for descriptor in waiting:
            poll.register(descriptor, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if waiting[descriptor].has_ended():
                    return waiting[descriptor]


def _run(work: Callable[[], object], output: bytes, writing: int, parent: int) -> NoReturn:
    """Do the work in the new process, and send its result. It never returns."""
    try:
        die_with(parent)
        nothing = os.open(os.devnull, os.O_RDONLY)
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor, number in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(descriptor, number)
        try:
            answer = pickle.dumps((False, work()))
        except BaseException as error:  # noqa: BLE001 - it is raised in the parent
            answer = pickle.dumps((True, _portable(error)))
        view = memoryview(answer)
        while view:
            view = view[os.write(writing, view) :]
    finally:
        os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """Return an error as it can be sent; another with the same text if it cannot be made again."""
    try:
        copy: BaseException = pickle.loads(pickle.dumps(error))  # noqa: S301 - just dumped
    except Exception:  # noqa: BLE001 - whatever its class does when it is made
        copy = PkgjailError("")
    return copy if str(copy) == str(error) else PkgjailError(str(error) or repr(error))
