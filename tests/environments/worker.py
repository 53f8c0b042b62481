"""A process that builds, enters and removes an environment, for test_interruptions.py.

Usage: python -m tests.environments.worker UID HOST ENVIRONMENT. A request is a verb.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import CommandError, PkgjailError
from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.remove import remove_environment
from tests.forking import serve
from tests.test_exactness import manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable

# The exit status of a child after an expected error, or after Ctrl-C.
REFUSED, INTERRUPTED = 1, 2


def main() -> None:
    """Serve requests, after importing everything that a child needs."""
    uid, host, env = int(sys.argv[1]), os.fsencode(sys.argv[2]), os.fsencode(sys.argv[3])
    _import_all(host)
    build = partial(build_environment, manifest_of(host), env, form="copy", root=host)
    verbs: dict[str, Callable[[], object]] = {
        "build": build,
        "enter": partial(enter_environment, env, ["true"]),  # it has no such command
        "remove": partial(remove_environment, env),
        "recover": lambda: recover(env, build),
    }
    serve(lambda verb: _work(verbs[verb]), uid=uid)


def _import_all(host: bytes) -> None:
    """Do everything once, to import what it needs: the user of the children may not read this clone."""
    with tempfile.TemporaryDirectory() as scratch:
        cache, os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"], scratch
        env = os.fsencode(scratch) + b"/env"
        build_environment(manifest_of(host), env, form="copy", root=host)
        with contextlib.suppress(CommandError):
            enter_environment(env, ["true"])
        remove_environment(env)
        os.environ["XDG_CACHE_HOME"] = cache


def recover(env: bytes, build: Callable[[], object]) -> None:
    """Remove what is left, once nobody is in it; then build and remove again."""
    if os.path.lexists(env):
        with contextlib.suppress(FileNotFoundError), open(env + b"/lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a jail ends shortly after its caller was killed
        remove_environment(env)
    build()
    remove_environment(env)


def _work(work: Callable[[], object]) -> int:
    try:
        work()
    except (PkgjailError, OSError):
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    main()
