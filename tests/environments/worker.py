"""Builds, enters and removes an environment in a new process each time, for whoever disturbs that.

Usage: python -m tests.environments.worker UID HOST ENVIRONMENT

Reads a verb a line. Forks, and prints the child's number; after another line it lets the child begin,
and prints its exit status, or minus the signal that ended it. Everything is imported beforehand.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.remove import remove_environment
from pkgjail.errors import CommandError, PkgjailError
from tests.test_exactness import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
# The exit status of a child in which what is foreseen happened, Ctrl-C, or what is not foreseen.
REFUSED, INTERRUPTED, BROKEN = 1, 2, 3


def main() -> None:
    """Serve until the end of standard input."""
    uid, host, env = int(sys.argv[1]), os.fsencode(sys.argv[2]), os.fsencode(sys.argv[3])
    _import_all(host)
    build = partial(build_environment, manifest_of(host), env, form="copy", root=host)
    verbs: dict[str, Callable[[], object]] = {
        "build": build,
        "enter": partial(enter_environment, env, ["true"]),  # which it does not have
        "remove": partial(remove_environment, env),
        "recover": lambda: recover(env, build),
    }
    while verb := sys.stdin.readline().strip():
        gate, opener = os.pipe()
        child = os.fork()
        if child == 0:
            _work(verbs[verb], gate, uid)
        _say(child)
        sys.stdin.readline()
        os.write(opener, b"x")
        os.close(gate)
        os.close(opener)
        _say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _import_all(host: bytes) -> None:
    """Do all once, for what is imported on the way: the user of the children may not read this clone."""
    with tempfile.TemporaryDirectory() as scratch:
        cache, os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"], scratch
        env = os.fsencode(scratch) + b"/env"
        build_environment(manifest_of(host), env, form="copy", root=host)
        with contextlib.suppress(CommandError):
            enter_environment(env, ["true"])
        remove_environment(env)
        os.environ["XDG_CACHE_HOME"] = cache


def recover(env: bytes, build: Callable[[], object]) -> None:
    """Take away what is left, when nobody is in it any more; then build and remove once more."""
    if os.path.lexists(env):
        directory = os.open(env, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(directory, fcntl.LOCK_EX)  # a jail whose caller was killed dies a little later
        os.close(directory)
        remove_environment(env)
    build()
    remove_environment(env)


def _work(work: Callable[[], object], gate: int, uid: int) -> None:
    code = BROKEN
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        if os.geteuid() != uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.read(gate, 1)
        work()
        code = 0
    except (PkgjailError, OSError):
        code = REFUSED
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
