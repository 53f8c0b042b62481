"""Builds, entries and removals ended at every system call, by a signal or for want of room; see strace(1).

Whatever ends one, the host's tree and what lies beside the environment stay as they were, nothing is
mounted, and what is left can be removed and built again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import TOP
from tests.environments.worker import REFUSED
from tests.test_exactness import USERS
from tests.test_layout import unmeasured
from tests.tree_text import parse_tree, tree, walk_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

HOST = """
/d/closed/ 0555
/d/closed/a = alpha
/d/link -> closed
/etc/passwd
"""
# What is done to a system call, and to which: strace's classes.
FAULTS = {
    "SIGKILL": ("signal=KILL", "all"),
    "SIGTERM": ("signal=TERM", "all"),
    "SIGINT": ("signal=INT", "all"),
    "ENOSPC": ("error=ENOSPC", "%file,%desc"),
}


class End(NamedTuple):
    """How a piece of work ended: its exit status, or minus a signal, and the calls that it made."""

    status: int
    calls: list[str]
    met: bool


class Scene(NamedTuple):
    """One user's home, where environments are made by the `worker`."""

    host: bytes
    home: bytes
    worker: subprocess.Popen[str]
    log: Path

    @property
    def env(self) -> bytes:
        """The environment's directory."""
        return self.home + b"/env"

    def look(self) -> tuple[list[str], list[str], bytes]:
        """All that must stay as it is."""
        mounts = Path("/proc/self/mountinfo").read_bytes()
        return walk_lines(self.host), walk_lines(self.home), mounts

    def do(self, verb: str) -> int:
        """Let the worker do `verb` undisturbed; its exit status."""
        self._ask(f"{verb}\n\n")
        self._answer()
        return self._answer()

    def traced(self, verb: str, *options: str) -> End:
        """Let the worker do `verb` while strace looks on, and perhaps tampers with it."""
        self._ask(f"{verb}\n")
        command = ["strace", "-o", str(self.log), *options, "-p", str(self._answer())]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            self._ask("\n")
            status = self._answer()
            tracer.stderr.read()
        lines = self.log.read_text(errors="replace").splitlines()
        calls = [match[1] for line in lines if (match := re.match(r"(\w+)\(", line))]
        met = status < 0 or any("(INJECTED)" in line or line.startswith("--- SIG") for line in lines)
        return End(status, calls, met)

    def _ask(self, text: str) -> None:
        assert self.worker.stdin is not None
        self.worker.stdin.write(text)
        self.worker.stdin.flush()

    def _answer(self) -> int:
        assert self.worker.stdout is not None
        return int(self.worker.stdout.readline())


@pytest.fixture(params=USERS, ids=lambda uid: f"uid {uid}")
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A home with a file of the user's in it."""
    with tree(parse_tree(HOST)) as host, tree(parse_tree("/home/mine\n/cache/")) as place:
        subprocess.run(["chown", "-R", f"{request.param}", place], check=True)
        words = [str(request.param), os.fsdecode(host), os.fsdecode(place + b"/home/env")]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.environments.worker", *words],
            cwd=TOP,
            env={**unmeasured(), "XDG_CACHE_HOME": os.fsdecode(place + b"/cache")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as worker:
            yield Scene(host, place + b"/home", worker, tmp_path / "log")
            worker.kill()


def walk(scene: Scene, verb: str, fault: str, *, step: int) -> tuple[int, int]:
    """Let every `step`th call meet the fault; returns how many did, and how many calls there are."""
    what, which = FAULTS[fault]
    before = scene.look()
    assert scene.do("recover") == 0  # for the seal that a first build leaves
    start(scene, verb)
    calls = scene.traced(verb, "-e", f"trace={which}").calls
    assert scene.do("recover") == 0
    met = 0
    for number in range(step - 1, len(calls), step):
        start(scene, verb)
        # strace counts the calls of each name by themselves.
        when = calls[: number + 1].count(calls[number])
        inject = f"inject={calls[number]}:{what}:when={when}"
        end = scene.traced(verb, "-e", f"trace={which}", "-e", inject)
        where = f"call {number}, the {when}. {calls[number]}: ended {end.status}"
        if fault == "ENOSPC":
            assert end.status in {0, REFUSED}, where
            # It had the time to clean up.
            assert verb != "build" or end.status == 0 or not os.path.lexists(scene.env), where
        assert scene.do("recover") == 0, where
        assert scene.look() == before, where
        met += end.met
    return met, len(calls)


def start(scene: Scene, verb: str) -> None:
    """What must be there before the work."""
    if verb != "build":
        assert scene.do("build") == 0


@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_now_and_then(scene: Scene, verb: str, fault: str) -> None:
    """The walk below with long steps."""
    met, _ = walk(scene, verb, fault, step=47 if verb == "enter" else 23)
    assert met > 3


@pytest.mark.long
@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_call(scene: Scene, verb: str, fault: str) -> None:
    """The number of calls differs a little from run to run: memory, and the clock's ticks."""
    met, calls = walk(scene, verb, fault, step=1)
    assert met > 0.9 * calls > 90
