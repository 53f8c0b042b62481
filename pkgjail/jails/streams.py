"""The streams of a command, as `subprocess.run` takes them, and how long it may run.

Pipes are served by threads, which run from the command's start to the jail's end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import threading
from difflib import get_close_matches
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess
from typing import IO, TYPE_CHECKING, Any, TypedDict, Union

from pkgjail.core.errors import ArgumentError, JailError, UsageError
from pkgjail.core.given import number_or_none, variables
from pkgjail.core.process_errors import CommandStatusError, CommandTimeoutError
from pkgjail.core.text import raw_path, text_path
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

Stream = Union[int, IO[Any], None]
"""A file, a descriptor, None for the caller's own, or PIPE, DEVNULL or STDOUT of `subprocess`."""

_NAMES = ("stdin", "stdout", "stderr")
_FIRST_FREE = 3
_KILLED = 128 + signal.SIGKILL
_PIECE = 1 << 16  # bytes: the capacity of a pipe


class StreamOptions(TypedDict, total=False):
    """How a command is run, by the names of `subprocess.run`.

    `stdin`, `stdout` and `stderr` are a file, a descriptor, None for the caller's own, or PIPE, DEVNULL or
    (for `stderr`) STDOUT of `subprocess`. `input` is what the command reads. `capture_output` is both outputs
    as PIPE. With `text`, `input` and the outputs are text: UTF-8, with other bytes as lone surrogates. A
    command that runs longer than `timeout` seconds is killed, with all processes of its jail. With `check`, a
    status other than 0 is an error. `env` is the whole environment of the command, in the place of
    `JailOptions.environment`.
    """

    stdin: Stream
    stdout: Stream
    stderr: Stream
    input: bytes | str | None
    capture_output: bool
    text: bool
    timeout: float | None
    check: bool
    env: Mapping[str, str] | None


class Streams:
    """The streams of one command. A `with` block opens them, and closes what it opened."""

    def __init__(  # noqa: PLR0913 - those of `subprocess.run`
        self,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        input: bytes | str | None = None,  # noqa: A002 - the name that `subprocess.run` has
        capture_output: bool = False,
        text: bool = False,
        timeout: float | None = None,
        check: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Take the options of `StreamOptions`.

        Raises:
            ArgumentError: `input` is bytes with `text`, or text without.
            UsageError: two of them contradict each other.

        """
        if input is not None and stdin is not None:
            raise UsageError("stdin and input cannot both be given")
        if capture_output and (stdout is not None or stderr is not None):
            raise UsageError("stdout and stderr cannot be given with capture_output")
        if input is not None and isinstance(input, str) != text:
            wanted, other = ("str", "bytes") if text else ("bytes", "str; or give text=True")
            raise ArgumentError(f"input must be {wanted}, not {other}")
        if STDOUT in (stdin, stdout):
            raise UsageError("STDOUT is for stderr alone")
        self._given: tuple[Stream, ...] = (
            PIPE if input is not None else stdin,
            PIPE if capture_output else stdout,
            PIPE if capture_output else stderr,
        )
        self._input = raw_path(input) if isinstance(input, str) else input or b""
        self._text = text
        self._timeout = number_or_none(timeout, "timeout")
        self._check = check
        self.environment = None if env is None else variables(env, "env")
        # For each stream, the command's end and ours; -1 for none.
        self._ends: list[tuple[int, int]] = []
        self._taken: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._timer: threading.Timer | None = None
        self._jail = self._child = -1
        self._monitored = False
        self._is_cancelled = self._has_expired = False

    @property
    def are_given(self) -> bool:
        """Whether anything is to be served; otherwise the command has the caller's own streams."""
        return any(each is not None for each in self._given) or self._timeout is not None

    def __enter__(self) -> Self:
        try:
            for number, each in enumerate(self._given):
                self._ends.append(self._open(number, each))
        except BaseException:
            self._close()
            raise
        self.standard = (self._ends[0][0], self._ends[1][0], self._ends[2][0])
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        for descriptor in (each for ends in self._ends for each in ends if each >= 0):
            os.close(descriptor)
        self._ends = []

    def begin(self, child: int, *, monitored: bool) -> None:
        """Serve the pipes of the jail whose first process is `child`, until it ends."""
        with self._lock:
            if self._is_cancelled:
                raise JailError("the command was cancelled before it started")
            self._child, self._monitored = child, monitored
            with contextlib.suppress(OSError):  # a container's filter may forbid it
                self._jail = sc.pidfd_open(child)
        for number, (command, ours) in enumerate(self._ends):
            os.close(command)  # so that the pipe ends with the jail
            self._ends[number] = (-1, ours)
            if ours >= 0:
                serve = self._write if number == 0 else self._read
                self._threads.append(threading.Thread(target=serve, args=(number, ours), daemon=True))
        if self._timeout is not None:
            self._timer = threading.Timer(self._timeout, self._expire)
            self._timer.daemon = True
            self._threads.append(self._timer)
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """The jail has ended: wait for what is left in the pipes."""
        with self._lock:
            if self._jail >= 0:
                os.close(self._jail)
            self._jail = self._child = -1
        if self._timer is not None:
            self._timer.cancel()
        for thread in self._threads:
            thread.join()

    def cancel(self) -> None:
        """Kill the jail, or do not let it start. Another thread may call this at any time."""
        with self._lock:
            self._is_cancelled = True
            self._kill()

    def result(self, argv: Sequence[str], status: int) -> CompletedProcess[Any]:
        """Return the result of a command that ended with `status`.

        Raises:
            CommandStatusError: its status is not 0, and that was to be checked.
            CommandTimeoutError: it ran too long, and was killed.

        """
        words, out, err = list(argv), self._output(1), self._output(2)
        if self._has_expired and status == _KILLED and self._timeout is not None:
            raise CommandTimeoutError(words, self._timeout, output=out, stderr=err)
        if self._check and status:
            raise CommandStatusError(status, words, output=out, stderr=err)
        return CompletedProcess(words, status, out, err)

    def _output(self, number: int) -> Any:
        """Return what the command wrote, as text if that was asked for; None if it was not captured."""
        data = self._taken.get(number)
        return text_path(data) if data is not None and self._text else data

    def _open(self, stream: int, given: Stream) -> tuple[int, int]:
        """Return a descriptor above 2 for the command, and our end of its pipe, or -1."""
        if given == PIPE:
            reading, writing = map(_moved_up, os.pipe())
            return (reading, writing) if stream == 0 else (writing, reading)
        if given == DEVNULL:
            return _moved_up(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)), -1
        if given == STDOUT:
            return _copied(self._ends[1][0]), -1
        name, descriptor = _NAMES[stream], stream
        if given is not None:
            descriptor = given if isinstance(given, int) else _descriptor(given, name)
        try:
            is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        except OSError:
            raise UsageError(f"{name}: descriptor {descriptor} is not open") from None
        if is_directory:  # by `..` the command could leave the jail from there
            raise UsageError(f"{name} cannot be a directory")
        return _copied(descriptor), -1

    def _write(self, _: int, pipe: int) -> None:
        view = memoryview(self._input)
        with contextlib.suppress(BrokenPipeError):  # the command does not read it
            while view:
                view = view[os.write(pipe, view[:_PIECE]) :]
        self._ends[0] = (-1, -1)
        os.close(pipe)

    def _read(self, number: int, pipe: int) -> None:
        pieces = []
        while piece := os.read(pipe, _PIECE):
            pieces.append(piece)
        self._taken[number] = b"".join(pieces)

    def _expire(self) -> None:
        with self._lock:
            self._has_expired = True
            self._kill()

    def _kill(self) -> None:
        """Kill init, with which all processes of the jail end. A killed monitor would not wait for that."""
        with contextlib.suppress(ProcessLookupError):
            if self._monitored and (found := _children(self._child)):
                os.kill(found[0], signal.SIGKILL)
            elif self._jail >= 0:
                signal.pidfd_send_signal(self._jail, signal.SIGKILL)
            elif self._child >= 0:
                os.kill(self._child, signal.SIGKILL)


def streams_of(options: StreamOptions, caller: str) -> Streams:
    """Return the streams of a command whose options a `caller` was given.

    Raises:
        ArgumentError, UsageError: as `Streams`; also, an option is unknown.

    """
    for name in options:
        if name not in StreamOptions.__annotations__:
            meant = get_close_matches(name, [*StreamOptions.__annotations__, "terminal"], n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else "JailOptions and pkgjail.jail have the others"
            raise ArgumentError(f"{caller} has no argument {name!r}: {hint}")
    return Streams(**options)


def _children(process: int) -> list[int]:
    """Return the children of a process; none if it has ended, or the kernel does not say."""
    try:
        with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as children:
            return list(map(int, children.read().split()))
    except OSError:
        return []


def _descriptor(given: Any, name: str) -> int:
    try:
        return int(given.fileno())
    except (AttributeError, OSError):
        raise ArgumentError(
            f"{name} must be an open file with a descriptor, a descriptor, or PIPE, DEVNULL or STDOUT of "
            f"subprocess, not a {type(given).__name__}"
        ) from None


def _copied(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)


def _moved_up(descriptor: int) -> int:
    if descriptor >= _FIRST_FREE:
        return descriptor
    moved = _copied(descriptor)
    os.close(descriptor)
    return moved
