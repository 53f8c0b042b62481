"""The stage `supervised` where no namespace can be made: what a command sees, may do, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.manifest import write_manifest
from pkgjail.stages import STAGES
from tests.conftest import NOBODY, SYSTEM_PYTHON, _caller
from tests.no_namespaces import PREFIX
from tests.sleepers import Marked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

TABLE = Path(__file__).with_name("supervised_attempts.txt")
HELLO = Path(__file__).parent.parent / "examples" / "hello.c"


class Supervised:
    """Runs commands of one user under supervision, with a writable directory `build`."""

    def __init__(self, user: Caller, manifest: Manifest) -> None:
        self.user = user
        self.build = user.home / "build"
        self.build.mkdir()
        write_manifest(manifest, user.home / "m.jsonl")
        (user.home / "secret").write_text("a secret")
        subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)

    def words(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line."""
        stage = ["--stage", "supervised", "--bind", str(self.build), *options, f"{self.user.home}/m.jsonl"]
        return [*PREFIX, SYSTEM_PYTHON, "-m", "pkgjail", "run", *stage, "--", *command]

    def __call__(
        self, *command: str, options: tuple[str, ...] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return self.user.run(self.words(*command, options=options), **{"cwd": self.build, **more})


@pytest.fixture
def run(anyone: Caller, spack_manifest: Manifest) -> Supervised:
    """Runs commands as root, and as an ordinary user, without namespaces."""
    return Supervised(anyone, spack_manifest)


def test_the_default_stage_cannot_be_had_there(run: Supervised) -> None:
    """Protects the other tests: without namespaces there is no jail."""
    words = [word for word in run.words("true") if word not in {"--stage", "supervised"}]
    ran = run.user.run(words)
    assert ran.returncode == 125
    assert "cannot make a jail" in ran.stderr


def test_it_works_here() -> None:
    """Protects that the stage finds nothing at fault on a host that has what it needs."""
    assert STAGES["supervised"].obstacle() == ""


def test_a_compiler_works(run: Supervised) -> None:
    """Protects what the stage is for; the compiler finds a header of the manifest and no other."""
    (run.build / "hello.c").write_bytes(HELLO.read_bytes())
    (run.build / "z.c").write_text("#include <zlib.h>\nint main(void) { return 0; }\n")
    made = run("gcc", "-o", "hello", "hello.c", options=("--cwd",))
    assert made.returncode == 0, made.stderr
    assert "weaker than the default" in made.stderr
    assert run("./hello", options=("--cwd",)).stdout == "C: hello from the jail\n"
    without = run("gcc", "-c", "z.c", options=("--cwd",))
    assert without.returncode == 1
    assert "zlib.h: No such file or directory" in without.stderr


def attempts() -> dict[str, tuple[str, str]]:
    """Return what is tried, by name: an expression of Python's, and a part of what it must print."""
    lines = TABLE.read_text().splitlines()[1:]
    return {name: (what, found) for name, what, found in (line.split(" | ") for line in lines)}


ATTEMPTS = attempts()


@pytest.fixture(scope="module")
def answers(library: Path, spack_manifest: Manifest) -> Iterator[dict[str, str]]:
    """What an ordinary user's program gets for each of `ATTEMPTS`, in one run."""
    with contextlib.contextmanager(_caller)(NOBODY if os.geteuid() == 0 else os.getuid(), library) as made:
        yield _try_all(Supervised(made, spack_manifest))


def _try_all(run: Supervised) -> dict[str, str]:
    made = run.user
    facts = {"secret": f"{made.home}/secret", "home": str(made.home), "pid": os.getpid()}
    lines = ["import os, socket, sys, threading"]
    for name, (what, _) in ATTEMPTS.items():
        lines += [
            f"print({name!r}, end=': ', flush=True)",
            "if os.fork() == 0:",
            f"    try: print(({what.format(**facts)}), flush=True)",
            "    except OSError as e: print(type(e).__name__, e.errno, flush=True)",
            "    os._exit(0)",
            "os.wait()",
        ]
    (run.build / "attempts.py").write_text("\n".join(lines))
    with open(made.home / "secret", encoding="ascii") as given:
        ran = run("python3", "attempts.py", options=("--cwd",), stdin=given)
    assert ran.returncode == 0, ran.stderr
    return dict(line.split(": ", 1) for line in ran.stdout.splitlines() if ": " in line)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempts(answers: dict[str, str], name: str) -> None:
    """Each thing that a program may try is done, or refused with the error of the jail."""
    assert ATTEMPTS[name][1] in answers[name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(("--map-root",), "a command that is user 0", id="root"),
        pytest.param(("--memory", "1G"), "limits of memory", id="limits"),
        pytest.param(("--share-ipc",), "shared memory", id="ipc"),
        pytest.param(("--bind", "/var/tmp:/srv/x"), "at another path, /srv/x", id="a bind elsewhere"),
        pytest.param(("--bind", "{home}"), "what later runs depend on", id="the manifest in a bind"),
        pytest.param(("--ro-bind", "{home}/build/in"), "a read-only bind in", id="binds in binds"),
    ],
)
def test_what_takes_namespaces_is_refused(run: Supervised, options: tuple[str, ...], words: str) -> None:
    """Nothing that is asked for is left out in silence."""
    (run.build / "in").mkdir()
    ran = run("true", options=tuple(each.format(home=run.user.home) for each in options))
    assert ran.returncode == 125
    assert words in ran.stderr


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        pytest.param(("sh", "-c", "exit 7"), 7, "", id="its status"),
        pytest.param(("sh", "-c", "kill -9 $$"), 137, "", id="its signal"),
        pytest.param(("no-such-command",), 127, "there is no such command", id="no command"),
        pytest.param(("/etc/hosts",), 126, "cannot run /etc/hosts", id="no program"),
    ],
)
def test_how_a_command_ends(run: Supervised, command: tuple[str, ...], status: int, words: str) -> None:
    """Statuses are those of the jail."""
    ran = run(*command)
    assert ran.returncode == status, ran.stderr
    assert words in ran.stderr


def test_nothing_outlives_the_command(run: Supervised) -> None:
    """A process in a session of its own, whose parent has ended, ends with the command."""
    marked = Marked()
    ran = run("sh", "-c", f"setsid sleep {marked.seconds} & setsid sh -c 'sleep {marked.seconds} &'; exit 3")
    assert ran.returncode == 3
    marked.wait_for()


@pytest.mark.parametrize("victim", ["pkgjail", "supervisor", "monitor", "command"])
def test_nothing_is_left_if_one_process_is_killed(run: Supervised, victim: str) -> None:
    """Whichever process is killed, all others end, and the next run removes the directory."""
    marked = Marked()
    script = f"setsid sleep {marked.seconds} & echo $TMPDIR; sleep {marked.seconds}; true"
    options = run.user.options(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    del options["capture_output"]
    started = subprocess.Popen(run.words("sh", "-c", script), **options)
    assert started.stdout is not None
    place = Path(started.stdout.readline().strip()).parent
    marked.wait_for("S", "S")
    chain = [started.pid]
    while len(chain) < 4:
        children = Path(f"/proc/{chain[-1]}/task/{chain[-1]}/children").read_text().split()
        chain.append(int(children[0]))
    os.kill(chain[["pkgjail", "supervisor", "monitor", "command"].index(victim)], signal.SIGKILL)
    started.wait(20)
    marked.wait_for()
    started.stdout.close()
    assert started.stderr is not None
    started.stderr.close()
    if place.exists():  # pkgjail itself was killed: the next run removes it, if it is a minute old
        assert victim == "pkgjail"
        os.utime(place, (0, 0))
        run("true")
    assert not place.exists()
