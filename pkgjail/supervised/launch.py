"""The processes of a supervised run.

    caller ── forks ──> supervisor      answers the calls of all that are below
                           └──> monitor          leads a session; relays signals, reaps, reports stops
                                   └──> command  restricts itself, and is executed

The caller relays signals to the monitor. Each process dies with its parent (PR_SET_PDEATHSIG), except that
the monitor first kills all that is below it. Supervisor and monitor are subreapers (prctl(2)): if the monitor
is killed, its descendants become the supervisor's, which kills them. So nothing is left if any one of these
processes is killed at any moment.
"""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import marshal
import mmap
import os
import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.sandbox import landlock as ll
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox import terminal as terminals
from pkgjail.sandbox.capabilities import give_up_capabilities
from pkgjail.sandbox.command import execute_in
from pkgjail.sandbox.job import SETUP_FAILED, SetupError, close_descriptors, make_pipe, run_child
from pkgjail.sandbox.seccomp import install_supervised
from pkgjail.sandbox.signals import RELAYED, Relay, follow_stops, relaying, reset_handlers, wait
from pkgjail.supervised.processes import end_descendants, is_descendant, thread_group
from pkgjail.supervised.rules import make_ruleset
from pkgjail.supervised.supervisor import Supervisor
from pkgjail.supervised.view import View

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pkgjail.supervised.calls import Calls
    from pkgjail.supervised.names import Names

_PR_SET_CHILD_SUBREAPER = 36
_REPORT_SIZE = 1 << 20
_PROCESS = struct.Struct("=i")
# The monitor's parent has died. No command can send it: it may signal no process outside.
_DEATH = signal.SIGALRM


class Words(NamedTuple):
    """What is executed: the command, its directory, all of its variables, and whether it gets a terminal."""

    argv: tuple[str, ...]
    cwd: bytes
    environment: tuple[tuple[str, str], ...]
    terminal: bool = False


class _Run:
    """The data of one run, and the channels between its processes."""

    def __init__(self, words: Words, names: Callable[[], Names], calls: Calls, *, network: bool) -> None:
        self.argv, self.cwd, self.environment, self.terminal = words
        self.names = names
        self.calls = calls
        self.network = network
        self.enter_foreground = terminals.enter_foreground
        self.report = mmap.mmap(-1, _REPORT_SIZE)
        self.stops, self.stops_write = make_pipe()
        self.told, self.told_write = make_pipe()
        self.ours, self.theirs = socket.socketpair()
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}

    def close(self) -> None:
        self.report.close()
        for descriptor in (self.stops, self.told):
            os.close(descriptor)
        for end in (self.ours, self.theirs):
            end.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def raise_failure(self) -> None:
        if self.report[0]:
            raise SetupError(*marshal.loads(self.report))  # noqa: S302 - written by `run_child`


def run_supervised(words: Words, names: Callable[[], Names], calls: Calls, *, network: bool) -> int:
    """Run a command under supervision, and wait for its end.

    Args:
        words: the command.
        names: makes what it sees; called in the process of the supervisor, whose descriptors binds have.
        calls: the calls of this machine.
        network: whether it shares the host's network.

    Returns:
        Its exit status, or 128 + n if signal n ended it.

    Raises:
        SetupError: it could not be started.
        KeyboardInterrupt: a second SIGINT came, and it was killed.

    """
    run = _Run(words, names, calls, network=network)
    try:
        caller = os.getpid()
        supervisor = os.fork()
        if supervisor == 0:
            run_child(run.report, "build", lambda: _supervise(run, caller))
        return _follow(run, supervisor)
    finally:
        run.close()


def _follow(run: _Run, supervisor: int) -> int:
    """In the caller: relay signals, stops and the terminal until the end."""
    os.close(run.stops_write)
    os.close(run.told_write)
    run.theirs.close()
    told = os.read(run.told, _PROCESS.size)
    if len(told) < _PROCESS.size:  # it could not be set up
        wait(supervisor)
        run.raise_failure()
        raise SetupError("build", 0, b"the supervisor", [])
    monitor = _PROCESS.unpack(told)[0]
    with relaying(monitor, run.mask, insistent=True) as relay:
        try:
            if run.terminal:
                terminals.relay(run.ours, run.stops, relay)
            if relay.active:
                follow_stops(supervisor, run.stops, relay)
        finally:
            status = wait(supervisor)
    if relay.killed:
        raise KeyboardInterrupt("interrupted twice: killed the command")
    run.raise_failure()
    return status


# --- the supervisor -----------------------------------------------------------------------------------


def _supervise(run: _Run, caller: int) -> int:
    """In the supervisor: start the monitor, and answer calls until all processes have ended."""
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != caller:
        return SETUP_FAILED
    os.setsid()  # keys of the terminal are not for it
    reset_handlers()
    ours, theirs = socket.socketpair()
    close_descriptors(run.stops_write, run.told_write, run.theirs.fileno(), ours.fileno(), theirs.fileno())
    _give_up_privileges()
    sc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    names = run.names()
    ruleset = make_ruleset(names)
    own = os.getpid()
    monitor = os.fork()
    if monitor == 0:
        ours.close()
        run_child(run.report, "build", lambda: _monitor(run, own, ruleset, theirs))
    os.close(ruleset)
    theirs.close()
    run.theirs.close()
    os.close(run.stops_write)
    os.write(run.told_write, _PROCESS.pack(monitor))
    os.close(run.told_write)
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    _, received, _, _ = socket.recv_fds(ours, 1, 1)
    if not received:  # it has reported why
        return wait(monitor)
    end = _End(monitor)
    view = View(names, lambda process: is_descendant(process, monitor), thread_group)
    names.note_given()
    supervisor = Supervisor(received[0], view, run.calls, lambda: False)
    end.start()
    ours.send(b".")
    ours.close()
    gc.disable()  # nothing that is made here refers to itself
    os.umask(0o077)
    try:
        supervisor.run()
    finally:
        os.close(received[0])  # then calls answer ENOSYS, and wait for nobody
    return end.wait()


class _End(threading.Thread):
    """Waits for the monitor, and then kills what it left, which it does itself unless it was killed."""

    def __init__(self, monitor: int) -> None:
        super().__init__(daemon=True)
        self._monitor = monitor
        self._status = SETUP_FAILED

    def run(self) -> None:
        """Wait."""
        signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)
        self._status = wait(self._monitor)
        end_descendants()

    def wait(self) -> int:
        """Return the exit status."""
        self.join()
        return self._status


def _give_up_privileges() -> None:
    """Give up all capabilities, as the command has none: the supervisor opens files with its rights."""
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # a container's root may lack CAP_SETPCAP
            give_up_capabilities()
    sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.capset()
    sc.prctl(sc.PR_SET_DUMPABLE, 1)  # for now: the supervisor reads the memory of what is forked


# --- the monitor --------------------------------------------------------------------------------------


def _monitor(run: _Run, supervisor: int, ruleset: int, channel: socket.socket) -> int:
    """In the monitor: start the command, follow it, and end with its status when all has ended."""
    waited = {*RELAYED, signal.SIGCHLD, _DEATH}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    sc.prctl(sc.PR_SET_PDEATHSIG, _DEATH)
    if os.getppid() != supervisor:
        return SETUP_FAILED
    sc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()
    terminal = terminals.open_terminal(run.theirs) if run.terminal else -1
    command = os.fork()
    if command == 0:
        run_child(run.report, "execute", lambda: _become_command(run, terminal, ruleset, channel))
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    close_descriptors(run.stops_write)
    os.set_blocking(run.stops_write, False)  # a stopped caller does not read
    status = _wait(run, command, waited)
    end_descendants()
    return status


def _wait(run: _Run, command: int, waited: set[signal.Signals]) -> int:
    """Relay signals to the command until it has ended, or the parent has; return its status."""
    relay = Relay(command, to_group=True, insistent=False)
    while True:
        number = signal.sigwaitinfo(waited).si_signo
        if number == _DEATH:
            return SETUP_FAILED
        if number != signal.SIGCHLD:
            relay.send(number)
            continue
        status = _reap(run, command)
        if status is not None:
            return status


def _reap(run: _Run, command: int) -> int | None:
    """Reap all that have ended; return the command's status if it is among them."""
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return SETUP_FAILED
        if not ended:
            return None
        if ended != command:
            continue
        if os.WIFSTOPPED(status):
            with contextlib.suppress(OSError):
                os.write(run.stops_write, bytes([os.WSTOPSIG(status)]))
            continue
        return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


# --- the command --------------------------------------------------------------------------------------


def _become_command(run: _Run, terminal: int, ruleset: int, channel: socket.socket) -> NoReturn:
    """In the command's process: restrict it, hand the listener over, and execute."""
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, _DEATH} - run.mask)
    if terminal >= 0:
        run.enter_foreground(terminal)
    else:
        os.setpgid(0, 0)
    close_descriptors(ruleset, channel.fileno())
    sc.join_new_session_keyring()
    try:
        ll.landlock_restrict_self(ruleset)
        listener = install_supervised(run.calls.filter, network=run.network)
    except OSError as error:
        raise SetupError("build", error.errno or errno.EINVAL, b"landlock or seccomp", []) from None
    # No call that the filter asks about may come before the supervisor has the listener. `socket.send_fds` is
    # Python, and a tracer (of coverage) looks at the file of code that it sees first: it would wait for ever.
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))
    channel.sendmsg([b"."], [rights])
    if not channel.recv(1):
        raise SetupError("build", 0, b"the supervisor has ended", [])
    close_descriptors()
    execute_in(run, run.cwd)
