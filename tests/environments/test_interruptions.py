"""Builds, entries and removals that end at any system call, by a signal or a full disk; see strace(1).

However one ends, the host's tree and the files beside the environment stay as they were, nothing is
mounted, and what is left can be removed and built again.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.environments.worker import REFUSED
from tests.faults import Worker, faults
from tests.forking import BROKEN
from tests.test_exactness import USERS
from tests.tree_text import parse_tree, tree, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.gate  # it depends on the kernel, and not on the version of Python

HOST = """
/d/closed/ 0555
/d/closed/a = alpha
/d/link -> closed
/etc/passwd
"""
STOPS = ("signal=SIGKILL", "signal=SIGTERM", "signal=SIGINT", "error=ENOSPC")


class Scene(NamedTuple):
    """The home of a user, where the `worker` builds environments."""

    host: bytes
    home: bytes
    worker: Worker

    @property
    def env(self) -> bytes:
        """The environment's directory."""
        return self.home + b"/env"

    def look(self) -> tuple[list[str], list[str], bytes]:
        """Return everything that must stay as it is."""
        mounts = Path("/proc/self/mountinfo").read_bytes()
        return walk_lines(self.host), walk_lines(self.home), mounts

    def do(self, verb: str, where: object = "") -> None:
        """Let the worker do `verb` without a fault."""
        done = self.worker.run(verb)
        assert done.status == 0, (verb, where, done.err)


@pytest.fixture(params=USERS, ids=lambda uid: f"uid {uid}")
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """Make a home with a file of the user in it."""
    with tree(parse_tree(HOST)) as host, tree(parse_tree("/home/mine\n/cache/")) as top:
        subprocess.run(["chown", "-R", f"{request.param}", top], check=True)
        arguments = [str(request.param), os.fsdecode(host), os.fsdecode(top + b"/home/env")]
        environment = {"XDG_CACHE_HOME": os.fsdecode(top + b"/cache")}
        with Worker(tmp_path, "tests.environments.worker", *arguments, environment=environment) as worker:
            yield Scene(host, top + b"/home", worker)


def walk(scene: Scene, verb: str, what: str, *, step: int) -> tuple[int, int]:
    """Inject the fault into every `step`th call; return how many calls met it, and how many were chosen."""
    before = scene.look()
    scene.do("recover")  # for the baseline that a first build leaves
    start(scene, verb)
    calls = scene.worker.calls(verb)
    scene.do("recover")
    chosen = faults(calls, what=what, every=True)[step - 1 :: step]
    met = 0
    for fault in chosen:
        start(scene, verb)
        done = scene.worker.disturbed(verb, fault)
        assert done.status != BROKEN, (fault, done.err)
        if what == "error=ENOSPC":
            assert done.status in {0, REFUSED}, fault
            # It had time to clean up.
            assert verb != "build" or done.status == 0 or not os.path.lexists(scene.env), fault
        scene.do("recover", fault)
        assert scene.look() == before, fault
        met += done.met
    return met, len(chosen)


def start(scene: Scene, verb: str) -> None:
    """Build what `verb` needs."""
    if verb != "build":
        scene.do("build")


@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("what", STOPS)
def test_a_fault_now_and_then(scene: Scene, verb: str, what: str) -> None:
    """As below, with long steps."""
    met, _ = walk(scene, verb, what, step=3 if what == "error=ENOSPC" else 23)
    assert met > 3


@pytest.mark.long
@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("what", STOPS)
def test_a_fault_at_every_call(
    scene: Scene, verb: str, what: str, record_property: Callable[[str, object], None]
) -> None:
    """The number of calls differs a little between runs, with memory and the clock's ticks.

    The first process of a jail ignores signals without a handler, except SIGKILL: a signal that is sent while
    it builds the root has no effect (pid_namespaces(7)).
    """
    met, chosen = walk(scene, verb, what, step=1)
    record_property("faults met", f"{met} of {chosen}")
    expected = 0.6 if verb == "enter" and what in {"signal=SIGTERM", "signal=SIGINT"} else 0.9
    assert met > expected * chosen
