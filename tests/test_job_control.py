"""Signals and job control: a jail's command is a job of the shell that started it.

Each case runs in a real terminal with `bash -i`, unless it concerns commands without a terminal.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pkgjail.jails.run import run_in_jail
from pkgjail.manifest import write_manifest
from pkgjail.sandbox.signals import last_stop
from tests.sleepers import Marked
from tests.terminals import INTERRUPT, QUIT, SUSPEND, shell
from tests.test_sandbox import either_way, gone, jail_options, start_sleeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.terminals import Shell

# The jail's command has the caller's terminal, or one of its own.
either_terminal = pytest.mark.parametrize(
    "terminal", [pytest.param("", id="the caller's"), pytest.param("--tty", id="its own")]
)


@pytest.fixture
def keyboard() -> Iterator[Shell]:
    with shell(os.environ) as started:
        yield started


@pytest.fixture
def jail(spack_manifest: Manifest, tmp_path: Path) -> Callable[..., str]:
    """Return the words to type for a command in a jail in which the directory `tmp_path` is writable."""
    write_manifest(spack_manifest, tmp_path / "m.jsonl")

    def words(command: str, terminal: str = "") -> str:
        pkgjail = f"{sys.executable} -m pkgjail run {terminal} --bind {tmp_path}:/srv"
        return f"{pkgjail} {tmp_path}/m.jsonl -- {command}"

    return words


@pytest.fixture
def marked() -> Marked:
    return Marked()


@either_terminal
@pytest.mark.parametrize(("key", "statuses"), [(INTERRUPT, {130}), (QUIT, {1, 2})])
def test_a_key_ends_a_whole_build(  # noqa: PLR0913, PLR0917 - fixtures and parameters
    keyboard: Shell,
    jail: Callable[..., str],
    tmp_path: Path,
    marked: Marked,
    terminal: str,
    key: bytes,
    statuses: set[int],
) -> None:
    """`make` and its children: none of them goes on to write files. At QUIT, make exits.

    GNU make 4.3 has a race: if it has just reaped a child when the signal comes, its handler waits for that
    child again and ends with status 2 (reap_children in its job.c).
    """
    rules = "".join(
        f"{name}:\n\tsleep {marked.seconds}; echo {name} > /srv/{name}\n" for name in ("one", "two")
    )
    (tmp_path / "Makefile").write_text(f"all: one two\n{rules}")
    keyboard.run("ulimit -c 0")
    keyboard.wait_for_prompt()  # otherwise it could be taken for that after make
    keyboard.run(jail("make -j2 -f /srv/Makefile", terminal))
    marked.wait_for("S", "S")
    keyboard.type(key)
    shown = keyboard.wait_for_prompt()
    marked.wait_for()
    in_race = b"make: *** wait: No child processes." in shown
    assert keyboard.status() in (statuses | {2} if in_race else statuses), shown
    assert sorted(os.listdir(tmp_path)) == ["Makefile", "m.jsonl"]


def test_a_second_interrupt_kills_with_a_message(
    keyboard: Shell, jail: Callable[..., str], marked: Marked
) -> None:
    """For a command that ignores the first one."""
    keyboard.run(jail(f"sh -c 'trap \"\" INT; (setsid sleep {marked.seconds} &); sleep {marked.seconds}'"))
    marked.wait_for("S", "S")
    keyboard.type(INTERRUPT)
    keyboard.wait_for(r"\^C")
    time.sleep(0.5)  # two keys, not one
    assert marked.states() == ["S", "S"]
    keyboard.type(INTERRUPT)
    keyboard.wait_for("pkgjail: interrupted twice: killed the jail\r\n")
    keyboard.wait_for_prompt()
    marked.wait_for()
    assert keyboard.status() == 130


def test_two_signals_of_one_key_count_once() -> None:
    """A parent that also received the key from the terminal may relay it."""
    sleeper = start_sleeper("trap 'sleep 0.5; exit 40' INT; sleep MARKER & wait")
    for _ in range(2):
        sleeper.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert sleeper.process.wait(10) == 40
    assert gone(sleeper)


@either_terminal
def test_a_job_can_be_suspended_and_resumed(
    keyboard: Shell, jail: Callable[..., str], marked: Marked, terminal: str
) -> None:
    """The shell has the terminal meanwhile, in its former state; the job ends with its own status."""
    keyboard.run(jail(f"sh -c 'sleep {marked.seconds}; exit 6'", terminal))
    marked.wait_for("S")
    for again in ("bg", "fg"):
        keyboard.type(SUSPEND)
        keyboard.wait_for_prompt()
        marked.wait_for("T")
        keyboard.run("jobs; stty -a | tr ' ' '\\n' | grep icanon")
        keyboard.wait_for(r"Stopped.*\nicanon\r\n")
        keyboard.wait_for_prompt()
        if again == "bg" and not terminal:
            keyboard.run("bg")
            marked.wait_for("S")
        keyboard.run("fg")
        marked.wait_for("S")
    subprocess.run(["pkill", "-f", f"^sleep {marked.seconds}"], check=True)
    keyboard.wait_for_prompt()
    assert keyboard.status() == 6


def test_a_command_that_stops_itself_is_a_stopped_job(keyboard: Shell, jail: Callable[..., str]) -> None:
    keyboard.run(jail("sh -c 'kill -STOP $$; exit 6'"))
    keyboard.wait_for(r"Stopped")
    keyboard.wait_for_prompt()
    keyboard.run("fg")
    keyboard.wait_for_prompt()
    assert keyboard.status() == 6


def test_a_caller_does_not_stop_if_no_process_would_continue_it(
    spack_manifest: Manifest, tmp_path: Path
) -> None:
    """No shell watches a service or a cron job, which would stay stopped for ever."""
    write_manifest(spack_manifest, tmp_path / "m.jsonl")
    words = [sys.executable, "-m", "pkgjail", "run", f"{tmp_path}/m.jsonl", "--", "sh", "-c"]
    done = subprocess.run(
        [*words, "kill -STOP $$; kill -TSTP $$; exit 6"], start_new_session=True, timeout=60, check=False
    )
    assert done.returncode == 6


def test_many_stops_count_once() -> None:
    """A command that stops and resumes while its caller is stopped leaves a pipe full of signals."""
    reading, writing = os.pipe()
    os.write(writing, bytes([signal.SIGTSTP]) * 60_000 + bytes([signal.SIGTTIN]))
    assert last_stop(reading) == signal.SIGTTIN
    os.close(writing)
    assert last_stop(reading) == 0
    os.close(reading)


def test_a_terminal_passed_to_another_process_does_not_block(
    spack_manifest: Manifest, tmp_path: Path
) -> None:
    """A process outside, such as in another jail, has the jail's end open after the jail has ended."""
    write_manifest(spack_manifest, tmp_path / "m.jsonl")
    code = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/srv/s'); print('given', flush=True)"
    code += "; socket.send_fds(s, [b'x'], [1]); s.recv(1); print('last'); raise SystemExit(6)"
    words = ["run", "--tty", "--bind", f"{tmp_path}:/srv", f"{tmp_path}/m.jsonl", "--", "python3", "-c", code]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(1)
        with subprocess.Popen([sys.executable, "-m", "pkgjail", *words], stdout=subprocess.PIPE) as entered:
            peer, _ = listening.accept()
            _, held, _, _ = socket.recv_fds(peer, 1, 1)
            peer.close()
            try:
                assert entered.wait(timeout=30) == 6
            finally:
                entered.kill()
                os.close(held[0])
            assert entered.stdout is not None
            assert entered.stdout.read().split() == [b"given", b"last"]


def test_a_shell_inside_has_jobs_of_its_own(
    keyboard: Shell, jail: Callable[..., str], marked: Marked
) -> None:
    """It gets its keys; when it suspends itself, the shell outside has the terminal until `fg`."""
    keyboard.run(jail("x").replace("pkgjail run", "pkgjail shell").removesuffix(" -- x"))
    keyboard.wait_for(r"[#$] $")
    keyboard.run(f"sleep {marked.seconds}")
    marked.wait_for("S")
    keyboard.type(SUSPEND)
    keyboard.wait_for(r"Stopped.*[#$] $")
    marked.wait_for("T")
    keyboard.run("suspend")
    keyboard.wait_for_prompt()
    keyboard.run("uname -n; jobs")
    keyboard.wait_for(r"Stopped.*pkgjail shell")
    keyboard.wait_for_prompt()
    keyboard.run("fg")
    keyboard.run("jobs")
    keyboard.wait_for(f"Stopped *sleep {marked.seconds}")
    keyboard.run("fg")
    marked.wait_for("S")
    keyboard.type(INTERRUPT)
    marked.wait_for()
    keyboard.run("exit 4")
    keyboard.wait_for_prompt()
    assert keyboard.status() == 4


@either_terminal
def test_a_new_window_size_is_signalled(keyboard: Shell, jail: Callable[..., str], terminal: str) -> None:
    """To the command and its children."""
    keyboard.run(
        jail("bash -c 'trap \"stty size; exit 3\" WINCH; echo up; while :; do sleep 0.1; done'", terminal)
    )
    keyboard.wait_for(r"\nup\r\n")
    keyboard.resize(31, 900)
    keyboard.wait_for(r"31 900")
    keyboard.wait_for_prompt()
    assert keyboard.status() == 3


@either_terminal
def test_no_process_is_left_after_the_window_is_closed(
    keyboard: Shell, jail: Callable[..., str], marked: Marked, terminal: str
) -> None:
    keyboard.run(jail(f"sh -c 'sleep {marked.seconds}'", terminal))
    marked.wait_for("S")
    keyboard.hang_up()
    marked.wait_for()
    assert marked.states() == []


def test_a_background_job_does_not_read_keys(
    keyboard: Shell, jail: Callable[..., str], marked: Marked
) -> None:
    """With a terminal of its own it waits to be in the foreground, as an editor does."""
    keyboard.run(jail(f"sh -c 'sleep {marked.seconds}; exit 6'", "--tty") + " &")
    keyboard.wait_for_prompt()
    keyboard.type(b"\n")
    keyboard.run("wait -n; jobs")
    keyboard.wait_for(r"Stopped")
    keyboard.wait_for_prompt()
    keyboard.run("fg")
    marked.wait_for("S")
    keyboard.type(INTERRUPT)
    keyboard.wait_for_prompt()
    assert keyboard.status() == 130


@either_way
def test_a_signal_reaches_the_whole_group(further_threads: int) -> None:
    """Without a terminal too: a supervisor's TERM ends a build's children before the jail ends."""
    script = (
        "(trap 'echo child > /dev/stderr; exit' TERM; sleep MARKER & wait) & trap 'wait; exit 40' TERM; wait"
    )
    sleeper = start_sleeper(script, further_threads)
    sleeper.process.terminate()
    assert sleeper.process.wait(10) == 40
    assert gone(sleeper)


@either_way
def test_a_supervisor_can_stop_and_continue(further_threads: int) -> None:
    """As a shell does with a job."""
    sleeper = start_sleeper("exec sleep MARKER", further_threads, as_job=True)
    marked = Marked(f"sleep {sleeper.marker}")
    sleeper.process.send_signal(signal.SIGTSTP)
    marked.wait_for("T")
    assert os.waitpid(sleeper.process.pid, os.WUNTRACED)[1] == (signal.SIGTSTP << 8) | 0x7F
    sleeper.process.send_signal(signal.SIGCONT)
    marked.wait_for("S")
    sleeper.process.terminate()
    assert sleeper.process.wait(10) == 128 + signal.SIGTERM


_IGNORES = "sed -n 's/^Sig\\(Ign\\|Blk\\):.//p' /proc/self/status; exec sleep MARKER"


def test_signals_that_the_caller_ignores_are_ignored_inside(capfd: pytest.CaptureFixture[str]) -> None:
    """As nohup(1) and a script's `&` need it. A second signal does not kill either."""
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        sleeper = start_sleeper(_IGNORES)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in (*ignored, *ignored):
        sleeper.process.send_signal(number)
        time.sleep(0.3)
    assert sleeper.alive()
    sleeper.process.terminate()
    assert sleeper.process.wait(10) == 128 + signal.SIGTERM
    found = int(capfd.readouterr().out.split()[1], 16)
    assert {number for number in signal.Signals if found >> (number - 1) & 1} == set(ignored)


def test_signals_that_the_caller_blocks_are_blocked_inside(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        run_in_jail(base_manifest, ["grep", "SigBlk", "/proc/self/status"], jail_options())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert int(capfd.readouterr().out.split()[1], 16) == 1 << (signal.SIGUSR1 - 1)


def test_a_jail_in_another_thread_leaves_signals_to_the_main_thread(base_manifest: Manifest) -> None:
    """A program that uses the library handles its own signals, and the jail goes on."""
    heard: list[int] = []
    before = {
        n: signal.signal(n, lambda number, _: heard.append(number)) for n in (signal.SIGINT, signal.SIGTSTP)
    }
    status: list[int] = []
    options = jail_options()
    work = threading.Thread(
        target=lambda: status.append(
            run_in_jail(base_manifest, ["sh", "-c", "kill -STOP 0; sleep 1; exit 9"], options).returncode
        )
    )
    try:
        work.start()
        Marked("sh -c kill -STOP 0; sleep 1; exit 9").wait_for("T")
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTSTP):
            os.kill(os.getpid(), number)
        subprocess.run(["pkill", "-CONT", "-f", "^sh -c kill -STOP 0; sleep 1; exit 9"], check=False)
        work.join(30)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert status == [9]
    assert set(heard) == set(before)
