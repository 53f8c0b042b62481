"""A command of Spack is killed in the middle of an install: what ends with it, and what Spack can do then."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import faults
from tests.spack.test_environment import started
from tests.spack.test_inside import WHERE

if TYPE_CHECKING:
    from tests.spack.conftest import Spack

# As an install does: it locks a database, fills a stage, and waits for a program, here in another session.
INSTALL = """
import fcntl, os, subprocess
os.makedirs({root!r} + "/opt/spack/.spack-db", exist_ok=True)
lock = open({root!r} + "/opt/spack/.spack-db/lock-of-test", "w")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.makedirs({root!r} + "/opt/stage-of-test", exist_ok=True)
print("installs", flush=True)
subprocess.run(["sleep", {seconds!r}], start_new_session=True)
"""


def _status(pid: int) -> dict[str, list[str]]:
    """Return the fields of proc_pid_status(5); none if the process has ended, a zombie included."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    fields = {name: values.split() for name, _, values in (line.partition(":") for line in lines)}
    return {} if fields["State"][0] == "Z" else fields


def descendants(pid: int) -> list[int]:
    """Return a process, its children, theirs, and so on."""
    statuses = {each: _status(each) for each in map(int, filter(str.isdecimal, os.listdir("/proc")))}
    found = [pid]
    for one in found:
        found += [each for each, fields in statuses.items() if fields.get("PPid") == [str(one)]]
    return found


def wait_for_end(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    for _ in range(500):
        if not any(map(_status, pids)):
            return
        time.sleep(0.02)
    raise AssertionError([(pid, _status(pid)) for pid in pids])


@pytest.mark.parametrize("entry", ["the first", "a replay"])
@pytest.mark.parametrize("hook", ["entry point", "SPACK_PYTHON"])
@pytest.mark.parametrize("target", ["the outer command", "init", "the installer"])
def test_a_kill_in_the_middle_of_an_install(spack: Spack, target: str, hook: str, entry: str) -> None:
    """Everything in the jail ends and nothing stays mounted or locked; the next command goes on as usual."""
    spack.build()
    hooked = {} if hook == "entry point" else spack.wrapped()
    if entry == "a replay":
        assert spack("python", "-c", WHERE, environment=hooked).stdout == "pkgjail\n"
    seconds = f"1000.{time.time_ns()}"
    code = f"exec({INSTALL.format(root=str(spack.root), seconds=seconds)!r})"
    with started(spack, "python", "-c", code, **hooked) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "installs\n"
        chain = descendants(running.pid)
        (init,) = (pid for pid in chain if _status(pid)["NSpid"][1:] == ["1"])
        victim = {"the outer command": running.pid, "init": init, "the installer": descendants(init)[1]}
        os.kill(victim[target], signal.SIGKILL)
        wait_for_end([pid for pid in chain if pid != running.pid])
        output = running.communicate()
    expected = -signal.SIGKILL if target == "the outer command" else 128 + signal.SIGKILL
    assert running.returncode == expected, output
    assert faults.mounts_below(spack.user.home) == []
    with contextlib.closing(os.scandir("/proc")) as found:
        everyone = [int(entry.name) for entry in found if entry.name.isdecimal()]
    assert not [pid for pid in everyone if seconds in _command_line(pid)]
    again = spack("python", "-c", code.replace(seconds, "0"), environment=hooked)
    assert (again.returncode, again.stdout, again.stderr) == (0, "installs\n", "")
    removed = spack("jail", "--remove-environment")
    assert removed.returncode == 0, removed.stderr


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
