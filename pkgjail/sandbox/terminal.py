"""A terminal of the jail's own, relayed to the caller's: for shells and other interactive work.

The command runs in a new session, so the caller's terminal cannot be its controlling terminal. It gets a
terminal of the jail's own devpts instead, and the caller copies between the two, as ssh(1) and container
runtimes do. If the command is stopped, the caller stops too, like a job of the shell that started it. See
pty(7), tty_ioctl(4).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import tty
from typing import TYPE_CHECKING

from pkgjail.sandbox.signals import last_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Union

    from pkgjail.sandbox.signals import Relay

    # Whether the command gets a terminal, or the function that takes the part of `relay`.
    Terminal = Union[bool, Callable[[socket.socket, int, Relay], None]]

_CHUNK = 65536
_MOST_CHUNKS = 100  # a read from a terminal returns at most 4,096 bytes
_DRAIN_MS = 50  # until all processes of an ended jail are gone


def open_terminal(channel: socket.socket) -> int:
    """In init: open a terminal, make it the controlling one, and send its other end to the caller.

    It gets the size of the caller's terminal, if that is on descriptor 0, before any program runs on it.
    """
    leader, follower = os.openpty()
    if os.isatty(0):
        _copy_size(leader)
    socket.send_fds(channel, [b"t"], [leader])
    channel.close()
    os.close(leader)
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    return follower


def enter_foreground(terminal: int) -> None:
    """In a child of init: make a process group and the foreground process group of the terminal."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])  # the kernel sends it to a background process
    os.tcsetpgrp(terminal, os.getpid())
    for standard in (0, 1, 2):
        os.dup2(terminal, standard)
    if terminal > 2:  # noqa: PLR2004 - the standard descriptors
        os.close(terminal)


def relay(channel: socket.socket, stops: int, signals: Relay) -> None:
    """In the caller: copy between descriptors 0 and 1 and the jail's terminal until that hangs up.

    When `stops` reports that the command was stopped, restore the caller's terminal and stop too. Return at
    once if the jail ends before it sends its terminal.
    """
    message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        return
    leader = descriptors[0]
    callers = CallersTerminal(lambda: _copy_size(leader))
    try:
        with callers.raw(), callers.same_size(watched=signals.active):
            _copy(leader, stops, lambda number: callers.stop(number, signals))
    finally:
        os.close(leader)


class CallersTerminal:
    """The caller's terminal on descriptor 0, if that is one, while another is relayed to it.

    `resize` is called to give the other one its size.
    """

    def __init__(self, resize: Callable[[], object]) -> None:
        self._give_size = resize
        self._before: list[Any] | None = None
        self._is_terminal = os.isatty(0)

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Pass every key to the jail's terminal, which does the line editing and sends the signals."""
        self._set_raw()
        try:
            yield
        finally:
            self._restore()

    @contextlib.contextmanager
    def same_size(self, *, watched: bool) -> Iterator[None]:
        """Give the jail's terminal the size of the caller's, now and, with `watched`, after each change."""
        if self._is_terminal:
            self._resize()
        if not (self._is_terminal and watched):
            yield
            return
        before = signal.signal(signal.SIGWINCH, self._resize)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)

    def stop(self, number: int, signals: Relay) -> None:
        """Stop as the command was stopped, so that the caller's shell gets the terminal; later resume both.

        As with keys, stop the whole process group, but only if it is in the foreground of a terminal. A
        command cannot stop what runs without one.
        """
        if not signals.active:
            return
        group = self._is_foreground()
        if group:
            self._restore()
        signals.stop(number, group=group)
        if group:
            self._set_raw()  # waits until in the foreground: SIGTTOU
            self._resize()
        signals.resume()

    def _is_foreground(self) -> bool:
        try:
            return self._is_terminal and os.tcgetpgrp(0) == os.getpgrp()
        except OSError:  # not the controlling terminal
            return False

    def _set_raw(self) -> None:
        if self._is_terminal:
            self._before = termios.tcgetattr(0)
            _retry_after_signal(lambda: tty.setraw(0, termios.TCSADRAIN))  # what the user typed ahead stays

    def _restore(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            _retry_after_signal(lambda: termios.tcsetattr(0, termios.TCSADRAIN, before))

    def _resize(self, _number: int = 0, _frame: object = None) -> None:
        self._give_size()


def _copy_size(terminal: int) -> None:
    """Give a terminal the size of the one on descriptor 0. A change sends SIGWINCH to the programs on it."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *callers_size(), 0, 0))


def callers_size() -> tuple[int, int]:
    """Return the rows and columns of the terminal on descriptor 0."""
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    rows, columns, _, _ = struct.unpack("HHHH", size)
    return rows, columns


def _retry_after_signal(change: Callable[[], object]) -> None:
    """Change the terminal, and retry after a signal: a background process that does this is stopped.

    Nothing is changed if no process could continue it (EIO).
    """
    while True:
        try:
            change()
        except termios.error as error:
            if error.args[0] == errno.EINTR:
                continue
            if error.args[0] != errno.EIO:
                raise
        return


def _copy(leader: int, stops: int, stop: Callable[[int], None]) -> None:
    """Copy both ways until the jail's end hangs up, or the jail has ended.

    A command can pass its end to a process outside, over a socket. Typed input waits here while the jail does
    not read it: a blocking write would never return if no process is left to read.
    """
    os.set_blocking(leader, False)
    typed, is_open = b"", True
    while True:
        sources = [leader, stops, *([0] if is_open and not typed else [])]
        readable, writable = _ready(sources, [leader] if typed else [])
        if leader in readable:
            if not (shown := _read(leader)):
                return
            _write_all(1, shown)
        if stops in readable:
            if not (number := last_stop(stops)):
                _drain(leader)
                return
            stop(number)
        if 0 in readable:
            typed = _read(0)
            if not typed:
                typed, is_open = b"\x04", False  # end of input, as a user would type it
        if writable:
            typed = typed[_write(leader, typed) :]


def _drain(leader: int) -> None:
    """Copy what the jail wrote at its end: as much as a terminal buffers."""
    for _ in range(_MOST_CHUNKS):
        if not _ready([leader], [], _DRAIN_MS)[0] or not (shown := _read(leader)):
            return
        _write_all(1, shown)


def _ready(readers: list[int], writers: list[int], ms: int | None = None) -> tuple[list[int], list[int]]:
    """Wait as select(2) does, but for descriptors of any number. Return nothing after `ms` milliseconds."""
    poll = select.poll()
    events_of = dict.fromkeys(readers, select.POLLIN)
    for descriptor in writers:
        events_of[descriptor] = events_of.get(descriptor, 0) | select.POLLOUT
    for descriptor, events in events_of.items():
        poll.register(descriptor, events)
    found = dict(poll.poll(ms))
    ended = select.POLLHUP | select.POLLERR | select.POLLNVAL
    readable = [number for number in readers if found.get(number, 0) & (select.POLLIN | ended)]
    return readable, [number for number in writers if found.get(number, 0) & (select.POLLOUT | ended)]


def _read(descriptor: int) -> bytes:
    """Read what is available. Return nothing at the end, or if the other end is closed (EIO)."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(leader: int, data: bytes) -> int:
    """Write, and return the number of bytes written; all of them if no process is left to read (EIO)."""
    try:
        return os.write(leader, data)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return len(data)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
