"""Wait for a child process, relay the caller's signals to it, and stop when it stops.

This is like a shell's job control: signals of a terminal's keys and of the end of a session go to the
command's whole process group, other signals only to the command. See signal(7), termios(3), credentials(7).
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

# Signals that a shell sends to all processes of a job: keys, terminal size, hangup, and job control.
_FOR_GROUP = frozenset(
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
RELAYED = _FOR_GROUP | {signal.SIGUSR1, signal.SIGUSR2}
_STOP_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_PIPE_SIZE = 1 << 16  # bytes: the capacity of a pipe
# Within so many seconds a second SIGINT is the same key press: a parent that received it may send it too.
_SAME_KEY_SECONDS = 0.2


class Relay:
    """Relays signals to a child, in a process's main thread.

    With `to_group`, the child leads a process group, which gets the signals of a shell's job. With
    `insistent`, a second SIGINT kills the child and sets `killed`. `active` is true while the handlers are
    installed.
    """

    def __init__(self, child: int, *, to_group: bool, insistent: bool) -> None:
        self._child = child
        self._to_group = to_group
        self._insistent = insistent
        self._interrupted: float | None = None
        self.active = False
        self.killed = False

    def handle(self, number: int, _frame: object = None) -> None:
        """Handle a signal; this is a handler for signal.signal()."""
        if number == signal.SIGINT and self._insistent and self._is_second_interrupt():
            self.killed = True
            number = signal.SIGKILL
        self.send(number)

    def stop(self, number: int, *, group: bool = False) -> None:
        """Stop this process (or its `group`) by the signal that stopped the child, until it is continued.

        Returns at once if no process could continue it: in an orphaned process group, the kernel drops the
        stop signals of a terminal. It does not drop SIGSTOP, so SIGTSTP is sent instead. Does nothing in a
        thread other than the main one.
        """
        if not self.active or number not in _STOP_SIGNALS:
            return
        number = signal.SIGTSTP if number == signal.SIGSTOP else number
        ours = signal.getsignal(number) == self.handle
        if ours:
            signal.signal(number, signal.SIG_DFL)
        os.kill(0 if group else os.getpid(), number)
        if ours:
            signal.signal(number, self.handle)

    def resume(self) -> None:
        """Continue the child after `stop`."""
        if self.active:
            self.send(signal.SIGCONT)

    def _is_second_interrupt(self) -> bool:
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
        return now - self._interrupted > _SAME_KEY_SECONDS

    def send(self, number: int) -> None:
        """Send a signal to the child, or to its process group if it is one for all of a job."""
        send = os.killpg if self._to_group and number in _FOR_GROUP else os.kill
        with contextlib.suppress(ProcessLookupError):
            send(self._child, number)


@contextlib.contextmanager
def relaying(
    child: int, mask: set[int], *, to_group: bool = False, insistent: bool = False
) -> Iterator[Relay]:
    """Relay the `RELAYED` signals to `child` in a `with` block. The arguments are those of `Relay`.

    As `relayed_by` does.
    """
    relay = Relay(child, to_group=to_group, insistent=insistent)
    with relayed_by(relay, mask):
        yield relay


@contextlib.contextmanager
def relayed_by(relay: Relay, mask: set[int]) -> Iterator[None]:
    """Relay the `RELAYED` signals in a `with` block.

    The caller has blocked them. They are unblocked (`mask` is restored) only while the handlers are in place,
    so that none is lost. Ignored signals stay ignored, as nohup(1) and a shell's `&` need it: the command
    ignores them too. Python handles signals only in its main thread, so in another thread this does nothing,
    and the signals act on this process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in RELAYED}
    # None: the handler is not Python's, and could not be restored.
    before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, relay.handle)
    relay.active = True
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
        relay.active = False
        for number, handler in before.items():
            signal.signal(number, handler)


def reset_handlers() -> None:
    """In a child: reset all signals that have a handler of the caller's.

    Otherwise processes of the jail could run it: they can send to PID 1 exactly the signals that have a
    handler; pid_namespaces(7).
    """
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def wait(child: int, *, reap_all: bool = False, stopped: Callable[[int], None] | None = None) -> int:
    """Wait for `child` to end, and return its exit status, or 128 + n if signal n ended it.

    With `reap_all`, reap every other child that ends, as PID 1 must. `stopped` is called with the number of
    the signal each time the child is stopped.
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
    """Read from `stops` the signal that last stopped the command; return 0 at the end of the pipe.

    If the command stopped several times while this process was stopped, only the last stop counts.
    """
    return (os.read(stops, _PIPE_SIZE) or b"\0")[-1]


def follow_stops(child: int, stops: int, relay: Relay) -> None:
    """Stop this process whenever the command stops, as read from `stops`, until that or `child` ends."""
    import select

    poll = select.poll()
    poll.register(stops, select.POLLIN)
    ended = -1
    with contextlib.suppress(OSError):  # a container's filter may forbid it; the end of `stops` then suffices
        ended = sc.pidfd_open(child)
        poll.register(ended, select.POLLIN)
    try:
        while stops in dict(poll.poll()) and (number := last_stop(stops)):
            relay.stop(number)
            relay.resume()
    finally:
        if ended >= 0:
            os.close(ended)
