"""The worker's side of fault injection: a piece of work in a new process each time (tests/faults.py).

A worker has everything imported, so that what is disturbed is the work and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
# The exit status after an exception that the work lets through.
BROKEN = 99


def serve(work: Callable[[Any], int], *, uid: int | None = None) -> None:
    """Serve until the end of standard input.

    Reads a line of JSON: a request, and the names of files for standard output and error. Forks, and
    prints the child's number; after another line it lets the child begin, and prints its exit status, or
    minus the signal that ended it. `work` gets the request and returns the exit status; it is done as
    the user `uid`, if one is given.
    """
    while line := sys.stdin.readline():
        request, out, err = json.loads(line)
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            _prepare(out, err, uid)
            _end(work, request, gate)
        _say(child)
        sys.stdin.readline()
        os.write(opener, b"x")
        os.close(gate)
        os.close(opener)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _prepare(out: str, err: str, uid: int | None) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    for number, name in enumerate((os.devnull, out, err)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
    if uid is not None and uid != os.geteuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def _end(work: Callable[[Any], int], request: Any, gate: int) -> NoReturn:
    """Do the work and end: nothing of the worker's own may run in the child."""
    os.readv(gate, [bytearray(1)])  # a call that pkgjail does not make, so that it is not disturbed
    code = BROKEN
    try:
        code = work(request)
    except BaseException:  # noqa: BLE001 - it is told, by the status too
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
