"""Builds, entries and removals ended at every system call, by a signal or for want of room; see strace(1).

Whatever ends one, the host's tree and what lies beside the environment stay as they were, nothing is
mounted, and what is left can be removed and built again.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.remove import remove_environment
from pkgjail.errors import PkgjailError
from tests.test_exactness import USERS, manifest_of
from tests.tree_text import in_child, parse_tree, tree, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.model import Manifest

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
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class End(NamedTuple):
    """How a piece of work ended: its exit status, or minus a signal, and the calls that it made."""

    status: int
    calls: list[str]
    met: bool


class Scene(NamedTuple):
    """One user's home, where environments are made; `manifest` is of the tree `host`."""

    uid: int
    host: bytes
    home: bytes
    manifest: Manifest

    @property
    def env(self) -> bytes:
        """The environment's directory."""
        return self.home + b"/env"

    def build(self) -> None:
        """Build the environment."""
        build_environment(self.manifest, self.env, form="copy", root=self.host)

    def remove(self) -> None:
        """Remove the environment."""
        remove_environment(self.env)

    def enter(self) -> None:
        """Enter the environment for a command that it does not have."""
        enter_environment(self.env, ["true"])

    def look(self) -> tuple[list[str], list[str], bytes]:
        """All that must stay as it is."""
        mounts = Path("/proc/self/mountinfo").read_bytes()
        return walk_lines(self.host), walk_lines(self.home), mounts


@pytest.fixture(params=USERS, ids=lambda uid: f"uid {uid}")
def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A home with a file of the user's in it."""
    with tree(parse_tree(HOST)) as host, tree(parse_tree("/home/mine\n/cache/")) as place:
        subprocess.run(["chown", "-R", f"{request.param}", place], check=True)
        monkeypatch.setenv("XDG_CACHE_HOME", os.fsdecode(place + b"/cache"))
        yield Scene(request.param, host, place + b"/home", manifest_of(host))


def traced(work: Callable[[], None], uid: int, log: Path, *options: str) -> End:
    """Do `work` as the user `uid` in a process that strace looks at, and perhaps tampers with."""
    gate, opener = os.pipe()
    child = os.fork()
    if child == 0:
        _work_behind(gate, work, uid)
    os.close(gate)
    command = ["strace", "-o", str(log), *options, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        os.write(opener, b"x")
        os.close(opener)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tracer.stderr.read()
    lines = log.read_text(errors="replace").splitlines()
    calls = [match[1] for line in lines if (match := re.match(r"(\w+)\(", line))]
    met = status < 0 or any("(INJECTED)" in line or line.startswith("--- SIG") for line in lines)
    return End(status, calls, met)


def _work_behind(gate: int, work: Callable[[], None], uid: int) -> None:
    code = 3
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
        if os.geteuid() != uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        os.read(gate, 1)
        work()
        code = 0
    except (PkgjailError, OSError):
        code = 1
    except KeyboardInterrupt:
        code = 2
    finally:
        os._exit(code)


def walk(scene: Scene, verb: str, fault: str, log: Path, *, step: int) -> tuple[int, int]:
    """Let every `step`th call meet the fault; returns how many did, and how many calls there are."""
    work = {"build": scene.build, "enter": scene.enter, "remove": scene.remove}[verb]
    what, which = FAULTS[fault]
    before = scene.look()
    recover(scene)  # for the seal that a first build leaves
    start(scene, verb)
    calls = traced(work, scene.uid, log, "-e", f"trace={which}").calls
    recover(scene)
    met = 0
    for number in range(step - 1, len(calls), step):
        start(scene, verb)
        # strace counts the calls of each name by themselves.
        when = calls[: number + 1].count(calls[number])
        inject = f"inject={calls[number]}:{what}:when={when}"
        end = traced(work, scene.uid, log, "-e", f"trace={which}", "-e", inject)
        where = f"call {number}, the {when}. {calls[number]}: ended {end.status}"
        if fault == "ENOSPC":
            assert end.status in {0, 1}, where
            # It had the time to clean up.
            assert verb != "build" or end.status == 0 or not os.path.lexists(scene.env), where
        recover(scene, where)
        assert scene.look() == before, where
        met += end.met
    return met, len(calls)


def start(scene: Scene, verb: str) -> None:
    """What must be there before the work."""
    if verb != "build":
        assert in_child(lambda: str(scene.build()), scene.uid) == "None"


def recover(scene: Scene, where: str = "") -> None:
    """Take away what is left; then build and remove once more."""
    assert in_child(lambda: recovered(scene), scene.uid) == "recovered", where


def recovered(scene: Scene) -> str:
    """Take away what is left; then build and remove once more."""
    if os.path.lexists(scene.env):
        with_nobody_in(scene.env)
        scene.remove()
    assert not os.path.lexists(scene.env)
    scene.build()
    scene.remove()
    return "recovered"


def with_nobody_in(env: bytes) -> None:
    """Wait until a jail whose caller was killed has died too: until then it is in the environment."""
    directory = os.open(env, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    os.close(directory)


@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_now_and_then(scene: Scene, verb: str, fault: str, tmp_path: Path) -> None:
    """The walk below with long steps."""
    met, _ = walk(scene, verb, fault, tmp_path / "log", step=47 if verb == "enter" else 23)
    assert met > 3


@pytest.mark.long
@pytest.mark.parametrize("verb", ["build", "enter", "remove"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_call(scene: Scene, verb: str, fault: str, tmp_path: Path) -> None:
    """The number of calls differs a little from run to run: memory, and the clock's ticks."""
    met, calls = walk(scene, verb, fault, tmp_path / "log", step=1)
    assert met > 0.9 * calls > 90
