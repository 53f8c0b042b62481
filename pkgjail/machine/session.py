"""A command in a guest: its streams, its terminal, its signals and its end.

This side copies between the caller's descriptors 0 to 2 and the channel. It reads ahead, as ssh(1) does: what
the command does not read of standard input is lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.model import record
from pkgjail.core.text import printable
from pkgjail.machine.frames import WINDOW, Fields, Message, Type, number, text, texts
from pkgjail.machine.model import MachineError
from pkgjail.sandbox.signals import RELAYED, Relay, relayed_by
from pkgjail.sandbox.terminal import CallersTerminal, callers_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.machine.frames import Link

_BLOCK = 1 << 16
_PIPE_BLOCK = select.PIPE_BUF  # that many bytes never block where poll(2) says that some can be written
_END_OF_INPUT = b"\x04"  # as a user types it at a terminal
_ALL_SIZES = (24, 80)  # of a terminal, if the caller has none


@record
class Command:
    """A command: `processes` is the most that its user may have at once; 0 is no limit."""

    argv: tuple[bytes, ...]
    cwd: bytes
    environment: tuple[bytes, ...]
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    processes: int = 0
    terminal: bool = False


class Ended(NamedTuple):
    """The end of a command: its exit status, or 128 + n after signal n, and whether memory ran out."""

    status: int
    out_of_memory: bool = False


class NotStartedError(MachineError):
    """The guest cannot start a command: `doing` what failed, with the error `number`."""

    def __init__(self, doing: str, number: int) -> None:
        super().__init__(doing, number)
        self.doing = doing
        self.number = number

    def __str__(self) -> str:
        return f"the guest cannot {self.doing}: {os.strerror(self.number)}"


def run_command(link: Link, session: int, command: Command) -> Ended:
    """Run a command in the guest, with the caller's descriptors 0 to 2, and wait for its end.

    Args:
        link: the connection with the guest.
        session: a number that no other command of the guest has.
        command: what to run. With a terminal, what it shows goes to descriptor 1.

    Returns:
        Its end.

    Raises:
        NotStartedError: it cannot be started.
        MachineError: the machine ended before it.
        KeyboardInterrupt: a second SIGINT came.

    """
    mask = {int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
    waking, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        relay = _Relay(wake)
        copying = _Session(link, session, command, relay, waking)
        with relayed_by(relay, mask), copying.callers_terminal():
            return copying.run()
    finally:
        os.close(waking)
        os.close(wake)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_quietly(link: Link, session: int, command: Command) -> Ended:
    """Run a command as `run_command` does, without input, and with what it says thrown away.

    Raises:
        NotStartedError, MachineError: as `run_command`.

    """
    link.channel.send(session, Type.EXEC, _content(command))
    link.channel.send(session, Type.INPUT_END)
    failed: NotStartedError | None = None
    while not link.channel.is_closed:
        _await(link)
        for message in link.channel.read():
            fields = Fields(message.content)
            if message.session == session and message.type in (Type.OUTPUT, Type.ERRORS):
                which = int(message.type == Type.ERRORS)
                link.channel.send(session, Type.TAKEN, number(which) + number(len(message.content)))
            elif message.session == session and message.type == Type.NOT_STARTED:
                failed = _not_started(fields)
            elif message.session == session and message.type == Type.ENDED:
                if failed is not None:
                    raise failed
                return Ended(_exit_status(fields.status()), bool(fields.number()))
    raise link.lost()


def _await(link: Link) -> None:
    """Wait until the channel can be read; write to it and read what else there is meanwhile."""
    poll = select.poll()
    poll.register(link.channel, select.POLLIN | (select.POLLOUT if link.channel.wants_to_write else 0))
    for other in link.others():
        poll.register(other, select.POLLIN)
    for descriptor, events in poll.poll():
        if descriptor != link.channel.fileno():
            link.attend(descriptor)
        elif events & select.POLLOUT:
            link.channel.write()


class _Relay(Relay):
    """Keeps signals for the loop, which sends them to the guest."""

    def __init__(self, wake: int) -> None:
        super().__init__(0, to_group=True, insistent=True)
        self._wake = wake
        self.waiting: list[int] = []

    def send(self, number: int) -> None:
        self.waiting.append(number)
        with suppress(OSError):  # full: the loop is awake
            os.write(self._wake, b"\0")


class _Session:
    """The loop of a command."""

    def __init__(self, link: Link, session: int, command: Command, relay: _Relay, waking: int) -> None:
        self._link = link
        self._session = session
        self._command = command
        self._relay = relay
        self._waking = waking
        self._window = WINDOW  # bytes of input that may still be sent
        self._reads = _is_open(0)
        self._shown: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._closed: set[int] = set()
        self._resized = False
        self._terminal = CallersTerminal(self._resize)
        self._ended: Ended | None = None
        self._failed: NotStartedError | None = None

    @contextlib.contextmanager
    def callers_terminal(self) -> Iterator[None]:
        """Relay the caller's terminal, if the command has one."""
        if not self._command.terminal:
            yield
            return
        with self._terminal.raw(), self._terminal.same_size(watched=self._relay.active):
            yield

    def run(self) -> Ended:
        """Start the command, and copy until it has ended and everything is written."""
        self._send(Type.EXEC, _content(self._command))
        if not self._reads:
            self._send(Type.INPUT_END)
        while self._ended is None or any(self._shown.values()):
            self._wait()
        if self._failed is not None:
            raise self._failed
        return self._ended

    def _send(self, kind: Type, content: bytes = b"") -> None:
        self._link.channel.send(self._session, kind, content)

    def _resize(self) -> None:
        """In a signal's handler, too: the loop sends the size."""
        self._resized = True
        self._relay.send(0)

    # --- the loop ---------------------------------------------------------------------------------

    def _wait(self) -> None:
        channel = self._link.channel
        poll = select.poll()
        poll.register(self._waking, select.POLLIN)
        reads = select.POLLIN if channel.has_room else 0  # each message may need an answer
        poll.register(channel.fileno(), reads | (select.POLLOUT if channel.wants_to_write else 0))
        for other in self._link.others():
            poll.register(other, select.POLLIN)
        if self._reads and self._window and self._ended is None and not channel.wants_to_write:
            poll.register(0, select.POLLIN)
        for descriptor, waiting in self._shown.items():
            if waiting:
                poll.register(descriptor, select.POLLOUT)
        for descriptor, events in poll.poll():
            self._attend(descriptor, events)
        self._pass_signals()
        if channel.is_closed and self._ended is None:
            raise self._link.lost()

    def _attend(self, descriptor: int, events: int) -> None:
        channel = self._link.channel
        if descriptor == self._waking:
            os.read(self._waking, _BLOCK)
        elif descriptor == channel.fileno():
            if events & select.POLLOUT:
                channel.write()
            if events & ~select.POLLOUT:
                for message in channel.read():
                    self._hear(message)
        elif descriptor == 0:
            self._read_input()
        elif descriptor in self._shown:
            self._write(descriptor)
        else:
            self._link.attend(descriptor)

    def _pass_signals(self) -> None:
        if self._relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the machine")
        if self._resized:
            self._resized = False
            rows, columns = callers_size()
            self._send(Type.RESIZE, number(rows) + number(columns))
        while self._relay.waiting:
            if found := self._relay.waiting.pop(0):
                self._send(Type.SIGNAL, number(found))

    def _read_input(self) -> None:
        try:
            block = os.read(0, min(_BLOCK, self._window))
        except OSError:  # such as EIO: the terminal is gone
            block = b""
        if block:
            self._window -= len(block)
            self._send(Type.INPUT, block)
            return
        self._reads = False
        if self._command.terminal:
            self._send(Type.INPUT, _END_OF_INPUT)
        else:
            self._send(Type.INPUT_END)

    def _write(self, descriptor: int) -> None:
        """Write what the command said, as much as does not block. It notices that nobody reads."""
        waiting = self._shown[descriptor]
        try:
            written = os.write(descriptor, memoryview(waiting)[:_PIPE_BLOCK])
        except BlockingIOError:
            return
        except OSError:
            written = len(waiting)
            self._closed.add(descriptor)
            self._send(Type.CLOSED, number(descriptor - 1))
        del waiting[:written]
        self._send(Type.TAKEN, number(descriptor - 1) + number(written))

    def _hear(self, message: Message) -> None:
        if message.session != self._session:
            self._link.hear(message)
            return
        fields = Fields(message.content)
        if message.type in (Type.OUTPUT, Type.ERRORS):
            self._show(2 if message.type == Type.ERRORS else 1, message.content)
        elif message.type == Type.INPUT_TAKEN:
            self._window += fields.number()
            if self._window > WINDOW:
                raise MachineError("the guest took more input than it was sent")
        elif message.type == Type.STOPPED:
            self._stop(fields.number())
        elif message.type == Type.NOT_STARTED:
            self._failed = _not_started(fields)
        elif message.type == Type.ENDED:
            status = fields.status()
            self._ended = Ended(_exit_status(status), bool(fields.number()))

    def _show(self, descriptor: int, content: bytes) -> None:
        if descriptor in self._closed:
            return
        self._shown[descriptor] += content
        if len(self._shown[descriptor]) > WINDOW:
            raise MachineError("the guest sent more output than it may")

    def _stop(self, number_: int) -> None:
        if self._command.terminal:
            self._terminal.stop(number_, self._relay)
        else:
            self._relay.stop(number_)
            self._relay.resume()


def _is_open(descriptor: int) -> bool:
    try:
        return stat.S_IFMT(os.fstat(descriptor).st_mode) != 0
    except OSError:
        return False


def _content(command: Command) -> bytes:
    rows, columns = callers_size() if command.terminal and os.isatty(0) else _ALL_SIZES
    groups = b"".join(map(number, command.groups))
    numbers = (command.umask, command.processes, int(command.terminal), rows, columns)
    return b"".join(
        (
            *(number(command.uid), number(command.gid), number(len(command.groups)), groups),
            *map(number, numbers),
            *(text(command.cwd), texts(command.argv), texts(command.environment)),
        )
    )


def _not_started(fields: Fields) -> NotStartedError:
    number_ = fields.error()
    return NotStartedError(printable(fields.text().decode("utf-8", "replace")), number_)


def check_command(content: bytes) -> None:
    """Check that a message describes a command, as the agent reads it.

    Raises:
        MachineError: it does not.

    """
    fields = Fields(content)
    fields.take(2 * 4)
    fields.take(4 * fields.number())
    fields.take(5 * 4)
    fields.text()
    for _ in range(2):
        for _ in range(fields.number()):
            fields.text()


def _exit_status(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
