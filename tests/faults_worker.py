"""Runs pkgjail's command line in a new process each time, for whoever disturbs that (tests/faults.py).

Reads a request a line, as JSON. Forks, and prints the child's number; after another line it lets the
child begin, and prints its exit status, or minus the signal that ended it. Everything is imported
beforehand, so that a child does the work and nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from importlib import import_module
from typing import Any

from pkgjail import choosing
from pkgjail.__main__ import main as short_way
from pkgjail.commands import main as long_way

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
_NEEDED = ("api", "backends.dpkg", "hashing", "jail", "manifest.problems", "sandbox.terminal")


def serve() -> None:
    """Serve until the end of standard input."""
    for name in _NEEDED:
        import_module(f"pkgjail.{name}")
    choosing._WORTH_IT = 5  # an overlay for a directory of five names too
    while line := sys.stdin.readline():
        request = json.loads(line)
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            _work(request, gate)
        _say(child)
        sys.stdin.readline()
        os.write(opener, b"x")
        os.close(gate)
        os.close(opener)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _work(request: dict[str, Any], gate: int) -> None:
    """Do what is asked for, with its output in a file; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        os.environ.update(request["environment"])
        sys.argv = ["pkgjail", *request["words"]]
        for number, name in ((0, os.devnull), (1, request["out"]), (2, request["out"] + ".err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.read(gate, 1)
        code = short_way() if request["short"] else long_way()
        sys.stderr.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve()
