"""Wait for a child process, pass the caller's signals on to it, and stop when it stops.

As a shell does with a job: what the keys of a terminal send, and what ends a session, goes to the whole
process group of the command; the rest to the command alone. See signal(7), termios(3), credentials(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from pkgjail.sandbox import syscalls as sc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What a shell's job gets as one: keys, the size of the terminal, its end, and job control.
_TO_GROUP = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTSTP,
        signal.SIGCONT,
        signal.SIGWINCH,
    }
)
RELAYED = _TO_GROUP | {signal.SIGUSR1, signal.SIGUSR2}
_STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_PIPE = 1 << 16  # bytes that wait in one at most
# Seconds in which a second SIGINT is the same key: a parent that got it from the terminal may send it too.
_SAME_KEY = 0.2


class Relay:
    """Passes signals on to a child, in a process's main thread.

    `to_group`: the child leads a process group, which gets what a shell's job would. `insistent`: at
    the second SIGINT the child is killed, and `killed` is true from then on.
    """

    def __init__(self, child: int, *, to_group: bool, insistent: bool) -> None:
        self._child = child
        self._to_group = to_group
        self._insistent = insistent
        self._interrupted: float | None = None
        self.active = False
        self.killed = False

    def handle(self, number: int, _frame: object = None) -> None:
        """A handler of signals, as signal.signal() takes it."""
        if number == signal.SIGINT and self._insistent and self._is_second():
            self.killed = True
            number = signal.SIGKILL
        self._send(number)

    def stop(self, number: int, *, group: bool = False) -> None:
        """Stop this process (or its `group`) by signal `number`, as the child was, until it is continued.

        Returns at once where nobody could continue it: in an orphaned process group the kernel drops
        what a terminal sends, but not SIGSTOP, for which SIGTSTP stands. Does nothing in another than the
        main thread.
        """
        if not self.active or number not in _STOPS:
            return
        number = signal.SIGTSTP if number == signal.SIGSTOP else number
        ours = signal.getsignal(number) == self.handle
        if ours:
            signal.signal(number, signal.SIG_DFL)
        os.kill(0 if group else os.getpid(), number)
        if ours:
            signal.signal(number, self.handle)

    def go_on(self) -> None:
        """Continue the child after `stop`."""
        if self.active:
            self._send(signal.SIGCONT)

    def _is_second(self) -> bool:
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        return now - self._interrupted > _SAME_KEY

    def _send(self, number: int) -> None:
        send = os.killpg if self._to_group and number in _TO_GROUP else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(self._child, number)


@contextlib.contextmanager
def relaying(
    child: int, mask: set[int], *, to_group: bool = False, insistent: bool = False
) -> Iterator[Relay]:
    """Relay `RELAYED` signals to `child` meanwhile; the arguments are those of `Relay`.

    The caller has them blocked; they are let through (`mask` restored) only while the handlers are
    in place, so that none is lost. Those that are ignored stay so, as nohup(1) and a shell's `&` have it:
    the command ignores them too. Python handles signals in its main thread alone: called from
    another thread this does nothing, and the signals stay with the process.
    """
    relay = Relay(child, to_group=to_group, insistent=insistent)
    if threading.current_thread() is not threading.main_thread():
        yield relay
        return
    found = {number: signal.getsignal(number) for number in RELAYED}
    # None: it has a handler that is not Python's, which could not be put back.
    before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, relay.handle)
    relay.active = True
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield relay
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
        relay.active = False
        for number, handler in before.items():
            signal.signal(number, handler)


def reset_handlers() -> None:
    """In a child: none of the caller's handlers is run, at whoever's signal.

    Process 1 gets from within its PID namespace just the signals that have a handler; pid_namespaces(7).
    """
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def wait(child: int, *, reap_all: bool = False, stopped: Callable[[int], None] | None = None) -> int:
    """Wait for `child` to end; returns its exit status, or 128 + n when signal n ended it.

    With `reap_all` every child that ends meanwhile is reaped, as PID 1 must. `stopped` gets
    the number of the signal by which the child was stopped, each time.
    """
    flags = 0 if stopped is None else os.WUNTRACED
    while True:
        ended, status = os.waitpid(-1 if reap_all else child, flags)
        if ended != child:
            continue
        if stopped is not None and os.WIFSTOPPED(status):
            stopped(os.WSTOPSIG(status))
            continue
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def last_stop(stops: int) -> int:
    """The signal by which the command was last stopped, read from `stops`; 0 where there will be none.

    One that stops and goes on again and again while this process is stopped counts as stopped once.
    """
    return (os.read(stops, _PIPE) or b"\0")[-1]


def follow_stops(child: int, stops: int, relay: Relay) -> None:
    """Stop whenever the command does, which is read from `stops`, until that or `child` ends."""
    import select

    poll = select.poll()
    poll.register(stops, select.POLLIN)
    ended = -1
    with contextlib.suppress(OSError):  # a container's filter may refuse it; then the end of `stops` must do
        ended = sc.pidfd_open(child)
        poll.register(ended, select.POLLIN)
    try:
        while stops in dict(poll.poll()) and (number := last_stop(stops)):
            relay.stop(number)
            relay.go_on()
    finally:
        if ended >= 0:
            os.close(ended)
