"""Commands in a guest that attack what holds them: the kernel's settings, their end, and other commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.text import raw_path
from pkgjail.machine.keeper import find_kept_machine, stop_kept_machine
from tests.test_machine import Machine, standard_input

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In namespaces of its own, where it has all capabilities: what it can mount anew, and then write.
UNCOVERING = """\
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    mkdir("/tmp/m", 0755);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET)) {
        puts("no namespaces");
        return 0;
    }
    if (fork()) {
        wait(NULL);
        return 0;
    }
    puts(mount("t", "/tmp/m", "tmpfs", 0, NULL) ? "no tmpfs" : "namespaces");
    if (!mount("p", "/tmp/m", "proc", 0, NULL))
        puts("a whole proc");
    if (!mount("s", "/tmp/m", "sysfs", 0, NULL))
        puts("a writable sysfs");
    if (!mount("d", "/tmp/m", "devtmpfs", 0, NULL) || !mount("/dev/vda", "/tmp/m", "squashfs", 1, NULL))
        puts("devices");
    if (!umount2("/proc/sys", MNT_DETACH) || !mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL))
        puts("writable settings");
    if (!umount2("/", MNT_DETACH) || !mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL))
        puts("a writable root");
    return 0;
}
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("attacked")
    yield Machine(place)
    stop_kept_machine(raw_path(str(place)))


def test_a_user_namespace_uncovers_nothing(
    machine: Machine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the capabilities of a namespace of its own, a command gets no more than it is shown."""
    (tmp_path / "uncover.c").write_text(UNCOVERING)
    subprocess.run(["cc", "-static", "-o", tmp_path / "uncover", tmp_path / "uncover.c"], check=True)
    with standard_input((tmp_path / "uncover").read_bytes()):
        assert machine.sh("cat > /tmp/uncover && chmod +x /tmp/uncover && /tmp/uncover") == 0
    assert capfd.readouterr().out == "namespaces\n"


@pytest.mark.parametrize("script", ["exec <&- >&- 2>&-; sleep 0.5; exit 4", "(sleep 1000 &); exit 4"])
def test_a_command_that_hides(machine: Machine, script: str) -> None:
    """The end of a command is its end, whatever it closed before or left running."""
    assert machine.sh(script) == 4


def test_thousands_of_signals(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """They neither stop the agent nor are they mistaken for the end."""
    child = os.fork()
    if not child:
        os._exit(machine.sh("trap 'n=x' USR1; trap 'exit 6' TERM; echo; while :; do sleep 0.01; done"))
    time.sleep(1)
    deadline = time.monotonic() + 60
    while b"\n" not in capfd.readouterr().out.encode() and time.monotonic() < deadline:
        time.sleep(0.1)
    for _ in range(5000):
        os.kill(child, signal.SIGUSR1)
        os.kill(child, signal.SIGWINCH)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6


def test_a_killed_caller_whose_output_nobody_takes(machine: Machine) -> None:
    """The session ends, though its window is full: the machine is free for what comes next."""
    assert machine.sh("true") == 0
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        machine.sh("cat /dev/zero")
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"\0"
    time.sleep(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 20
    found = find_kept_machine(raw_path(str(machine.place)))
    while found and found.commands and time.monotonic() < end:
        found = find_kept_machine(raw_path(str(machine.place)))
    assert found
    assert found.commands == 0
    os.close(reading)
