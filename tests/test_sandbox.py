"""The sandbox: each promise of a jail, tested in a real one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import CommandError, DriftError, JailError
from pkgjail.core.model import record
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment, run_in_jail
from tests.surroundings import binds_of_coverage

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest


# A caller with threads has a monitor between itself and init.
either_way = pytest.mark.parametrize("further_threads", [0, 1])


def jail_options(*binds: UserBind, cwd: bytes = b"/", network: bool = True) -> JailOptions:
    return JailOptions(
        binds=(*binds_of_coverage(), *binds), cwd=cwd, network=network, environment=default_environment()
    )


def sh(manifest: Manifest, script: str, options: JailOptions | None = None) -> int:
    """Run a shell script in the jail. Its output is captured by pytest."""
    return run_in_jail(manifest, ["sh", "-c", script], options or jail_options()).returncode


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 7", 7, id="an exit status of its own"),
        pytest.param("kill -KILL $$", 128 + 9, id="ended by a signal"),
        pytest.param("sleep 1000 & exit 3", 3, id="what is left in the background is not waited for"),
        pytest.param("(sleep 0.1 &) ; sleep 0.3", 0, id="orphans are reaped by init"),
    ],
)
def test_the_exit_status_is_that_of_the_command(base_manifest: Manifest, script: str, status: int) -> None:
    assert sh(base_manifest, script) == status


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (["no-such-command"], 127, "there is no such command in the jail"),
        (["/etc/passwd"], 126, "Permission denied"),
    ],
)
def test_a_command_that_cannot_start_has_a_status_of_its_own(
    base_manifest: Manifest, command: list[str], status: int, text: str
) -> None:
    with pytest.raises(CommandError, match=text) as caught:
        run_in_jail(base_manifest, command, jail_options())
    assert caught.value.status == status


def test_no_privilege_is_left(base_manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    """With a capability, a process could unmount a layer and see what is below."""
    assert sh(base_manifest, "cat /proc/self/status") == 0
    fields = dict(line.split(":\t") for line in capfd.readouterr().out.splitlines())
    sets = {name: int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == dict.fromkeys(sets, 0)
    assert fields["NoNewPrivs"] == "1"


@either_way
def test_the_command_is_in_a_session_of_the_jail(further_threads: int) -> None:
    """A process in the caller's session could push input into its terminal (TIOCSTI).

    Init (1) leads the session: only a leader could make a terminal the controlling one. The command leads a
    process group, like a shell's job.
    """
    words = [sys.executable, "-c", _SLEEPER, "cat /proc/$$/stat", str(further_threads)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    process, fields = int(shown.split()[0]), shown.rpartition(")")[2].split()
    group, session, terminal = (int(field) for field in fields[2:5])
    assert (group, session, terminal) == (process, 1, 0)


def test_inherited_descriptors_are_closed(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    descriptor = os.open(tmp_path / "secret", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        script = "echo /proc/self/fd/*; for it in /proc/1/fd/*; do readlink $it; cat $it; done 2>&-; true"
        assert sh(base_manifest, script) == 0
    finally:
        os.close(descriptor)
    # The shell itself may hold one more for the pattern. Root sees which numbers init has, and nothing else.
    shown = set(capfd.readouterr().out.split())
    assert shown <= {f"/proc/self/fd/{n}" for n in (0, 1, 2, 3)}


_CLOSED = """
import os, sys, threading
from pkgjail.api import resolve
from pkgjail.jails.run import prepare
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.sandbox.launch import run
from pkgjail.sandbox.steps import assemble
out = os.fsencode(sys.argv[1])
binds = (UserBind(source=out, destination=b"/srv", writable=True),)
program = assemble(prepare(resolve(["base"], hashed=False), JailOptions(binds=binds)))
for _ in range(int(sys.argv[2])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
for number in range(3):
    os.close(number)
script = "ls -l /proc/self/fd | sed -n 's/.*-> //p' > /srv/shown; exit 5"
os._exit(run(program, (("sh", "-c", script), b"/", (("PATH", "/usr/bin:/bin"),), False)))
"""


@either_way
def test_closed_standard_descriptors_stay_closed(tmp_path: Path, further_threads: int) -> None:
    """A caller with closed standard descriptors: the command gets no pipe of the sandbox in their place."""
    done = subprocess.run([sys.executable, "-c", _CLOSED, tmp_path, str(further_threads)], check=False)
    assert done.returncode == 5
    shown = (tmp_path / "shown").read_text().split()
    # The pipe of the script's own to sed, and the directory that ls reads.
    assert sorted(re.sub(r"\d+", "N", name) for name in shown) == ["/proc/N/fd", "pipe:[N]"]


def test_the_environment_is_that_of_the_options(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "PKG_CONFIG_PATH", "SECRET"):
        monkeypatch.setenv(name, "/leak")
    monkeypatch.setenv("TERM", "dumb")
    options = jail_options()
    assert run_in_jail(base_manifest, ["env"], options).returncode == 0
    shown = dict(line.split("=", 1) for line in capfd.readouterr().out.splitlines())
    # Where coverage measures what is executed too, it adds variables of its own in `execve`.
    shown = {name: value for name, value in shown.items() if not name.startswith("COVERAGE_")}
    assert shown == dict(options.environment)
    assert set(shown) == {"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "USER"}


@pytest.mark.parametrize(
    ("path", "writable"),
    [
        ("/pkgjail-test-new", False),
        ("/usr/bin/pkgjail-test-new", False),
        ("/etc/pkgjail-test-new", False),
        ("/dev/pkgjail-test-new", False),
        ("/sys/pkgjail-test-new", False),
        ("/proc/sys/kernel/core_pattern", False),
        ("/proc/sysrq-trigger", False),
        ("/tmp/pkgjail-test-new", True),
        ("/var/tmp/pkgjail-test-new", True),
        ("/dev/shm/pkgjail-test-new", True),
        ("/dev/null", True),
    ],
)
def test_what_can_be_written(base_manifest: Manifest, path: str, *, writable: bool) -> None:
    assert (sh(base_manifest, f"exec 2>/dev/null; : >> {path} && echo 1 > {path}") == 0) == writable


def test_private_tmp_is_gone_afterwards(base_manifest: Manifest) -> None:
    """Files in the jail's /tmp appear neither on the host nor in the next jail."""
    assert sh(base_manifest, "echo x > /tmp/pkgjail-test-private") == 0
    assert not os.path.exists("/tmp/pkgjail-test-private")
    assert sh(base_manifest, "test -e /tmp/pkgjail-test-private") == 1


def test_there_are_few_devices(base_manifest: Manifest, capfd: pytest.CaptureFixture[str]) -> None:
    assert sh(base_manifest, "ls /dev; ls /dev/pts; echo x > /dev/full") != 0
    assert capfd.readouterr().out.split() == (
        [
            *("fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"),
            *("tty", "urandom", "zero", "ptmx"),
        ]
    )


def test_only_processes_of_the_jail_are_visible(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sh(base_manifest, "cd /proc; echo [0-9]*; cat /proc/1/cmdline") == 0
    assert capfd.readouterr().out.replace("\0", "") == "1 2\npkgjail-init"


def test_without_network_there_is_only_a_loopback(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sh(base_manifest, "cat /proc/net/dev; cat /etc/resolv.conf", jail_options(network=False)) == 0
    lines = capfd.readouterr().out.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_with_network_the_hosts_interfaces_are_there(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sh(base_manifest, "readlink /proc/self/ns/net") == 0
    assert capfd.readouterr().out.strip() == os.readlink("/proc/self/ns/net")


def test_binds(base_manifest: Manifest, tmp_path: Path) -> None:
    """A bind is there, writable or not as requested, and the command starts in the requested directory."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("kept")
    (tmp_path / "out").mkdir()
    inside, outside = os.fsencode(tmp_path / "in"), os.fsencode(tmp_path / "out")
    options = jail_options(
        UserBind(source=inside, destination=b"/srv/in", writable=False),
        UserBind(source=outside, destination=b"/srv/out", writable=True),
        cwd=b"/srv/out",
    )
    assert sh(base_manifest, "cat ../in/file > copy && ! echo x 2>/dev/null > ../in/file", options) == 0
    assert (tmp_path / "out" / "copy").read_text() == "kept"
    assert (tmp_path / "in" / "file").read_text() == "kept"


def test_what_a_read_only_bind_does_not_prevent(spack_manifest: Manifest, tmp_path: Path) -> None:
    """Commands can write to FIFOs and connect to sockets, as docs/security.md says."""
    os.mkfifo(tmp_path / "fifo")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    bind = UserBind(source=os.fsencode(tmp_path), destination=b"/srv", writable=False)
    code = """
import socket
open("/srv/fifo", "w").write("fifo")
ours = socket.socket(socket.AF_UNIX)
ours.connect("/srv/socket")
ours.send(b"socket")
open("/srv/new", "w")
"""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        assert run_in_jail(spack_manifest, ["python3", "-c", code], jail_options(bind)).returncode == 1
        with listener.accept()[0] as peer:
            assert (os.read(reading, 10), peer.recv(10)) == (b"fifo", b"socket")
    os.close(reading)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "socket"]


def test_a_changed_host_is_not_entered(base_manifest: Manifest) -> None:
    """Every file that differs is named, and the command does not run."""
    lies: dict[bytes, dict[str, Any]] = {
        b"/usr/bin/cat": {"size": 1},
        b"/usr/bin/cp": {"mode": 0o700},
        b"/usr/bin/ls": {"path": b"/usr/bin/zzz-gone"},
    }
    files = [entry._replace(**lies.get(entry.path, {})) for entry in base_manifest.files]
    manifest = replace(base_manifest, files=tuple(sorted(files, key=lambda entry: entry.path)))
    with pytest.raises(DriftError, match="has changed") as caught:
        run_in_jail(manifest, ["true"], jail_options())
    assert {path: mismatch.what for path, mismatch in caught.value.changes} == {
        b"/usr/bin/cat": "size",
        b"/usr/bin/cp": "mode",
        b"/usr/bin/zzz-gone": "missing",
    }


@either_way
def test_a_failure_is_reported(further_threads: int) -> None:
    """Whichever process starts the jail."""
    program = (b"/no-such-root", (), True, "jail", False)
    code = f"""
import threading
from pkgjail.sandbox import launch
for _ in range({further_threads}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
launch.run({program!r}, (("true",), b"/", (), False))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SetupError: build /no-such-root: No such file or directory" in done.stderr


def test_a_missing_bind_source_is_reported(base_manifest: Manifest) -> None:
    gone = UserBind(source=b"/no/such/directory", destination=b"/srv", writable=True)
    with pytest.raises(JailError, match="cannot bind /no/such/directory: No such file"):
        run_in_jail(base_manifest, ["true"], jail_options(gone))


_SLEEPER = """
import sys, threading
from pkgjail.api import resolve
from pkgjail.jails.run import run_in_jail
manifest = resolve(["base"], hashed=False)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.exit(run_in_jail(manifest, ["sh", "-c", sys.argv[1]]).returncode)
"""


@record
class Sleeper:
    """A process that runs a script in a jail and waits."""

    process: subprocess.Popen[bytes]
    marker: str

    def alive(self) -> bool:
        """Check whether a process with the marker in its arguments is left on the host."""
        found = subprocess.run(["pgrep", "-f", f"^sleep {self.marker}"], capture_output=True, check=False)
        return found.returncode == 0


def start_sleeper(script: str, further_threads: int = 0, *, as_job: bool = False) -> Sleeper:
    """Start a jail in another process; with `as_job`, in a process group that this process can continue."""
    marker = f"1000.{time.time_ns()}"
    words = [script.replace("MARKER", marker), str(further_threads)]
    group = os.setpgrp if as_job else None
    process = subprocess.Popen([sys.executable, "-c", _SLEEPER, *words], preexec_fn=group)  # noqa: PLW1509
    sleeper = Sleeper(process=process, marker=marker)
    deadline = time.monotonic() + 30
    while not sleeper.alive():
        assert time.monotonic() < deadline, "the jail did not start"
        time.sleep(0.02)
    return sleeper


def gone(sleeper: Sleeper) -> bool:
    """Check whether the whole jail ends within a moment."""
    deadline = time.monotonic() + 10
    while sleeper.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not sleeper.alive()


@either_way
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_relayed(number: signal.Signals, further_threads: int) -> None:
    """The command handles the signals that the caller receives."""
    sleeper = start_sleeper(f"trap 'exit 40' {number.name[3:]}; sleep MARKER & wait", further_threads)
    sleeper.process.send_signal(number)
    assert sleeper.process.wait(10) == 40
    assert gone(sleeper)


@either_way
def test_an_unhandled_signal_ends_the_jail(further_threads: int) -> None:
    sleeper = start_sleeper("exec sleep MARKER", further_threads)
    sleeper.process.terminate()
    assert sleeper.process.wait(10) == 128 + signal.SIGTERM
    assert gone(sleeper)


@either_way
def test_the_jail_dies_with_its_caller(further_threads: int) -> None:
    """Even if the caller is killed and cannot clean up."""
    sleeper = start_sleeper("setsid sleep MARKER & trap '' HUP TERM INT; wait", further_threads)
    sleeper.process.kill()
    sleeper.process.wait(10)
    assert gone(sleeper)
