"""Builds, enters and removes an environment, for the walks of test_interruptions.py.

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

# The exit status of a child in which what is foreseen happened, or Ctrl-C.
REFUSED, INTERRUPTED = 1, 2


def main() -> None:
    """Serve, with all imported that a child needs."""
    uid, host, env = int(sys.argv[1]), os.fsencode(sys.argv[2]), os.fsencode(sys.argv[3])
    _import_all(host)
    build = partial(build_environment, manifest_of(host), env, form="copy", root=host)
    verbs: dict[str, Callable[[], object]] = {
        "build": build,
        "enter": partial(enter_environment, env, ["true"]),  # which it does not have
        "remove": partial(remove_environment, env),
        "recover": lambda: recover(env, build),
    }
    serve(lambda verb: _work(verbs[verb]), uid=uid)


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
        with contextlib.suppress(FileNotFoundError), open(env + b"/lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a jail whose caller was killed dies a little later
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
