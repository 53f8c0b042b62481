"""Run a program of a set, which may be a stranger's, and hear what it says: in a limited time, up to a bound.

It reads from and writes to memory, and never the caller's terminal.
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

# Milliseconds between looks at what it has written, and bytes of that.
_LOOK = 20
_MOST_WRITTEN = 1 << 20
_TOO_MUCH = f"it writes more than {_MOST_WRITTEN >> 10} KiB"
_MOST_TOLD = 4000  # characters of a failure: a pipe takes them without waiting


class Ran(NamedTuple):
    """How a program ended, and what it wrote."""

    status: int
    out: bytes
    err: bytes


class UnansweredError(ValueError):
    """Why a program of the set has not said what it wants."""


def listen(enter: Callable[[], int], given: bytes = b"", *, seconds: float) -> Ran:
    """Call `enter`, which runs a program in a jail and returns its status, in a process of its own.

    Args:
        enter: what runs it. A `CommandError` stands for a status: a command that is not there has 127.
        given: its standard input.
        seconds: how long it may take.

    Raises:
        JailError: the jail cannot be set up here; any other error of `enter`.
        UnansweredError: it writes too much, or does not end.

    """
    with in_memory(given) as source, in_memory(b"") as out, in_memory(b"") as err:
        failure, end = os.pipe()
        with warnings.catch_warnings():
            # Of fork in a process with threads; the child only enters the jail.
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(_enter(enter, (source.fileno(), out.fileno(), err.fileno()), end))
        os.close(end)  # the child's is the last one
        with open(failure, "rb") as said:
            status = _watch(child, failure, (out.fileno(), err.fileno()), seconds)
            why = said.read()
        out.seek(0)
        err.seek(0)
        ran = Ran(status, out.read(), err.read())
    if why:
        raise JailError(why.decode("utf-8", "backslashreplace"))
    return ran


def _enter(enter: Callable[[], int], streams: tuple[int, int, int], failure: int) -> int:
    """In the child: the command's status. Why there is none is written to `failure`."""
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        return enter()
    except CommandError as error:
        return error.exit_status
    except PkgjailError as error:
        why = str(error)
    except BaseException as error:  # noqa: BLE001 - nothing may run on in a fork
        why = repr(error)
    os.write(failure, shortened(why, _MOST_TOLD).encode("utf-8", "backslashreplace"))
    return 1


def _watch(child: int, failure: int, written: Sequence[int], seconds: float) -> int:
    """The status of the process `child`, when it and its jail have ended: the pipe `failure` has an end then.

    They are killed at a limit, and when the caller is interrupted.

    Raises:
        UnansweredError: they have reached a limit.

    """
    started = time.monotonic()
    ended = select.poll()
    ended.register(failure)
    why = ""
    try:
        while not why and not ended.poll(_LOOK):
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
