"""An interactive shell on a terminal of its own, as a user at a keyboard has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INTERRUPT, SUSPEND, QUIT = b"\x03", b"\x1a", b"\x1c"
_PROMPT = "ready> "
_SECONDS = 30


class Shell:
    """`bash -i` with job control; what it shows is kept until somebody waits for it."""

    def __init__(self, terminal: int, pid: int) -> None:
        self.pid = pid
        self._terminal = terminal
        self._shown = b""

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._terminal, keys)

    def run(self, line: str) -> None:
        """Type a line, its end included, and wait until the terminal has shown it.

        That may be before the shell has the terminal: after a command that ends by itself, wait for the
        prompt first, or the next `wait_for_prompt` returns that one.
        """
        self.type(line.encode() + b"\n")
        self.wait_for(re.escape(line))

    def wait_for(self, pattern: str) -> re.Match[bytes]:
        """Return the output up to `pattern`, which must appear."""
        deadline = time.monotonic() + _SECONDS
        while (found := re.search(pattern.encode(), self._shown, re.DOTALL)) is None:
            assert time.monotonic() < deadline, (pattern, self._shown)
            if select.select([self._terminal], [], [], 0.1)[0]:
                # A long line is wrapped by a blank and a carriage return.
                self._shown += os.read(self._terminal, 65536).replace(b" \r", b"")
        self._shown = self._shown[found.end() :]
        return found

    def wait_for_prompt(self) -> bytes:
        """Return the output until the shell has the terminal again."""
        return self.wait_for(f"(?P<output>.*?){_PROMPT}")["output"]

    def status(self) -> int:
        """The exit status of the last command."""
        self.run("echo status=$?")
        return int(self.wait_for(r"\nstatus=(\d+)\r\n.*" + _PROMPT)[1])

    def resize(self, lines: int, columns: int) -> None:
        """Make the window another size."""
        _resize(self._terminal, lines, columns)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._terminal)
        self._terminal = -1


def _resize(terminal: int, lines: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.contextmanager
def shell(environment: Mapping[str, str], user: int | None = None) -> Iterator[Shell]:
    """A shell at its prompt, of a user of that number; gone at the end, with its jobs."""
    pid, terminal = os.forkpty()
    if pid == 0:
        if user is not None and user != os.geteuid():
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        _resize(0, 24, 1000)  # before bash looks: it shows only a part of a line that is longer
        variables = {**environment, "PS1": _PROMPT, "TERM": "dumb"}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], variables)
    started = Shell(terminal, pid)
    try:
        started.wait_for_prompt()
        yield started
    finally:
        with contextlib.suppress(OSError):
            started.hang_up()
        os.waitpid(pid, 0)
