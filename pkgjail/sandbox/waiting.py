"""Wait for a child process while passing the caller's signals on to it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

RELAYED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCONT,
    }
)


@contextlib.contextmanager
def relaying(child: int, mask: set[int]) -> Iterator[None]:
    """Relay `RELAYED` signals to `child` meanwhile.

    The caller has them blocked; they are let through (`mask` restored) only while the handlers are
    in place, so that none is lost. Python handles signals in its main thread alone: called from
    another thread this does nothing, and the signals stay with the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def relay(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    before = {number: signal.signal(number, relay) for number in RELAYED}
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
        for number, handler in before.items():
            signal.signal(number, handler)


def forget_handlers() -> None:
    """In a child: none of the caller's handlers is run, at whoever's signal.

    Process 1 gets from within its PID namespace just the signals that have a handler; pid_namespaces(7).
    """
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def wait(child: int, *, reap_all: bool = False) -> int:
    """Wait for `child` to end; returns its exit status, or 128 + n when signal n ended it.

    With `reap_all` every child that ends meanwhile is reaped, as PID 1 must.
    """
    while True:
        ended, status = os.waitpid(-1 if reap_all else child, 0)
        if ended == child:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
