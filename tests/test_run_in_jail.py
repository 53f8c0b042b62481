"""Commands in jails as `subprocess.run` runs them, by one call, in a `with` block, and from asyncio."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pkgjail
from pkgjail.core.errors import ArgumentError, CommandError, PkgjailError, UsageError
from pkgjail.core.options import JailOptions
from pkgjail.core.process_errors import CommandStatusError, CommandTimeoutError
from pkgjail.jails.run import default_environment, prepare_jail
from pkgjail.jails.streams import Streams
from pkgjail.manifest import write_manifest
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.jails.run import Jail

TOP = Path(__file__).resolve().parent.parent
_PIPE, _NULL, _OUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
_LARGE = b"0123456789abcdef" * (1 << 17)  # 2 MiB, more than any pipe holds


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def jail(base_manifest: Manifest) -> Iterator[Jail]:
    """Give a prepared jail; no descriptor, thread or process is left by what a test does in it."""
    made = prepare_jail(base_manifest)
    before = _descriptors(), threading.active_count()
    yield made
    assert (_descriptors(), threading.active_count()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# What subprocess.run does outside is the oracle.
_LIKE_SUBPROCESS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("both outputs", ["sh", "-c", "echo out; echo err >&2; exit 3"], {"capture_output": True}),
    ("text", ["printf", r"\351\nA"], {"stdout": _PIPE, "text": True, "errors": "surrogateescape", "encoding": "utf-8"}),  # noqa: E501
    ("one output", ["sh", "-c", "echo out; echo err >&2"], {"stdout": _PIPE, "stderr": _NULL}),
    ("both as one", ["sh", "-c", "echo out; echo err >&2"], {"stdout": _PIPE, "stderr": _OUT}),
    ("input", ["cat"], {"input": b"\0\xff", "stdout": _PIPE}),
    ("no input", ["cat"], {"input": b"", "stdout": _PIPE}),
    ("an input as text", ["cat"], {"input": "é\udcff", "stdout": _PIPE, "text": True, "errors": "surrogateescape", "encoding": "utf-8"}),  # noqa: E501
    ("a large input", ["cat"], {"input": _LARGE, "stdout": _PIPE}),
    ("an input that is not read", ["true"], {"input": _LARGE, "capture_output": True}),
    ("large outputs", ["sh", "-c", "cat; head -c 3000000 /dev/zero >&2"], {"input": _LARGE, "capture_output": True}),  # noqa: E501
    ("nothing to read", ["cat"], {"stdin": _NULL, "capture_output": True}),
    ("a pipe without input", ["cat"], {"stdin": _PIPE, "capture_output": True}),
    ("kinds of files", ["sh", "-c", "for n in 0 1 2; do test -p /proc/self/fd/$n && echo $n; done"], {"stdin": _NULL, "capture_output": True}),  # noqa: E501
    ("reopened by name", ["sh", "-c", "echo a; echo b > /dev/stdout; echo c"], {"stdout": _PIPE}),
    ("a timeout that is long enough", ["echo", "x"], {"timeout": 50, "stdout": _PIPE}),
    ("a check that passes", ["true"], {"check": True}),
    ("an environment", ["sh", "-c", "echo $A-$HOME"], {"env": {"A": "b", "PATH": "/bin:/usr/bin"}, "stdout": _PIPE}),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "options"), [each[1:] for each in _LIKE_SUBPROCESS], ids=[each[0] for each in _LIKE_SUBPROCESS]
)
def test_it_does_what_subprocess_does(jail: Jail, argv: list[str], options: dict[str, Any]) -> None:
    outside: Any = subprocess.run(argv, **{"check": False, "env": default_environment(), **options})  # noqa: PLW1510
    ours = {name: value for name, value in options.items() if name not in {"errors", "encoding"}}
    done = jail.run(argv, **ours)
    assert (done.args, done.returncode) == (argv, outside.returncode)
    assert (done.stdout, done.stderr) == (outside.stdout, outside.stderr)


def test_files_and_descriptors_are_streams(jail: Jail, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file\n")
    reading, writing = os.pipe()
    with open(tmp_path / "in", encoding="ascii") as source, open(tmp_path / "out", "wb") as out:
        jail.run(["sh", "-c", "cat; echo err >&2"], stdin=source, stdout=out, stderr=writing)
    os.close(writing)
    assert os.read(reading, 100) == b"err\n"
    os.close(reading)
    assert (tmp_path / "out").read_text() == "from a file\n"


def test_outputs_can_change_places(jail: Jail, capfd: pytest.CaptureFixture[str]) -> None:
    """The descriptors of the caller's own outputs are no others' when they are copied."""
    jail.run(["sh", "-c", "echo out; echo err >&2"], stdout=2, stderr=1)
    assert tuple(capfd.readouterr()) == ("err\n", "out\n")


_ORPHANS = "sleep 1000 & setsid sleep 1000 & echo begun; sleep 1000"


def test_a_timeout_kills_all_of_the_jail(jail: Jail) -> None:
    """The error is also what `subprocess.run` raises, and has what was written until then."""
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        jail.run(["sh", "-c", _ORPHANS], timeout=0.5, stdout=_PIPE, stderr=_PIPE)
    assert 0.5 <= time.monotonic() - began < 60
    assert isinstance(caught.value, CommandTimeoutError)
    assert (caught.value.output, caught.value.stderr) == (b"begun\n", b"")
    assert str(caught.value) == (f"the command sh -c '{_ORPHANS}' did not end within 0.5 s, and was killed")


def test_a_status_can_be_checked(jail: Jail) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        jail.run(["sh", "-c", "echo no; kill -TERM $$"], check=True, capture_output=True, text=True)
    assert isinstance(caught.value, CommandStatusError)
    assert (caught.value.returncode, caught.value.stdout) == (128 + 15, "no\n")
    assert str(caught.value) == "the command sh -c 'echo no; kill -TERM $$' ended with status 143"
    assert isinstance(caught.value, PkgjailError)


def test_a_command_that_is_not_there(jail: Jail) -> None:
    """Its descriptors are closed all the same, and its PATH is the one that was given."""
    rows: list[dict[str, Any]] = [
        {"capture_output": True}, {"input": b"x"}, {"timeout": 5}, {"env": {"PATH": "/none"}}
    ]  # fmt: skip
    for options in rows:
        with pytest.raises(CommandError) as caught:
            jail.run(["nothing-here"], **options)
        assert caught.value.status == 127
    with pytest.raises(UsageError, match="argv has no command"):
        jail.run([])


_CONTRADICTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"input": b"x", "stdin": _NULL}, UsageError, "stdin and input"),
    ({"capture_output": True, "stderr": _NULL}, UsageError, "capture_output"),
    ({"input": "x"}, ArgumentError, "input must be bytes, not str; or give text=True"),
    ({"input": b"x", "text": True}, ArgumentError, "input must be str, not bytes"),
    ({"stdout": _OUT}, UsageError, "STDOUT is for stderr alone"),
    ({"stdin": 999}, UsageError, "stdin: descriptor 999 is not open"),
    ({"terminal": True, "capture_output": True}, UsageError, "terminal cannot be given"),
    (
        {"shell": True},
        ArgumentError,
        "run has no argument 'shell': JailOptions and pkgjail.jail have the others",
    ),
    ({"tmeout": 3}, ArgumentError, "run has no argument 'tmeout': did you mean 'timeout'?"),
    ({"timeout": "3"}, ArgumentError, "timeout must be a number or None"),
    ({"stdout": "out.txt"}, ArgumentError, "stdout must be an open file"),
    ({"env": {"A": 1}}, ArgumentError, "env must have texts alone"),
]


@pytest.mark.parametrize(("options", "kind", "said"), _CONTRADICTIONS, ids=str)
def test_what_cannot_be_is_refused(
    jail: Jail, options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        jail.run(["true"], **options)


def test_a_directory_is_no_stream(jail: Jail) -> None:
    """By `..` the command could leave the jail from there."""
    directory = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(UsageError, match="stdin cannot be a directory"):
            jail.run(["true"], stdin=directory)
    finally:
        os.close(directory)


def test_where_processes_have_no_descriptors(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's filter may forbid pidfd_open(2)."""

    def forbidden(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(sc, "pidfd_open", forbidden)
    with pytest.raises(CommandTimeoutError):
        jail.run(["sleep", "1000"], timeout=0.2)


def test_a_host_that_changes_meanwhile(base_manifest: Manifest, tmp_path: Path) -> None:
    """The jail is prepared anew before the command starts; its streams wait."""
    bind = pkgjail.UserBind(source=tmp_path, destination="/srv", writable=True)
    made = prepare_jail(base_manifest, JailOptions(binds=[bind], environment=default_environment()))
    tmp_path.rename(tmp_path.parent / "old")
    tmp_path.mkdir()
    assert made.run(["sh", "-c", "cat > /srv/new"], input=b"x").returncode == 0
    assert (tmp_path / "new").read_bytes() == b"x"


def test_in_a_thread(jail: Jail) -> None:
    found = []
    one = threading.Thread(target=lambda: found.append(jail.run(["cat"], input=b"x", stdout=_PIPE).stdout))
    one.start()
    one.join()
    assert found == [b"x"]


# --- in one call ------------------------------------------------------------------------------------------


def _manifest(base_manifest: Manifest, tmp_path: Path) -> object:
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    return tmp_path / "m.jsonl"


_WHAT: list[tuple[str, Callable[[Manifest, Path], Any]]] = [
    ("a whitelist", lambda _, __: "base"),
    ("several", lambda _, __: ["base", "./own.toml"]),
    ("a whitelist's path", lambda _, place: place / "own.toml"),
    ("a manifest", lambda manifest, _: manifest),
    ("a manifest's path", _manifest),
]


@pytest.mark.parametrize("what", [each[1] for each in _WHAT], ids=[each[0] for each in _WHAT])
def test_a_jail_in_one_call(
    base_manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[Manifest, Path], Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text('packages.debian = ["coreutils", "dash"]\n')
    given = what(base_manifest, tmp_path)
    with pkgjail.jail(given, binds=[tmp_path], cwd=tmp_path, network=False, env={"A": "b"}) as made:
        assert made.run(["sh", "-c", 'echo "$A $PWD" > here'], check=True).returncode == 0
    assert (tmp_path / "here").read_text() == f"b {tmp_path}\n"
    with pytest.raises(UsageError, match="its 'with' block has ended"):
        made.run(["true"])


def test_a_jail_of_packages() -> None:
    with pkgjail.jail(packages=["coreutils"]) as made:
        assert made.run(["env", "echo", "x"], capture_output=True, text=True).stdout == "x\n"


def test_a_directory_that_is_called_as_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `build`, which pip makes. A path object is of a manifest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert repr(pkgjail.jail("base")).startswith("<Jail of ")
    with pytest.raises(PkgjailError, match="Is a directory"):
        pkgjail.jail(Path("base"))


def test_nothing_is_added_to_a_manifest(base_manifest: Manifest, tmp_path: Path) -> None:
    """It was dropped without a word."""
    path = _manifest(base_manifest, tmp_path)
    for what, more in ((base_manifest, {"packages": ["gcc"]}), (path, {"blacklists": ["docs"]})):
        with pytest.raises(UsageError, match="a manifest is complete"):
            pkgjail.jail(what, **more)  # type: ignore[arg-type]


def test_where_commands_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any path of what is bound, with links or relative; otherwise it must be there, and that is said."""
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for bind, cwd in (
        ("link", "link"),
        (tmp_path / "link", Path("real/sub")),
        (Path("real"), tmp_path / "link"),
    ):
        with pkgjail.jail("base", binds=[bind], cwd=cwd) as made:
            told = made.run(["pwd"], capture_output=True, text=True).stdout
        assert told == f"{os.path.realpath(cwd)}\n"
    with pkgjail.jail("base", cwd=tmp_path) as made, pytest.raises(CommandError) as caught:
        made.run(["true"])
    assert str(caught.value) == (
        f"cannot run true in the jail: {tmp_path}: No such file or directory; show the directory where "
        "commands start by a bind, or start them in another one"
    )


def test_a_jail_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pkgjail.jail(tmp_path / "m.jsonl")
    with pytest.raises(PkgjailError, match="spack"):
        pkgjail.jail("spakc")


# --- in the tests of others -------------------------------------------------------------------------------

_TESTS = """
import pkgjail, pytest
made = []

@pytest.mark.parametrize("number", range(2))
def test_it(pkgjail_jail, tmp_path, number):
    jail = pkgjail_jail(packages=["coreutils"], binds=[tmp_path], cwd=tmp_path)
    assert jail.run(["touch", "x"]).returncode == 0
    assert (tmp_path / "x").exists()
    made.append(jail)

def test_manifests_are_shared_and_jails_are_closed():
    assert made[0].manifest is made[1].manifest
    with pytest.raises(pkgjail.PkgjailError):
        made[0].run(["true"])

def test_a_manifest(pkgjail_jail):
    assert pkgjail_jail(made[0].manifest).run(["true"]).returncode == 0
    with pytest.raises(pkgjail.UsageError, match="a manifest is complete"):
        pkgjail_jail(made[0].manifest, packages=["dash"])

@pytest.mark.parametrize("name", ["coreutils", "make"])
def test_files_of_one_name_are_not_shared(pkgjail_jail, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(f'packages.debian = ["{name}"]\\n')
    packages = pkgjail_jail("./own.toml").manifest.packages
    assert ("make" in {one.name for one in packages}) == (name == "make")
"""


def test_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pkgjail.integrations.pytest_fixture"]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [*command, tmp_path], check=False, cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert "6 passed" in done.stdout, done.stdout


# --- from asyncio -----------------------------------------------------------------------------------------


def test_several_at_once(base_manifest: Manifest) -> None:
    async def one(number: int) -> bytes:
        done = await pkgjail.run_in_jail_async(
            base_manifest, ["cat"], input=b"%d" % number, capture_output=True
        )
        return bytes(done.stdout)

    async def several() -> list[bytes]:
        return await asyncio.gather(*map(one, range(6)))

    assert asyncio.run(several()) == [b"%d" % number for number in range(6)]


def test_a_task_that_is_cancelled_kills_its_jail(base_manifest: Manifest, tmp_path: Path) -> None:
    """When the task has ended, so have all processes of the jail."""
    bind = pkgjail.UserBind(source=tmp_path, destination="/srv", writable=True)
    options = JailOptions(binds=[bind], environment=default_environment())
    (tmp_path / "live").touch()
    script = "while test -e /srv/live; do date > /srv/now; sleep 0.01; done"

    async def cancelled() -> None:
        task = asyncio.create_task(pkgjail.run_in_jail_async(base_manifest, ["sh", "-c", script], options))
        while not (tmp_path / "now").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (tmp_path / "now").unlink()

    for _ in range(5):
        (tmp_path / "now").unlink(missing_ok=True)
        asyncio.run(cancelled())
        time.sleep(0.1)
        assert not (tmp_path / "now").exists()


def test_a_command_that_is_cancelled_before_it_starts(jail: Jail) -> None:
    streams = Streams(stdout=_PIPE)
    streams.cancel()
    with pytest.raises(PkgjailError, match="cancelled before it started"):
        jail.serve(["true"], streams)


def test_errors_are_those_of_run_in_jail(base_manifest: Manifest) -> None:
    with pytest.raises(CommandError, match="nothing-here"):
        asyncio.run(pkgjail.run_in_jail_async(base_manifest, ["nothing-here"]))
