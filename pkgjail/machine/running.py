"""A machine that runs: a process of qemu, its channel, and what its console says."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.parallel import die_with
from pkgjail.core.text import printable
from pkgjail.core.untrusted import shortened
from pkgjail.machine.frames import VERSION, Channel, Fields, Message, Type
from pkgjail.machine.model import MachineError
from pkgjail.machine.qemu import command_line, program_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from pkgjail.machine.qemu import Hardware

_PANIC = b"Kernel panic"
_MOST_LINES = 12
_MOST_OF_A_LINE = 200
_BLOCK = 1 << 16
_SECONDS_TO_END = 10


class Console:
    """The last lines of a guest's console and of qemu's messages, read from a pipe.

    `panic` is the line in which the kernel says that it gives up, or b"".
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque(maxlen=_MOST_LINES)
        self._rest = b""
        self.panic = b""
        self.is_closed = False

    def fileno(self) -> int:
        """Return the pipe's descriptor."""
        return self._descriptor

    def read(self) -> None:
        """Read what there is; at its end, set `is_closed`."""
        try:
            block = os.read(self._descriptor, _BLOCK)
        except BlockingIOError:
            return
        self.is_closed = not block
        *lines, rest = (self._rest + block).replace(b"\r", b"").split(b"\n")
        self._rest = rest[-_BLOCK:]
        for line in filter(bytes.strip, lines):
            self._lines.append(line)
            if _PANIC in line:
                self.panic = line

    def last(self) -> list[str]:
        """Return the last lines, as they can be shown."""
        lines = [*self._lines, *([self._rest] if self._rest.strip() else [])]
        if self.panic and self.panic not in lines:  # a trace of calls came after it
            lines.insert(0, self.panic)
        shown = (printable(line.decode("utf-8", "replace").rstrip()) for line in lines)
        return [shortened(line, _MOST_OF_A_LINE) for line in shown]


class Running:
    """A machine that was started. Use it as a context: at the end, it is gone."""

    def __init__(self, hardware: Hardware) -> None:
        """Start qemu.

        Raises:
            MachineError: the program is not here, or there is no such machine.

        """
        name, package = program_of(hardware.architecture)
        program = shutil.which(name)
        if program is None:
            raise MachineError(f"the program {name} is not in PATH (Debian's package {package} has it)")
        ours, theirs = socket.socketpair()
        with theirs:
            hardware = replace(hardware, channel=theirs.fileno())
            parent = os.getpid()
            self._process = subprocess.Popen(
                [program, *command_line(hardware)[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=hardware.descriptors,
                env={"PATH": os.defpath},
                start_new_session=True,  # keys of the terminal are the command's
                preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - its call is safe after fork
            )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.console = Console(self._process.stdout.fileno())
        self.channel = Channel(ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End the machine at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self.channel.close()

    def others(self) -> list[int]:
        """Return the console's descriptor; nothing once it is closed."""
        return [] if self.console.is_closed else [self.console.fileno()]

    def attend(self, descriptor: int) -> None:
        """Read from the console."""
        del descriptor
        self.console.read()

    def hear(self, message: Message) -> None:
        """Ignore what belongs to no session: nothing was asked."""

    def messages(self, timeout: float | None = None) -> Iterator[Message]:
        """Wait for messages and yield those that came. Yield none if `timeout` seconds went by.

        Raises:
            MachineError: the machine ended.

        """
        poll = select.poll()
        poll.register(self.channel, select.POLLIN | (select.POLLOUT if self.channel.wants_to_write else 0))
        poll.register(self.console, select.POLLIN)
        ready = dict(poll.poll(None if timeout is None else timeout * 1000))
        if self.console.fileno() in ready:
            self.console.read()
        events = ready.get(self.channel.fileno(), 0)
        if events & select.POLLOUT:
            self.channel.write()
        if events & ~select.POLLOUT:
            yield from self.channel.read()
        if self.channel.is_closed or self.console.is_closed:
            raise self.lost()

    def wait_for_start(self, seconds: float) -> str:
        """Wait until the agent is there, and return the release of its kernel.

        Raises:
            MachineError: the machine ended, is not ready after so many seconds, or has another agent.

        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for message in self.messages(left):
                fields = Fields(message.content)
                if message.type != Type.READY or fields.number() != VERSION:
                    raise MachineError("the guest's agent is another version than this pkgjail's")
                return fields.text().decode("utf-8", "replace")
        raise MachineError(f"the guest did not start within {seconds:g} s{self._words_of_console()}")

    def ask(self, kind: Type, content: bytes = b"") -> None:
        """Have the guest do something.

        Raises:
            MachineError: it cannot, or the machine ended.

        """
        self.channel.send(0, kind, content)
        self.answers(1)

    def answers(self, count: int) -> None:
        """Wait for the answers to what the guest was asked.

        Raises:
            MachineError: an answer says that it cannot, or the machine ended.

        """
        while count:
            for message in self.messages():
                if message.type == Type.FAILED:
                    raise failure(message)
                count -= 1

    def lost(self) -> MachineError:
        """Return the error for a machine that ended before it was told to."""
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        while not self.console.is_closed:
            if not select.select([self.console], [], [], 1)[0]:
                break
            self.console.read()
        if status < 0:
            how = f"qemu was killed by {signal.Signals(-status).name}"
        elif status:
            how = f"qemu ended with status {status}"
        elif self.console.panic:
            how = "the guest's kernel panicked"
        elif not self.console.last():
            how = "the guest ended and said nothing; it may need more memory, or another kernel"
        else:
            how = "the guest ended"
        return MachineError(f"the machine is gone: {how}{self._words_of_console()}")

    def shut_down(self) -> None:
        """End the machine in order, or else at once."""
        self.channel.send(0, Type.SHUTDOWN)
        end = time.monotonic() + _SECONDS_TO_END
        try:
            while time.monotonic() < end:
                for _ in self.messages(1):
                    pass
        except MachineError:  # it is gone, as it should be
            pass
        self.kill()

    def _words_of_console(self) -> str:
        lines = self.console.last()
        return "; its last words:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""


def failure(message: Message) -> MachineError:
    """Return the error that a guest's answer says."""
    fields = Fields(message.content)
    number = fields.error()
    doing = printable(fields.text().decode("utf-8", "replace"))
    return MachineError(f"the guest cannot {doing}: {os.strerror(number)}")
