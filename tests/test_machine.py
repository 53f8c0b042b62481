"""The stage of virtual machines, with real ones: what a command sees, its streams, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.cli.main import main
from pkgjail.core.errors import CommandError, UsageError
from pkgjail.core.options import JailOptions, Limits, UserBind
from pkgjail.core.text import raw_path
from pkgjail.machine import boot
from pkgjail.machine.keeper import find_kept_machine, stop_kept_machine
from pkgjail.machine.model import MachineError, MachineOptions
from pkgjail.machine.run import run_in_machine
from pkgjail.manifest import write_manifest
from pkgjail.stages import run_in_stage
from pkgjail.stages.model import RefusedError
from tests.conftest import SYSTEM_PYTHON
from tests.kernels import FULL, kernel
from tests.terminals import INTERRUPT, SUSPEND, shell
from tests.test_export import FIT, LINE_ENDS, NOT_UTF8, described, odd_tree, seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Caller

NAMES = (*FIT, *LINE_ENDS, *NOT_UTF8)
HOSTS = b"127.0.0.1\tlocalhost pkgjail\n::1\tlocalhost ip6-localhost ip6-loopback\n"
BUSYBOX = "/usr/bin/busybox"
VARIABLES = {"PATH": "/bin", "HOME": "/tmp"}


class Machine:
    """A machine that is kept running for the tests of a module."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.manifest = odd_tree(place / "root", NAMES)
        self.options = MachineOptions(kernel=str(kernel()), idle=600)

    def run(self, *argv: str, terminal: bool = False, **options: object) -> int:
        """Run a command in it."""
        return run_in_machine(
            self.manifest,
            argv,
            JailOptions(environment=VARIABLES, **options),  # type: ignore[arg-type]
            machine=self.options,
            keep=raw_path(str(self.place)),
            root=os.fsencode(self.place / "root"),
            terminal=terminal,
        )

    def sh(self, script: str) -> int:
        """Run a script of busybox's shell."""
        return self.run(BUSYBOX, "sh", "-c", script)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("machine")
    yield Machine(place)
    stop_kept_machine(raw_path(str(place)))


@contextlib.contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """Have descriptor 0 read this."""
    reading, writing = os.pipe()
    before = os.dup(0)

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        writer.join()


# --- what a command sees ------------------------------------------------------------------------------


def test_exactly_the_manifest(machine: Machine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Names of any bytes, kinds, modes, contents and links, and no others but the kernel's directories."""
    entries = machine.manifest.files
    tops = {entry.path for entry in entries if entry.path.count(b"/") == 1} - {b"/"}
    assert machine.run(BUSYBOX, "ls", "-a", "/") == 0
    listed = set(capfdbinary.readouterr().out.split(b"\n")) - {b"", b".", b".."}
    assert listed == {top[1:] for top in tops} | {b"dev", b"sys"}
    walked = sorted(os.fsdecode(path[1:]) for path in tops - {b"/proc"})
    assert machine.run(BUSYBOX, "tar", "-c", "-C", "/", "-f", "-", *walked) == (0 if os.geteuid() == 0 else 1)
    found = seen(capfdbinary.readouterr().out)
    expected = described(
        [
            entry if entry.kind == "symlink" else entry._replace(mode=entry.mode & 0o1777)
            for entry in entries
            if entry.path not in {b"/", b"/proc"}
        ],
        HOSTS,
    )
    assert found == expected


def test_no_right_and_nothing_of_the_caller(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """No capability, no new privilege, no writing, the variables and ids that were given, no descriptor."""
    script = (
        "id -u; id -g; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; env | sort; umask; pwd;"
        "for each in /proc/self/fd/*; do readlink $each | cut -c1-5; done; ls /dev;"
        "touch /usr/x || echo refused; touch /x || echo refused; touch /proc/sys/kernel/x || echo refused;"
        "mount -t tmpfs x /tmp || echo refused; mknod /tmp/x b 254 0 || echo refused; kill -9 1; echo alive"
    )
    before = os.umask(0o027)
    try:
        assert machine.sh(script) == 0
    finally:
        os.umask(before)
    assert capfd.readouterr().out.splitlines() == [
        *(str(os.geteuid()), str(os.getegid())),
        *("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"),
        *("HOME=/tmp", "PATH=/bin", "PWD=/", "SHLVL=1", "0027", "/"),
        *("pipe:", "pipe:", "pipe:"),
        *(
            "fd",
            "full",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
        ),
        "zero",
        *("refused",) * 5,
        "alive",
    ]


def test_each_command_has_its_own_processes(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """All that a command leaves is killed at its end, and the next does not see it."""
    assert machine.sh("sleep 1000 & echo $$") == 0
    assert machine.sh("set -- /proc/[0-9]*; echo $#; ps | grep -c '[s]leep'") == 1
    assert capfd.readouterr().out.splitlines() == ["2", "2", "0"]


# --- streams and ends ---------------------------------------------------------------------------------

ENDS = {
    "it succeeds": ("exit 0", 0),
    "it fails": ("exit 7", 7),
    "the largest status": ("exit 255", 255),
    "a fault of memory": ("kill -SEGV $$", 139),
    "it is killed": ("kill -KILL $$", 137),
}


@pytest.mark.parametrize(("script", "status"), ENDS.values(), ids=ENDS)
def test_exit_status(machine: Machine, script: str, status: int) -> None:
    """The status is the command's own, or 128 + n after signal n."""
    assert machine.sh(script) == status


def test_a_command_that_cannot_be_executed(machine: Machine) -> None:
    """It has the statuses of a shell, and the words of the jail."""
    with pytest.raises(CommandError, match="there is no such command") as missing:
        machine.run("no-such-command")
    with pytest.raises(CommandError, match="Permission denied") as refused:
        machine.run("/etc/hosts")
    assert (missing.value.status, refused.value.status) == (127, 126)


def test_streams_are_apart_and_exact(machine: Machine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Any bytes, also many more than fit in a window; output and errors do not mix; input ends."""
    content = os.urandom(3 << 20)
    with standard_input(content):
        assert machine.sh("tee /dev/stderr | wc -c >&2; seq 100000") == 0
    shown = capfdbinary.readouterr()
    count = b"%d\n" % len(content)
    assert hashlib.sha256(shown.err).digest() == hashlib.sha256(content + count).digest()
    assert shown.out == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_input_that_nobody_reads(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """A command that ends early, or reads nothing, does not wait for its input."""
    with standard_input(b"x" * (1 << 20)):
        assert machine.sh("head -c 3; exec <&-; sleep 0.2; echo; echo end") == 0
    assert capfd.readouterr().out == "xxx\nend\n"


@contextlib.contextmanager
def in_place_of(*replaced: tuple[int, int]) -> Iterator[None]:
    """Have descriptors of this process be others: pairs of the number and what it is to be."""
    before = [(number, os.dup(number)) for number, _ in replaced]
    for number, other in replaced:
        os.dup2(other, number)
    try:
        yield
    finally:
        for number, saved in before:
            os.dup2(saved, number)
            os.close(saved)


def test_a_terminal_of_the_callers_own(machine: Machine) -> None:
    """Keys and the size of the caller's terminal reach the command, and its status comes back."""
    assert machine.sh("true") == 0
    script = "trap 'stty size' WINCH; trap 'exit 9' INT; tty; echo ready; while :; do sleep 0.1; done"
    leader, follower = os.openpty()
    shown: list[bytes] = [b""]

    def wait_for(words: bytes) -> None:
        while words not in shown[0]:
            shown[0] += os.read(leader, 65536)

    def use() -> None:
        wait_for(b"ready")
        fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)  # as the kernel does for a controlling terminal
        wait_for(b"33 77")
        os.write(leader, INTERRUPT)

    user = threading.Thread(target=use)
    user.start()
    try:
        with in_place_of((0, follower), (1, follower)):
            assert machine.run(BUSYBOX, "sh", "-c", script, terminal=True) == 9
        user.join()
        assert b"/dev/pts/0" in shown[0]
    finally:
        os.close(leader)
        os.close(follower)


def test_output_that_nobody_reads(machine: Machine) -> None:
    """The command is told by SIGPIPE, as if its output went to the reader directly."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with in_place_of((1, writing)):
            assert machine.sh("yes") == 128 + signal.SIGPIPE
    finally:
        os.close(writing)


def test_interrupted_twice(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """A command that ignores the first interrupt is given up at the second."""
    assert machine.sh("true") == 0

    def interrupt() -> None:
        while "ready" not in capfd.readouterr().out:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=interrupt)
    user.start()
    with pytest.raises(KeyboardInterrupt, match="interrupted twice"):
        machine.sh("trap '' INT; echo ready; while :; do sleep 1; done")
    user.join()


def test_no_descriptors(machine: Machine) -> None:
    """A caller without standard input has a command without any."""
    before = os.dup(0)
    os.close(0)
    try:
        assert machine.sh("read x; exit $?") == 1
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_two_commands_at_once(machine: Machine, tmp_path: Path) -> None:
    """Commands of other processes run beside each other, with their own streams and ends."""
    assert machine.sh("true") == 0
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            with open(tmp_path / str(number), "wb") as file:
                os.dup2(file.fileno(), 1)
            os._exit(machine.sh(f"for i in $(seq 2000); do echo {number}; done; sleep 1; exit {number}"))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [0, 1, 2, 3]
    for number in range(4):
        assert (tmp_path / str(number)).read_text() == f"{number}\n" * 2000


def test_what_a_killed_caller_leaves(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """The keeper kills the command of a caller that is gone."""
    assert machine.sh("true") == 0
    child = os.fork()
    if not child:
        machine.sh("sleep 1000")
        os._exit(0)
    found = find_kept_machine(raw_path(str(machine.place)))
    while not (found and found.commands):
        found = find_kept_machine(raw_path(str(machine.place)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 10
    while found and found.commands and time.monotonic() < end:
        found = find_kept_machine(raw_path(str(machine.place)))
    assert found
    assert found.commands == 0
    assert capfd.readouterr().err == ""


def test_another_machine_for_other_directories(machine: Machine, tmp_path: Path) -> None:
    """No command sees more than it asked for: other directories need another machine."""
    with pytest.raises(MachineError, match=r"cannot share .*: the kernel .* has no 9p"):
        machine.run(
            BUSYBOX, "true", binds=(UserBind(source=os.fsencode(tmp_path), destination=b"/x", writable=True),)
        )


# --- machines of their own ----------------------------------------------------------------------------


class Staged:
    """Runs commands of a user in machines, each in one of its own."""

    def __init__(self, user: Caller) -> None:
        self.user = user
        self.manifest = odd_tree(user.home / "root", FIT)
        write_manifest(self.manifest, user.home / "m.jsonl")
        (user.home / "data").mkdir()
        subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)

    def words(self, *options: str) -> list[str]:
        """The arguments before the command."""
        own = ["--stage", "vm", "--kernel", str(kernel()), "--root", "root"]
        return ["run", *own, *options, "m.jsonl", "--"]

    def sh(self, script: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a script of busybox's shell; once more if qemu fails an assertion of its own, as 7.2 may."""
        words = [*self.words(*options), BUSYBOX, "sh", "-c", script]
        done = self.user.pkgjail(*words, **more)
        return (
            self.user.pkgjail(*words, **more) if "msix_table_mmio_write: Assertion" in done.stderr else done
        )

    def started(self, script: str, *options: str) -> subprocess.Popen[str]:
        """Start a script of busybox's shell, with pipes for its output."""
        settings = self.user.options(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        del settings["capture_output"]
        words = [SYSTEM_PYTHON, "-m", "pkgjail", *self.words(*options), BUSYBOX, "sh", "-c", script]
        return subprocess.Popen(words, **settings)


@pytest.fixture(params=["caller", "member"])
def staged(request: pytest.FixtureRequest) -> Staged:
    return Staged(request.getfixturevalue(request.param))


def test_a_copied_directory_comes_back(staged: Staged) -> None:
    """The user's own directory, changed in the machine, is changed outside in the same way."""
    data = staged.user.home / "data"
    (data / "old").mkdir()
    (data / "old/file").write_text("given\n")
    (data / "kept").write_text("kept\n")
    subprocess.run(["chown", "--recursive", f"{staged.user.uid}:{staged.user.uid}", data], check=True)
    script = (
        "cd /srv; cat old/file; rm -r old; mkdir new; echo made > new/f; ln -s f new/l; echo more >> kept"
    )
    done = staged.sh(f"{script}; touch /opt/x", "--bind", f"{data}:/srv", "--ro-bind", f"{data}:/opt")
    assert (done.returncode, done.stdout) == (1, "given\n"), done.stderr
    assert "Read-only file system" in done.stderr
    assert "copied into the machine" in done.stderr
    names = sorted(path.relative_to(data).as_posix() for path in data.rglob("*"))
    assert names == ["kept", "new", "new/f", "new/l"], done.stderr
    assert (data / "kept").read_text() == "kept\nmore\n"
    assert (data / "new/l").read_text() == "made\n"
    assert {path.lstat().st_uid for path in data.rglob("*")} == {staged.user.uid}


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every option of a machine reaches it; a file that is bound is its content."""
    write_manifest(odd_tree(tmp_path / "root", FIT), tmp_path / "m.jsonl")
    (tmp_path / "data").mkdir()
    (tmp_path / "given").write_text("given\n")
    monkeypatch.chdir(tmp_path / "data")
    script = "cat /given; df -m /tmp | tail -n 1; grep -c ^processor /proc/cpuinfo; ls /sys/class/net"
    machine = ["--kernel", str(kernel()), "--memory", "300M", "--cpus", "2", "--scratch", "700M"]
    shown = ["--no-network", "--cwd", "--share", "copy", "--ro-bind", f"{tmp_path}/given:/given"]
    words = ["run", "--stage", "vm", *machine, "--root", f"{tmp_path}/root", *shown, f"{tmp_path}/m.jsonl"]
    assert main([*words, "--", BUSYBOX, "sh", "-c", f"{script}; echo 1 > new"]) == 0
    said = capfd.readouterr()
    given, disk, processors, *networks = said.out.splitlines()
    assert (given, processors, networks) == ("given", "2", ["lo"])
    assert 600 < int(disk.split()[1]) <= 700
    assert f"{tmp_path}/data: copied into the machine; what changes there" in said.err
    assert (tmp_path / "data/new").read_text() == "1\n"


def test_memory_runs_out(staged: Staged) -> None:
    """The command is killed and not the machine; the status and the words say why."""
    done = staged.sh("x=$(seq 1000); while :; do x=$x$x; done", "--memory", "128M")
    assert done.returncode == 137
    assert "the machine ran out of memory" in done.stderr


def test_a_disk_for_scratch(staged: Staged) -> None:
    """More than the memory can be written to a disk; when it is full, the command is told."""
    script = (
        "dd if=/dev/zero of=/tmp/x bs=1M count=400 2>/dev/null && stat -c %s /tmp/x; cat /dev/zero > /tmp/y"
    )
    done = staged.sh(script, "--memory", "300M", "--scratch", "600M")
    assert (done.returncode, done.stdout) == (1, "419430400\n")
    assert "No space left on device" in done.stderr


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _machine_of(caller: int) -> int:
    """The process of qemu that a process started, once it is there."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = subprocess.run(["pgrep", "-P", str(caller), "qemu"], capture_output=True, check=False)
        if found.stdout:
            return int(found.stdout)
        time.sleep(0.05)
    raise AssertionError("no machine was started")


@pytest.mark.parametrize("who", ["qemu", "the caller", "the kernel"])
def test_the_machine_dies(who: str, caller: Caller) -> None:
    """A clear error with a status of its own, and no process is left."""
    staged = Staged(caller)
    with staged.started("echo started; sleep 1000") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().strip() == "started"
        machine = _machine_of(process.pid)
        if who == "the caller":
            process.kill()
        else:
            os.kill(machine, signal.SIGKILL if who == "qemu" else signal.SIGTERM)
        said = process.stderr.read()
        status = process.wait()
    end = time.monotonic() + 10
    while not _ended(machine) and time.monotonic() < end:
        time.sleep(0.05)
    assert _ended(machine)
    if who != "the caller":
        assert status == 125
        assert "the machine is gone" in said


def test_refused_by_name(machine: Machine) -> None:
    """All that a machine cannot keep is refused by name."""
    options = JailOptions(map_root=True, share_ipc=True, devices=(b"/dev/null",), limits=Limits(pids=5))
    with pytest.raises(RefusedError) as refused:
        run_in_stage(machine.manifest, ["x"], options, stage="vm")
    words = str(refused.value)
    for each in ("user 0", "shared memory", "devices"):
        assert each in words


def test_parts_of_processors(machine: Machine) -> None:
    """A machine with more processors than were allowed would be weaker than what was asked for."""
    with pytest.raises(UsageError, match=r"whole processors: it cannot have 1\.5"):
        machine.run(BUSYBOX, "true", limits=Limits(cpus=1.5))


FAILING = {
    "its kernel panics": ({}, "rdinit=/no", r"(?s)the guest's kernel panicked; its last words:\n  .*panic"),
    "it has too little memory": ({"memory": 48 << 20}, "", "said nothing; it may need more memory"),
}


@pytest.mark.parametrize(("changed", "argument", "words"), FAILING.values(), ids=FAILING)
def test_a_machine_that_does_not_start(
    machine: Machine, changed: dict[str, Any], argument: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says why, as far as the guest's console does."""
    monkeypatch.setattr(boot, "EMULATED", argument)
    options = replace(machine.options, **changed)
    root = os.fsencode(machine.place / "root")
    with pytest.raises(MachineError, match=words):
        run_in_machine(machine.manifest, [BUSYBOX, "true"], machine=options, root=root)


def test_a_terminal(caller: Caller) -> None:
    """A program at a terminal has its size, is told of a change, and gets keys as signals."""
    staged = Staged(caller)
    script = "trap 'stty size' WINCH; trap 'exit 9' INT; stty size; echo ready; while :; do sleep 0.1; done"
    words = [SYSTEM_PYTHON, "-m", "pkgjail", *staged.words("-t"), BUSYBOX, "sh", "-c", f'"{script}"']
    with shell(caller.options()["env"], caller.uid) as typed:
        typed.run(f"cd {caller.home}")
        typed.wait_for_prompt()
        typed.run(" ".join(words))
        typed.wait_for("24 1000\r\nready")
        typed.resize(33, 77)
        typed.wait_for("33 77")
        typed.type(INTERRUPT)
        typed.wait_for_prompt()
        assert typed.status() == 9


def test_a_stopped_command(caller: Caller) -> None:
    """A command that is stopped at its terminal stops pkgjail, as a job of the shell, and goes on with it."""
    staged = Staged(caller)
    script = "echo ready; while :; do sleep 0.1; echo on; done"
    words = [SYSTEM_PYTHON, "-m", "pkgjail", *staged.words("-t"), BUSYBOX, "sh", "-c", f'"{script}"']
    with shell(caller.options()["env"], caller.uid) as typed:
        typed.run(f"cd {caller.home}")
        typed.wait_for_prompt()
        typed.run(" ".join(words))
        typed.wait_for("\nready")
        typed.type(SUSPEND)
        typed.wait_for("Stopped")
        typed.wait_for_prompt()
        typed.run("fg")
        typed.wait_for("\non.*\non")
        typed.type(INTERRUPT)
        typed.wait_for_prompt()
        assert typed.status() == 128 + signal.SIGINT


@pytest.mark.long
def test_a_shared_directory(caller: Caller) -> None:
    """With 9p, the directory is the host's own: changes are there at once, both ways."""
    staged = Staged(caller)
    data = staged.user.home / "data"
    script = (
        "echo in > /srv/in; while [ ! -e /srv/out ]; do sleep 0.1; done; cat /srv/out; mv /srv/in /srv/moved"
    )
    options = ("--kernel", str(kernel(FULL)), "--share", "9p", "--bind", f"{data}:/srv")
    with staged.started(f"cd /srv; {script}", *options) as process:
        end = time.monotonic() + 60
        while not (data / "in").exists() and time.monotonic() < end:
            time.sleep(0.1)
        (data / "new").write_text("out\n")
        (data / "new").rename(data / "out")
        assert process.stdout
        assert process.stdout.read() == "out\n"
        assert process.wait() == 0
    assert sorted(path.name for path in data.iterdir()) == ["moved", "out"]
    assert re.fullmatch("in\n", (data / "moved").read_text())
