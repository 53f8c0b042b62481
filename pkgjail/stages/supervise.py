"""Run the process of an engine as a jail's command is run: with the caller's signals, stops and terminal.

    caller ── forks ──> monitor      in a session of its own; reports when the engine is stopped
                           └──> the engine's process, which leads a process group

The caller relays signals to the monitor, and that to the engine's process group. Each dies with the one
before it (PR_SET_PDEATHSIG); what an engine leaves then is its own affair.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError, os_error_text
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox import terminal as terminals
from pkgjail.sandbox.job import close_descriptors, make_pipe
from pkgjail.sandbox.signals import RELAYED, follow_stops, relaying, reset_handlers, wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

FAILED = 125
"""The status if the program cannot be executed."""

# Python ignores these signals; the program must not.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def supervise(
    words: Sequence[str | bytes],
    environment: Mapping[str, str],
    *,
    terminal: bool = False,
    inherited: Sequence[int] = (),
) -> int:
    """Run a program and wait for its end.

    Args:
        words: the program, an absolute path, and its arguments.
        environment: all of its variables.
        terminal: whether it gets a terminal of its own, which is relayed to the caller's.
        inherited: descriptors above 2 that it inherits.

    Returns:
        Its exit status, or 128 + n if signal n ended it.

    Raises:
        JailError: no process can be made.
        KeyboardInterrupt: a second SIGINT came, and it was killed.

    """
    stops, stops_write = make_pipe()
    ours, theirs = socket.socketpair()
    mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
    try:
        try:
            child = os.fork()
        except OSError as error:
            raise JailError(f"cannot start {os.fsdecode(words[0])}: {os_error_text(error)}") from error
        if child == 0:
            _monitor(words, environment, mask, stops_write, theirs if terminal else None, inherited)
        os.close(stops_write)
        stops_write = -1
        theirs.close()
        with relaying(child, mask, insistent=True) as relay:
            try:
                if terminal:
                    terminals.relay(ours, stops, relay)
                if relay.active:
                    follow_stops(child, stops, relay)
            finally:
                status = wait(child)
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the command")
        return status
    finally:
        if stops_write >= 0:
            os.close(stops_write)
        os.close(stops)
        ours.close()
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _monitor(  # noqa: PLR0913, PLR0917 - what a fork has
    words: Sequence[str | bytes],
    environment: Mapping[str, str],
    mask: set[int],
    stops: int,
    channel: socket.socket | None,
    inherited: Sequence[int],
) -> NoReturn:
    """In the monitor: start the program, follow it, and end with its status."""
    status = FAILED
    try:
        parent = os.getppid()
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.setsid()
            reset_handlers()
            terminal = -1 if channel is None else terminals.open_terminal(channel)
            program = os.fork()
            if program == 0:
                _execute(words, environment, mask, terminal, inherited)
            close_descriptors(stops)
            os.set_blocking(stops, False)  # a stopped caller does not read

            def stopped(number: int) -> None:
                os.write(stops, bytes([number]))

            with relaying(program, mask, to_group=True):
                status = wait(program, stopped=stopped)
    finally:
        os._exit(status)


def _execute(
    words: Sequence[str | bytes],
    environment: Mapping[str, str],
    mask: set[int],
    terminal: int,
    inherited: Sequence[int],
) -> NoReturn:
    """In a child of the monitor: become the program."""
    try:
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if terminal < 0:
            os.setpgid(0, 0)
        else:
            terminals.enter_foreground(terminal)
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        close_descriptors(*inherited)
        for ignored in _IGNORED_BY_PYTHON:
            signal.signal(ignored, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(words[0], list(words), dict(environment))
    finally:
        os._exit(FAILED)
