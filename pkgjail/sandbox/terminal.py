"""A terminal of the jail's own, relayed to the caller's: for shells and other interactive work.

The command runs in a new session, so the caller's terminal cannot be its controlling terminal.
It gets one from the jail's own devpts instead, and the caller copies between the two, as ssh(1)
and container runtimes do. Where the command is stopped the caller stops too, as a job of the shell
that started it. pty(7), tty_ioctl(4).
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
    from typing import Any

    from pkgjail.sandbox.signals import Relay

_CHUNK = 65536
_MOST_CHUNKS = 100  # a terminal gives at most 4,096 bytes at once
_LAST_MS = 50  # in which processes of a jail that ended are gone


def open_terminal(channel: socket.socket) -> int:
    """In the jail's init: a new terminal, which controls its session; the caller gets the other end.

    It has the size of the caller's, if that is on descriptor 0, before anything runs on it.
    """
    leader, follower = os.openpty()
    if os.isatty(0):
        _give_size(leader)
    socket.send_fds(channel, [b"t"], [leader])
    channel.close()
    os.close(leader)
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    return follower


def adopt(terminal: int) -> None:
    """In a child of init: come to the foreground of the terminal, in a process group of one's own."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])  # which is for who is not there yet
    os.tcsetpgrp(terminal, os.getpid())
    for standard in (0, 1, 2):
        os.dup2(terminal, standard)
    if terminal > 2:  # noqa: PLR2004 - the standard descriptors
        os.close(terminal)


def relay(channel: socket.socket, stops: int, signals: Relay) -> None:
    """At the caller: copy between descriptors 0 and 1 and the jail's terminal until it hangs up.

    `stops` says by which signal the command was stopped; the caller then gives its terminal back and
    stops too. Returns at once when the jail ends before it has sent its terminal.
    """
    message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        return
    leader = descriptors[0]
    own = _Own(leader)
    try:
        with own.raw(), own.same_size(watched=signals.active):
            _copy(leader, stops, lambda number: own.stop(number, signals))
    finally:
        os.close(leader)


class _Own:
    """The caller's terminal on descriptor 0, if that is one, while the jail has one that hangs on it."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._before: list[Any] | None = None
        self._is_terminal = os.isatty(0)

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Let every key through to the jail's terminal, which does the line editing and the signals."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    @contextlib.contextmanager
    def same_size(self, *, watched: bool) -> Iterator[None]:
        """Give the jail's terminal the size of the caller's, now and, if `watched`, whenever that changes."""
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
        """Stop as the command was, for whoever started the caller to have the terminal, and go on with it.

        The whole group, as the keys would have it, but only that of a terminal's foreground: no
        command stops what runs without one.
        """
        if not signals.active:
            return
        group = self._is_foreground()
        if group:
            self._give_back()
        signals.stop(number, group=group)
        if group:
            self._take()  # waits for the foreground: SIGTTOU
            self._resize()
        signals.go_on()

    def _is_foreground(self) -> bool:
        try:
            return self._is_terminal and os.tcgetpgrp(0) == os.getpgrp()
        except OSError:  # not the controlling terminal
            return False

    def _take(self) -> None:
        if self._is_terminal:
            self._before = termios.tcgetattr(0)
            _until_done(lambda: tty.setraw(0, termios.TCSADRAIN))  # what was typed ahead is kept

    def _give_back(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            _until_done(lambda: termios.tcsetattr(0, termios.TCSADRAIN, before))

    def _resize(self, _number: int = 0, _frame: object = None) -> None:
        _give_size(self._leader)


def _give_size(terminal: int) -> None:
    """Give a terminal the size of the one on descriptor 0; a change sends SIGWINCH to who runs there."""
    size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)


def _until_done(change: Callable[[], object]) -> None:
    """Change the terminal, again after a signal: who does so in the background is stopped and continued.

    Nothing is changed where nobody could continue it (EIO).
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

    A command may have given its end to a process outside, over a socket. What is typed waits here while the
    jail does not read it: a write that blocks would never return when nobody is left to read.
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
                _show_rest(leader)
                return
            stop(number)
        if 0 in readable:
            typed = _read(0)
            if not typed:
                typed, is_open = b"\x04", False  # end of input, as a user would type it
        if writable:
            typed = typed[_write(leader, typed) :]


def _show_rest(leader: int) -> None:
    """Show what the jail wrote at its end, which is as much as a terminal keeps."""
    for _ in range(_MOST_CHUNKS):
        if not _ready([leader], [], _LAST_MS)[0] or not (shown := _read(leader)):
            return
        _write_all(1, shown)


def _ready(readers: list[int], writers: list[int], ms: int | None = None) -> tuple[list[int], list[int]]:
    """As select(2), for any descriptor, of however high a number; nothing after `ms` milliseconds."""
    poll = select.poll()
    wanted = dict.fromkeys(readers, select.POLLIN)
    for descriptor in writers:
        wanted[descriptor] = wanted.get(descriptor, 0) | select.POLLOUT
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    found = dict(poll.poll(ms))
    ended = select.POLLHUP | select.POLLERR | select.POLLNVAL
    readable = [number for number in readers if found.get(number, 0) & (select.POLLIN | ended)]
    return readable, [number for number in writers if found.get(number, 0) & (select.POLLOUT | ended)]


def _read(descriptor: int) -> bytes:
    """What there is to read; nothing at the end, and when the other end has gone (EIO)."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _write(leader: int, data: bytes) -> int:
    """How much of `data` the terminal took; all of it when nobody is left to read it."""
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
