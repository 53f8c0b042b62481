"""A terminal of the jail's own, relayed to the caller's: for shells and other interactive work.

The command runs in a new session, so the caller's terminal cannot be its controlling terminal.
It gets one from the jail's own devpts instead, and the caller copies between the two, as ssh(1)
and container runtimes do. pty(7), tty_ioctl(4).
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

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 65536


def adopt(channel: socket.socket) -> None:
    """In the jail: open a terminal, send its other end to the caller, and make it ours."""
    leader, follower = os.openpty()
    socket.send_fds(channel, [b"t"], [leader])
    channel.close()
    os.close(leader)
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    for standard in (0, 1, 2):
        os.dup2(follower, standard)
    if follower > 2:  # noqa: PLR2004 - the standard descriptors
        os.close(follower)


def relay(channel: socket.socket) -> None:
    """At the caller: copy between descriptors 0 and 1 and the jail's terminal until it hangs up.

    Returns at once when the jail ends before it has sent its terminal.
    """
    message, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not message:
        return
    leader = descriptors[0]
    try:
        with _raw(0), _same_size(leader):
            _copy(leader)
    finally:
        os.close(leader)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Let every key through to the jail's terminal, which does the line editing and the signals."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _same_size(leader: int) -> Iterator[None]:
    """Give the jail's terminal the size of the caller's, now and whenever that changes."""
    if not os.isatty(0):
        yield
        return

    def resize(_number: int = 0, _frame: object = None) -> None:
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        fcntl.ioctl(leader, termios.TIOCSWINSZ, size)

    resize()
    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy(leader: int) -> None:
    """Copy both ways until the jail's end hangs up.

    What is typed waits here while the jail does not read it: a write that blocks would never return when
    nobody is left to read.
    """
    os.set_blocking(leader, False)
    typed, is_open = b"", True
    while True:
        sources = [leader, 0] if is_open and not typed else [leader]
        readable, writable, _ = select.select(sources, [leader] if typed else [], [])
        if leader in readable:
            if not (shown := _read(leader)):
                return
            _write_all(1, shown)
        if 0 in readable:
            typed = _read(0)
            if not typed:
                typed, is_open = b"\x04", False  # end of input, as a user would type it
        if writable:
            typed = typed[_write(leader, typed) :]


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
