"""Run a program of a set, which may be hostile, and capture its output, with limits on time and size.

The program reads from and writes to memory, and never to the caller's terminal.
"""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import CommandError, JailError, PkgjailError
from pkgjail.core.untrusted import in_memory, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Milliseconds between checks of what it has written, and the most bytes of that.
_CHECK_INTERVAL = 20
_MOST_WRITTEN = 1 << 20
_TOO_MUCH = f"it writes more than {_MOST_WRITTEN >> 10} KiB"
_MOST_SHOWN = 4000  # characters of an error: a pipe takes them without waiting


class ProgramOutput(NamedTuple):
    """The status with which a program ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


class UnansweredError(ValueError):
    """A program of the set gave no answer; the text says why."""


def capture_output(enter: Callable[[], int], stdin: bytes = b"", *, seconds: float) -> ProgramOutput:
    """Call `enter`, which runs a program in a jail and returns its status, in a process of its own.

    Args:
        enter: runs the program. A `CommandError` stands for a status: 127 if there is no such command.
        stdin: the program's standard input.
        seconds: how long the program may take.

    Raises:
        JailError: the jail cannot be set up here, or `enter` raised any other error.
        UnansweredError: the program writes too much, or does not end.

    """
    with in_memory(stdin) as source, in_memory(b"") as out, in_memory(b"") as err:
        failure, end = os.pipe()
        with warnings.catch_warnings():
            # Python warns of fork in a process with threads; the child only enters the jail.
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(_enter(enter, (source.fileno(), out.fileno(), err.fileno()), end))
        os.close(end)  # now only the child has the pipe's end
        with open(failure, "rb") as reason:
            status = _watch(child, failure, (out.fileno(), err.fileno()), seconds)
            why = reason.read()
        out.seek(0)
        err.seek(0)
        ran = ProgramOutput(status, out.read(), err.read())
    if why:
        raise JailError(why.decode("utf-8", "backslashreplace"))
    return ran


def _enter(enter: Callable[[], int], streams: tuple[int, int, int], failure: int) -> int:
    """Run `enter` in the child and return the status; on an error, write its text to `failure`."""
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        return enter()
    except CommandError as error:
        return error.status
    except PkgjailError as error:
        why = str(error)
    except BaseException as error:  # noqa: BLE001 - a fork must not continue
        why = repr(error)
    os.write(failure, shortened(why, _MOST_SHOWN).encode("utf-8", "backslashreplace"))
    return 1


def _watch(child: int, failure: int, written: Sequence[int], seconds: float) -> int:
    """Wait for the process `child` and its jail to end, and return the status.

    They have ended when the pipe `failure` has. They are killed at a limit, or if the caller is interrupted.

    Raises:
        UnansweredError: they reached a limit.

    """
    started = time.monotonic()
    ended = select.poll()
    ended.register(failure)
    why = ""
    try:
        while not why and not ended.poll(_CHECK_INTERVAL):
            if time.monotonic() - started > seconds:
                why = f"it does not end within {seconds:.10g} s"
            elif any(os.fstat(file).st_size > _MOST_WRITTEN for file in written):
                why = _TOO_MUCH
    except BaseException:
        why = "interrupted"
        raise
    finally:
        if why:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if any(os.fstat(file).st_size > _MOST_WRITTEN for file in written):
        why = _TOO_MUCH
    if why:
        raise UnansweredError(why)
    return status
