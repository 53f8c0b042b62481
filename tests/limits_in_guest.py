"""Run in a virtual machine by `test_limits_guest.py`: jails with limits, in control groups.

Each case has a control group of its own, runs in a process of its own there, and prints
`case USER NAME: ok`, or what was wrong, and `end`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError, OutOfMemoryError
from pkgjail.core.model import Distribution, FileEntry, Header, Manifest
from pkgjail.core.options import JailOptions, Limits
from pkgjail.jails.limits import describe_limits
from pkgjail.jails.run import run_in_jail
from pkgjail.sandbox.syscalls import PR_SET_DUMPABLE, prctl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOP = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "memory", "pids")
ORDINARY = 1000
MIB = 1 << 20
# In a shell's script: the group that the shell is in.
OWN = "/sys/fs/cgroup$(dd if=/proc/self/cgroup bs=1 skip=3 2>/dev/null)"
CASES: dict[str, Callable[[Path], None]] = {}


def manifest() -> Manifest:
    """Busybox, and its names that the cases use."""
    header = Header(
        schema=1, distribution=Distribution(id="debian", version="12"), architecture="amd64",
        policy="sha256:0", whitelists=(), blacklists=(), recommends=False, essential=False,
    )  # fmt: skip
    links = ("cat", "dd", "kill", "mkdir", "mount", "sh", "sleep", "tail", "timeout", "true", "unshare")
    size = os.stat("/bin/busybox").st_size
    files = [
        FileEntry(path=b"/", kind="directory", mode=0o755),
        FileEntry(path=b"/bin", kind="directory", mode=0o755),
        FileEntry(path=b"/bin/busybox", kind="regular", mode=0o755, size=size),
        *(
            FileEntry(path=f"/bin/{n}".encode(), kind="symlink", mode=0o777, target=b"/bin/busybox")
            for n in links
        ),
    ]
    files.sort(key=lambda entry: entry.path)
    return Manifest(header=header, packages=(), dependencies=(), files=tuple(files))


MANIFEST = manifest()


def sh(script: str, **limits: float) -> tuple[int, str]:
    """The exit status and the output of a script in a jail with these limits."""
    reading, writing = os.pipe()
    saved = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        options = JailOptions(limits=Limits(**limits), environment={"PATH": "/bin"}, plan="binds")  # type: ignore[arg-type]  # numbers as the table has them
        status = run_in_jail(MANIFEST, ["sh", "-c", script], options).returncode
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        with os.fdopen(reading) as output:
            said = output.read()
    return status, said


def refusal(script: str = "true", **limits: float) -> str:
    """Return the message if the script may not run, or not to its end."""
    try:
        status, _ = sh(script, **limits)
    except JailError as error:
        return str(error)
    return f"not refused: {status}"


def case(function: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[function.__name__] = function
    return function


@case
def a_fork_bomb_stays_below_the_limit(_group: Path) -> None:
    """1 shell and 19 more."""
    status, said = sh("i=0; while [ $i -lt 90 ]; do sleep 60 & i=$((i+1)); echo $i; done", pids=20)
    assert status != 0
    assert said.split()[-1] == "19", said
    status, said = sh("b() { b | b & }; b; sleep 1; cat /proc/[0-9]*/stat", pids=20)
    assert said.count("\n") <= 21, said  # and init


@case
def memory_beyond_the_limit_ends_the_jail(_group: Path) -> None:
    for script in (
        "tail /dev/zero",
        "tail /dev/zero & sleep 1000",
        "dd if=/dev/zero of=/tmp/x bs=1M count=300",
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=300",
    ):
        assert refusal(script, memory=100 * MIB) == str(OutOfMemoryError()), script


@case
def memory_below_the_limit_is_free(_group: Path) -> None:
    assert sh("dd if=/dev/zero of=/tmp/x bs=1M count=50; exit 5", memory=200 * MIB)[0] == 5


@case
def a_signal_is_not_taken_for_the_limit(_group: Path) -> None:
    assert sh("kill -9 $$", memory=200 * MIB)[0] == 137


@case
def processor_time_is_held(_group: Path) -> None:
    """0.2 of a processor; the set-up is in it, and what pkgjail used before is not."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    sh("timeout 4 sh -c 'while :; do :; done'", cpus=0.2)
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.35 * took, f"{used:.2f} s of {took:.2f} s"


@case
def the_settings_are_the_limits(_group: Path) -> None:
    """As the jail itself can read them, and not write."""
    files = ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
    script = f"cd {OWN} && for f in {' '.join(files)}; do [ -e $f ] && cat $f; done"
    status, said = sh(script, memory=64 * MIB, cpus=1.5, pids=30)
    lines = said.splitlines()
    assert status == 0
    assert [line for line in lines if line != "0"] == [str(64 * MIB), "1", "150000 100000", "32"], lines


@case
def the_jail_cannot_lift_its_limits(_group: Path) -> None:
    for attempt in (
        f"echo max > {OWN}/pids.max",
        f"echo max > {OWN}/memory.max",
        f"echo 0 > {OWN}/../cgroup.procs",
        f"echo 0 > {OWN}/../pkgjail-caller/cgroup.procs",
        "echo 0 > /sys/fs/cgroup/cgroup.procs",
        f"echo 1 > {OWN}/../cgroup.kill",
        f"mkdir {OWN}/sub",
        "mkdir /tmp/c && mount -t cgroup2 none /tmp/c",
        "unshare -Ur sh -c 'mkdir /tmp/c; mount -t cgroup2 none /tmp/c'",
        "unshare -Urm sh -c 'mount -o remount,rw,bind /sys/fs/cgroup'",
        "unshare -Urm mount -o remount,rw,bind /sys",
        f"unshare -Ur sh -c 'echo max > {OWN}/pids.max'",
        "ulimit -u unlimited && ulimit -Hu 10000000",
    ):
        status, said = sh(f"exec 2>/dev/null; {attempt} && echo done", pids=30, memory=200 * MIB)
        if not attempt.startswith("ulimit"):
            assert "done" not in said, attempt
        # In the same group still, with the same limit.
        status, said = sh(f"{{ {attempt}; }} 2>/dev/null; cat {OWN}/pids.max", pids=30, memory=200 * MIB)
        assert said.split()[-1:] == ["32"], (attempt, status, said)


@case
def the_processes_are_under_what_holds_them(group: Path) -> None:
    """The jail's are in a group below, the caller in the leaf beside."""
    status, said = sh("cat /proc/self/cgroup", pids=9)
    assert status == 0
    assert said.startswith(f"0::/{group.relative_to(TOP)}/pkgjail-jail-"), said


@case
def nothing_is_left(group: Path) -> None:
    """And a second jail finds things as the first did."""
    for _ in range(2):
        assert sh("sleep 1000 & exit 3", pids=9, memory=100 * MIB)[0] == 3
        assert [path.name for path in group.iterdir() if path.is_dir()] == []
        assert (group / "cgroup.procs").read_text().split() == [str(os.getpid())]
        assert (group / "cgroup.subtree_control").read_text().strip() == ""


@case
def jails_at_once_share_the_group(group: Path) -> None:
    """The last to end takes the caller back; until then every limit stays."""
    results: list[str] = []

    def one(number: int) -> None:
        options = JailOptions(limits=Limits(pids=5), environment={"PATH": "/bin"}, plan="binds")
        script = f"sleep {number}; i=0; while [ $i -lt 9 ]; do sleep 9 & i=$((i+1)); done"
        with contextlib.suppress(JailError):
            results.append(
                str(run_in_jail(MANIFEST, ["sh", "-c", script + " 2>/dev/null"], options).returncode)
            )

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["2"] * 4, results
    assert [path.name for path in group.iterdir() if path.is_dir()] == []


@case
def the_plan_says_how(group: Path) -> None:
    told = describe_limits(JailOptions(limits=Limits(memory=MIB, cpus=1.5, pids=9)))
    assert told == {
        "memory": f"{MIB}, by a control group in {group}",
        "cpus": f"1.5, by a control group in {group}",
        "pids": f"9, by a control group in {group}",
    }


@case
def nobody_else_may_be_in_the_group(_group: Path) -> None:
    """It could not be moved out of the way without its own consent."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        assert f"has other processes too (such as {child})" in refusal(memory=MIB)
        if os.geteuid() != 0:
            assert sh("true", pids=9)[0] == 0  # by RLIMIT_NPROC
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def a_controller_that_is_missing_is_refused(group: Path) -> None:
    """In a group that has only that of processes."""
    assert f"{group} has no controller 'memory'" in refusal(memory=MIB, pids=9)
    assert f"{group} has no controller 'cpu'" in refusal(cpus=1)
    assert sh("true", pids=9)[0] == 0


def a_group_of_another_is_refused(group: Path) -> None:
    assert f"{group} is not delegated to this user" in refusal(memory=MIB)
    assert sh("true", pids=9)[0] == 0  # by RLIMIT_NPROC
    told = describe_limits(JailOptions(limits=Limits(pids=9)))
    assert told == {"pids": "9, by RLIMIT_NPROC"}


def the_root_group_serves_root() -> None:
    """It may hold processes and divide itself, so nobody has to move."""
    status, said = sh("cat /proc/self/cgroup; echo $(cat /sys/fs/cgroup/pkgjail*/pids.max)", pids=9, cpus=1)
    assert (status, said.split()[-1]) == (0, "11"), said
    assert said.startswith("0::/pkgjail-jail-"), said
    assert list(TOP.glob("pkgjail-*")) == []


def a_jail_that_is_killed_with_its_caller(group: Path) -> None:
    os.dup2(os.open(group.name, os.O_WRONLY), 1)
    options = JailOptions(limits=Limits(pids=9), environment={"PATH": "/bin"}, plan="binds")
    run_in_jail(MANIFEST, ["sh", "-c", "echo started; sleep 1000"], options)


def the_next_removes_what_is_left(group: Path) -> None:
    assert sh("true", pids=9)[0] == 0
    assert [path.name for path in group.iterdir() if path.is_dir()] == []


def start(place: Path, user: int, work: Callable[[], None]) -> tuple[int, int]:
    """Fork a process that enters the group `place`, becomes `user`, and works; it tells by a pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    said = "ok"
    try:
        (place / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        prctl(PR_SET_DUMPABLE, 1)  # as a program that the user had started
        work()
    except BaseException:  # noqa: BLE001 - nothing may fall through into the parent's code
        said = traceback.format_exc()
    os.write(writing, said.encode())
    os._exit(0)


def told_by(started: tuple[int, int]) -> str:
    child, reading = started
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def new_group(name: str, user: int, controllers: Sequence[str] = CONTROLLERS) -> Path:
    """A group that is delegated to `user`, with these controllers."""
    above = TOP / f"above-{name}-{user}"
    above.mkdir()
    (above / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))
    group = above / name
    group.mkdir()
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, user, user)
    return group


def killed_caller(user: int) -> str:
    group = new_group("killed", user)
    os.mkfifo(group.name)
    os.chown(group.name, user, user)
    child, reading = start(group, user, lambda: a_jail_that_is_killed_with_its_caller(group))
    with open(group.name, "rb") as output:
        assert output.readline() == b"started\n"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert output.read() == b""  # all that had it open are gone
    os.close(reading)
    os.unlink(group.name)
    left = next(group.glob("pkgjail-jail-*"))
    while "populated 1" in (left / "cgroup.events").read_text():
        os.sched_yield()
    return told_by(start(group / "pkgjail-caller", user, lambda: the_next_removes_what_is_left(group)))


def main() -> None:
    """Run every case as root and as an ordinary user."""
    os.chdir("/tmp")
    (TOP / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS))
    for user in (0, ORDINARY):
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_RUNTIME_DIR"] = home = f"/run/{user}"
        os.mkdir(home, 0o700)
        os.chown(home, user, user)
        for name, work in CASES.items():
            group = new_group(name, user)
            tell(user, name, told_by(start(group, user, partial(work, group))))
        tell(user, "a_killed_caller", killed_caller(user))
        group = new_group("poor", user, ["pids"])
        work = partial(a_controller_that_is_missing_is_refused, group)
        tell(user, "a_missing_controller", told_by(start(group, user, work)))
        if user == 0:
            tell(user, "the_root_group", told_by(start(TOP, user, the_root_group_serves_root)))
        else:
            work = partial(a_group_of_another_is_refused, group := new_group("foreign", 0))
            tell(user, "a_foreign_group", told_by(start(group, user, work)))


def tell(user: int, name: str, said: str) -> None:
    sys.stdout.write(f"\ncase {user} {name}: {said}\nend\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
