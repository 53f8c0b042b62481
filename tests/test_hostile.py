"""Hostile plans, manifests, binds, descriptors, directories and arguments.

Each is refused with a message, or has no effect outside. `test_escapes.py` has the attempts from inside.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import pytest

from pkgjail.core.errors import CommandError, JailError, ManifestError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails import ld_cache
from pkgjail.jails.run import default_environment, prepare, run_in_jail
from pkgjail.manifest import dump_manifest, parse_manifest, write_manifest
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import run
from pkgjail.sandbox.steps import (
    Command,
    Content,
    Devices,
    Directory,
    HostFile,
    MaskedOverlay,
    Overlay,
    Plan,
    Seal,
    Symlink,
    WholeDirectory,
    assemble,
)
from tests.conftest import SYSTEM_PYTHON, TOP
from tests.surroundings import binds_of_coverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import FileEntry, Manifest


def _options(*binds: UserBind, **others: Any) -> JailOptions:
    return JailOptions(
        **{
            "binds": (*binds_of_coverage(), *binds),
            "environment": default_environment(),
            "plan": "binds",
            **others,
        }
    )


def _bind(source: Path, destination: bytes) -> UserBind:
    return UserBind(source=os.fsencode(source), destination=destination, writable=True)


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of the host in which no file may be made."""
    place = tmp_path / "victim"
    place.mkdir()
    (place / "file").write_text("kept")
    yield place
    assert [(name.name, name.read_text()) for name in place.iterdir()] == [("file", "kept")]


_Made = Union[Content, Devices, Directory, HostFile, MaskedOverlay, Overlay, Symlink, WholeDirectory]


def _devices(*paths: bytes, kind: str = "character", number: int = os.makedev(1, 3)) -> Devices:
    return Devices(b"/dir", tuple((path, kind, number, b"") for path in paths))


# While the builder works the host is at /old: what a link may be aimed at.
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((Content(b"/link/new", 0o644, b"x"),), id="content through a link"),
        pytest.param((Directory(b"/link/new", 0o755),), id="a directory through a link"),
        pytest.param((Symlink(b"/link/new", b"x"),), id="a link through a link"),
        pytest.param((HostFile(b"/link/file", 0o644, 4),), id="a mount point through a link"),
        pytest.param((Content(b"/dir/../link/new", 0o644, b"x"),), id="content by '..'"),
        pytest.param((Content(b"/../old/VICTIM/new", 0o644, b"x"),), id="content above the root"),
        pytest.param((Directory(b"/dir/..", 0o777),), id="the parent as a directory"),
        pytest.param((Content(b"/nowhere/new", 0o644, b"x"),), id="content in no directory"),
        pytest.param((Content(b"dir/new", 0o644, b"x"),), id="a path that is not absolute"),
        pytest.param((Content(b"/dir/", 0o644, b"x"),), id="a name that is empty"),
        pytest.param((Overlay(b"/link", b"/usr"),), id="an overlay at a link"),
        pytest.param((MaskedOverlay(b"/link", b"/usr"),), id="a mask at a link"),
        pytest.param((WholeDirectory(b"/link/usr", 0o755),), id="a whole directory through a link"),
        pytest.param((WholeDirectory(b"/link", 0o755),), id="a whole directory in the place of a link"),
        pytest.param((Directory(b"/dir", 0o755),), id="a directory twice"),
        pytest.param((Content(b"/link", 0o644, b"x"),), id="content in the place of a link"),
        pytest.param((_devices(b"/dir/a/../../link/new"),), id="a device by '..'"),
        pytest.param((_devices(b"/link/new"),), id="a device through a link"),
        pytest.param((_devices(b"/dir/fd/new"),), id="a device through a link of /dev"),
        pytest.param((_devices(b"/dir/null"),), id="a device in the place of another"),
        pytest.param((_devices(b"/dir/link", b"/dir/link/x"),), id="a device below another"),
        pytest.param((_devices(b"/dev/null", number=1),), id="another device than planned"),
        pytest.param((_devices(b"/dev/null", kind="block"),), id="a device of another kind"),
        pytest.param((_devices(b"/dev/stdin"),), id="a link in the place of a device"),
    ],
)
def test_a_plan_makes_nothing_outside_of_its_root(victim: Path, steps: tuple[_Made, ...]) -> None:
    """A step depends on directories that earlier steps made, and so never follows a link."""
    target = b"/old" + os.fsencode(victim)
    first = (Directory(b"/", 0o755), Directory(b"/dir", 0o755), Symlink(b"/link", target))
    aimed = tuple(step._replace(path=step.path.replace(b"VICTIM", os.fsencode(victim)[1:])) for step in steps)
    plan = Plan(root=b"/", steps=(*first, *aimed, Seal()), network=False, hostname="x")
    with pytest.raises(SetupError) as caught:
        run(assemble(plan), Command(("true",), b"/", (), terminal=False))
    assert caught.value.doing == "build"


def _file(manifest: Manifest, path: bytes) -> FileEntry:
    """Return a regular file of the manifest under another path."""
    kept = next(entry for entry in manifest.files if entry.path == b"/usr/bin/env")
    return kept._replace(path=path, origin="include", owners=())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/usr/../etc/shadow", "not absolute and normal"),
        (b"/usr/./env", "not absolute and normal"),
        (b"/usr//env", "not absolute and normal"),
        (b"/usr/bin/", "not absolute and normal"),
        (b"etc/shadow", "not absolute and normal"),
        (b"/usr/bin/a\0b", "not absolute and normal"),
        (b"", "not absolute and normal"),
        (b"/bin/env", "no entry of type directory"),
        (b"/usr/bin/env/below-a-file", "no entry of type directory"),
        (b"/nowhere/file", "no entry of type directory"),
        (b"/usr/bin/env", "the record before is for the same thing"),
    ],
)
def test_a_hostile_manifest_is_not_read(base_manifest: Manifest, path: bytes, text: str) -> None:
    """With such a path, a file could be shown or made elsewhere."""
    files = sorted((*base_manifest.files, _file(base_manifest, path)), key=lambda entry: entry.path)
    data = dump_manifest(replace(base_manifest, files=tuple(files)))
    with pytest.raises(ManifestError, match=text):
        parse_manifest(data, "hostile.jsonl")


def test_a_bind_does_not_follow_a_link_in_a_writable_bind(
    base_manifest: Manifest, tmp_path: Path, victim: Path
) -> None:
    """An earlier jail may have made the link: a bind through it would cover the host's files."""
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "link").symlink_to(victim)
    binds = (_bind(outer, b"/srv/outer"), _bind(tmp_path, b"/srv/outer/link"))
    with pytest.raises(JailError, match="/srv/outer/link"):
        run_in_jail(base_manifest, ["true"], _options(*binds))


def _aim_at(victim: Path) -> Callable[[Path], None]:
    def swap(place: Path) -> None:
        place.rename(place.with_name("moved"))
        place.symlink_to(victim)

    return swap


@pytest.mark.parametrize("which", ["source", "parent"])
def test_a_source_that_becomes_a_link_is_not_followed(
    base_manifest: Manifest, tmp_path: Path, victim: Path, which: str
) -> None:
    """If that happens between the plan and the entry."""
    source = tmp_path / "parent" / "source"
    source.mkdir(parents=True)
    (victim / "source").mkdir()
    plan = prepare(base_manifest, _options(_bind(source, b"/srv/bind")))
    _aim_at(victim)(source if which == "source" else source.parent)
    command = Command(("touch", "/srv/bind/new"), b"/", tuple(default_environment().items()), terminal=False)
    with pytest.raises(SetupError) as caught:
        run(assemble(plan), command)
    assert caught.value.name == os.fsencode(source)
    (victim / "source").rmdir()


_ENTER = """
import os, sys
from pkgjail.api import resolve
from pkgjail.core.errors import JailError
from pkgjail.jails.run import run_in_jail
number, what, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
manifest = resolve(["base"], hashed=False)
report = os.dup(2)
if what:
    os.dup2(os.open(what, os.O_RDONLY), number)
else:
    os.close(number)
try:
    status = run_in_jail(manifest, command).returncode
except JailError as error:
    os.write(report, str(error).encode())
    status = 125
os._exit(status)
"""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_directory_as_descriptor_is_refused(number: int) -> None:
    """From a descriptor of a directory, the command could walk '..' to the host's root."""
    entered = [sys.executable, "-c", _ENTER, str(number), "/etc", "sh", "-c", "exit 42"]
    ran = subprocess.run(entered, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (
        125,
        f"cannot make a jail: inherit descriptor {number}: Is a directory",
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_descriptor_stays_closed(number: int) -> None:
    """Its number is reused for files that the sandbox opens meanwhile, which the command must not get."""
    script = f"test -e /proc/$$/fd/{number} || exit 42"
    entered = [sys.executable, "-c", _ENTER, str(number), "", "sh", "-c", script]
    # Coverage's own start in a subprocess does not bear a closed standard error.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    ran = subprocess.run(entered, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 42, ran.stderr


@pytest.mark.parametrize("threads", [False, True], ids=["cloned", "forked"])
def test_a_descriptor_above_the_limit_is_not_inherited(threads: bool) -> None:  # noqa: FBT001 - a parameter
    """If it was opened before RLIMIT_NOFILE was lowered, it could be the host's root, and a way out."""
    script = f"""
import os, resource, threading
from pkgjail import resolve, run_in_jail
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
manifest = resolve(["base"], hashed=False)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
os.dup2(os.open("/", os.O_RDONLY), 900)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
if {threads}:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
os._exit(run_in_jail(manifest, ["sh", "-c", "ls /proc/self/fd; test ! -e /proc/self/fd/900"]).returncode)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()) == (0, ["0", "1", "2", "3"]), ran.stderr


def test_a_short_command_line_shows_no_variable(tmp_path: Path) -> None:
    """The caller's variables follow init's arguments, which are overwritten; proc_pid_cmdline(5)."""
    script = """
from pkgjail import resolve, run_in_jail
run_in_jail(resolve(["base"], hashed=False), ["cat", "/proc/1/cmdline"])
"""
    (tmp_path / "x").write_text(script)
    environment = {"SECRET": "hidden", **os.environ, "PYTHONPATH": str(TOP)}
    entered = ["python3", "x"]  # shorter than what is written over it
    ran = subprocess.run(
        entered, executable=SYSTEM_PYTHON, cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout.rstrip(b"\0")) == (0, b"pkgjail-i"), ran.stderr


def test_killing_all_processes_ends_only_the_jail(base_manifest: Manifest) -> None:
    with subprocess.Popen(["sleep", "1000"]) as outside:
        try:
            assert (
                run_in_jail(base_manifest, ["sh", "-c", "kill -KILL -1; exit 7"], _options()).returncode == 7
            )
            assert outside.poll() is None
        finally:
            outside.kill()


def test_a_terminal_that_is_not_read_does_not_block(base_manifest: Manifest, tmp_path: Path) -> None:
    """A command that reads no input and ends: typed input has no reader."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(dump_manifest(base_manifest))
    leader, follower = pty.openpty()
    script = "stty raw -echo; echo ready; sleep 1; exit 7"
    words = [sys.executable, "-m", "pkgjail", "run", "--tty", str(manifest), "--", "sh", "-c", script]
    with subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower) as entered:
        try:
            while b"ready" not in os.read(leader, 4096):
                pass
            os.write(leader, b"x" * 4000)
            os.set_blocking(leader, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(leader, b"x" * 4000)
                    time.sleep(0.05)
            assert entered.wait(timeout=20) == 7
        finally:
            entered.kill()
            os.close(leader)
            os.close(follower)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_an_ld_cache_is_not_read_through_a_link(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Ldconfig in the jail is a program of the file set, which can be another user's."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")

    def run_hostile(program: tuple[Any, ...], _command: Command) -> int:
        place = next(step[2] for step in program[1] if step[:2] == ("Bind", b"/tmp"))
        made = os.path.join(place, b"ld.so.cache")
        if kind == "link":
            os.symlink(os.fsencode(secret), made)
        else:
            os.mkfifo(made)
        return 0

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ld_cache, "run", run_hostile)
    with pytest.raises(JailError, match="made no file that can be read"):
        ld_cache.make_ld_cache(base_manifest, {}, b"/")


def test_the_command_cannot_run_the_callers_signal_handlers(base_manifest: Manifest) -> None:
    """Init is forked from the caller's process, and so has its handlers."""

    def refuse(number: int, _frame: object) -> None:
        raise AssertionError(number)

    before = {number: signal.signal(number, refuse) for number in (signal.SIGALRM, signal.SIGUSR1)}
    try:
        script = "trap 'exit 3' USR1; kill -ALRM 1; kill -USR1 1; for i in 1 2 3 4 5 6; do sleep 0.1; done"
        assert run_in_jail(base_manifest, ["sh", "-c", script], _options()).returncode == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_limit_on_file_sizes_is_named(base_manifest: Manifest, tmp_path: Path) -> None:
    """It applies to the jail's own files too: the message says which file was too large, and what to do."""
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    command = f"{sys.executable} -m pkgjail run {tmp_path}/m.jsonl -- true"
    words = f"{command} && ulimit -f 0 && exec {command}"  # the second one has nothing else to make
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert re.search(r"cannot make a jail: build /etc/\S+: File too large: .*ulimit -f", done.stderr)


@pytest.mark.parametrize("name", ["argparse", "ctypes", "socket", "tty"])
def test_a_module_that_a_jail_left_is_not_imported(
    base_manifest: Manifest, tmp_path: Path, name: str
) -> None:
    """`python -m` imports from the current directory, which a jail with --cwd may write to."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(dump_manifest(base_manifest))
    script = f"echo 'import os; os._exit(66)' > {name}.py"
    words = ["-m", "pkgjail", "run", "--no-network", "--cwd", "--tty", "m.jsonl", "--", "sh", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, check=False
        )
        assert ran.returncode == 0


class _Words(NamedTuple):
    """What a command is started with."""

    argv: tuple[str, ...] = ("true",)
    environment: tuple[tuple[str, str], ...] = ()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        pytest.param(_Words(("true", "x" * 131_072)), "Argument list too long", id="an argument of 128 KiB"),
        pytest.param(_Words(("true", *["x" * 1000] * 10_000)), "Argument list too long", id="10 MB of them"),
        pytest.param(_Words(("true", "a\0b")), "null byte", id="NUL in an argument"),
        pytest.param(_Words(environment=(("A=B", "c"),)), "environment variable name", id="'=' in a name"),
        pytest.param(_Words(environment=(("A\0B", "c"),)), "null byte", id="NUL in a name"),
        pytest.param(_Words(environment=(("A", "c\0d"),)), "null byte", id="NUL in a value"),
        pytest.param(_Words(environment=(("A", "x" * 131_072),)), "too long", id="a value of 128 KiB"),
        pytest.param(_Words(("",)), "cannot be empty", id="no name at all"),
        pytest.param(_Words(("../../../bin/true/",)), "Not a directory", id="a name by '..'"),
        pytest.param(_Words(("/proc/1/exe",)), "a link of /proc, which leads to", id="the program of init"),
    ],
)
def test_hostile_arguments_are_refused(base_manifest: Manifest, words: _Words, text: str) -> None:
    options = _options(environment={**default_environment(), **dict(words.environment)})
    with pytest.raises(CommandError, match=text):
        run_in_jail(base_manifest, words.argv, options)


@pytest.mark.parametrize("size", [1, 131_071])
def test_arguments_arrive_unchanged(
    base_manifest: Manifest, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    """Up to the longest that the kernel allows (MAX_ARG_STRLEN), with any special characters of shells."""
    word = ("$(exit 9)`;'\"\\\n" * 10_000)[:size]
    assert run_in_jail(base_manifest, ["printf", "%s", word], _options()).returncode == 0
    assert capfd.readouterr().out == word


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"new\nline", id="a newline"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"$(exit 9);'\"\\", id="what a shell would run"),
        pytest.param(b"upperdir=x,lowerdir=y:z", id="what a mount would take for options"),
        pytest.param(b"x" * 255, id="as long as a name may be"),
        pytest.param(b"/".join([b"x" * 200] * 15), id="as long as a path may be"),
    ],
)
def test_odd_names_of_binds(base_manifest: Manifest, tmp_path: Path, name: bytes) -> None:
    """The command starts there, and the files that it makes are there outside."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    place.mkdir(parents=True)
    options = _options(_bind(place, os.fsencode(place)), cwd=os.fsencode(place))
    assert run_in_jail(base_manifest, ["touch", "made"], options).returncode == 0
    assert (place / "made").exists()


@pytest.mark.parametrize(
    "cwd", [b"/no/such", b"/etc/passwd", b"/../no", b"/" + b"x" * 300, b"/x" * 3000, b"/proc/1/root"]
)
def test_a_hostile_working_directory_is_refused(base_manifest: Manifest, cwd: bytes) -> None:
    with pytest.raises(CommandError):
        run_in_jail(base_manifest, ["true"], _options(cwd=cwd))


@pytest.mark.parametrize("option", ["--cwd", "--bind=.", "--bind=sources", "--ro-bind=../gone"])
def test_a_deleted_working_directory_is_reported(tmp_path: Path, option: str) -> None:
    """Whatever needs it: a message that says so and no traceback."""
    gone = tmp_path / "gone"
    gone.mkdir()
    words = shlex.join([sys.executable, "-m", "pkgjail", "run", option, "base", "--", "true"])
    script = f'rmdir "$PWD" && exec {words}'
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    ran = subprocess.run(
        ["sh", "-c", script], cwd=gone, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 125
    message = "cannot find the working directory: it was deleted; change to another one (cd)"
    assert ran.stderr == f"pkgjail: {message}\n"
