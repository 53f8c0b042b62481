"""The stage of root: a jail without a user namespace, with the rights of the user who asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core import errors
from pkgjail.core.entries import Mismatch
from pkgjail.core.error_records import error_of, error_record
from pkgjail.core.errors import CommandError, DriftError, JailError, UsageError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.as_user import find_user, run_as_user
from pkgjail.manifest import write_manifest
from pkgjail.stages import run_in_stage
from pkgjail.stages.model import RefusedError
from pkgjail.stages.root import Root
from tests.conftest import NOBODY, SYSTEM_PYTHON
from tests.sleepers import Marked
from tests.terminals import INTERRUPT, SUSPEND, shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be asked to make the jail")
TOP = Path(__file__).resolve().parent.parent
_LIMITS = tuple(Path("/proc/sys/user").glob("max_*"))


@pytest.fixture
def asked(user: Caller, sudo: str, base_manifest: Manifest) -> Callable[..., Any]:
    """Run pkgjail's stage of root as `user` does through sudo, among the files of `base`."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    (user.home / "m.jsonl").chmod(0o644)

    def run(*words: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sudo, SYSTEM_PYTHON, "-m", "pkgjail", "run", "--stage", "root", *options, "m.jsonl", "--"]
        return user.run([*command, *words], **more)

    return run


@needs_root
def test_the_user_who_asked_gets_no_right_of_root(asked: Callable[..., Any], user: Caller) -> None:
    """The ids and the places are the user's, and no capability is left, nor a way to one."""
    script = (
        "id -u; id -g; id -G; grep -E 'Cap|NoNewPrivs' /proc/self/status; echo $HOME $USER; umask;"
        "unshare --user true || echo refused; touch /usr/x || echo refused"
    )
    done = asked("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    none = "0" * 16
    found = find_user(str(user.uid))
    home = found.home if os.path.isdir(found.home) else "/tmp"
    assert done.stdout.splitlines() == [
        *[str(user.uid)] * 3,
        *(f"Cap{each}:\t{none}" for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
        "NoNewPrivs:\t1",
        f"{home} {found.name}",
        "0022",
        "refused",
        "refused",
    ]


@needs_root
def test_sources_are_looked_up_with_the_rights_of_the_user(asked: Callable[..., Any], user: Caller) -> None:
    """What the user cannot reach cannot be bound, though its mode would let everybody read it."""
    closed = user.home / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner/file").write_text("secret")
    closed.chmod(0o700)
    done = asked("cat", "/srv/file", options=("--bind", f"{closed}/inner:/srv"))
    assert done.returncode == 125
    assert f"{closed}/inner" in done.stderr
    assert "secret" not in done.stdout
    own = user.home / "own"
    own.mkdir()
    os.chown(own, user.uid, user.uid)
    assert asked("sh", "-c", "echo made >/srv/file", options=("--bind", f"{own}:/srv")).returncode == 0
    assert (own / "file").stat().st_uid == user.uid


@needs_root
def test_the_host_keeps_its_limits_and_mounts(user: Caller, base_manifest: Manifest) -> None:
    """Protects the host: limits of namespaces are its own here, and mounts could spread to it.

    The manifest stands in a writable bind, so that names are protected by mounts, and these could spread.
    """
    work = user.home / "work"
    work.mkdir()
    os.chown(work, user.uid, user.uid)
    write_manifest(base_manifest, work / "m.jsonl")
    before = [path.read_text() for path in _LIMITS]
    script = """
mount --bind "$0" "$0"; mount --make-shared "$0"; cd "$0"
sort /proc/self/mountinfo | cut -d' ' -f4- >before
"$@" &
while test ! -e started; do sleep 0.1; done
sort /proc/self/mountinfo | cut -d' ' -f4- >during; touch seen; wait $!; echo $?
cmp before during && echo same
"""
    command = (SYSTEM_PYTHON, "-m", "pkgjail", "run", "--stage", "root", "--user", str(user.uid), "--cwd")
    waits = "touch started; while test ! -e seen; do sleep 0.1; done; rm m.jsonl || echo kept"
    around = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(work))
    environment = {"PYTHONPATH": user._environment["PYTHONPATH"]}
    done = subprocess.run(
        [*around, *command, "m.jsonl", "--", "sh", "-c", waits],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    lines = done.stdout.splitlines()
    assert lines == ["kept", "0", "same"], done.stderr
    assert [path.read_text() for path in _LIMITS] == before


@needs_root
def test_a_directory_that_a_mount_covers_is_not_shown() -> None:
    """Without a user namespace, the kernel would show what lies below a mount of the host."""
    script = """
import sys
from pkgjail.jails.as_user import find_user, run_as_user
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import run
from pkgjail.sandbox import steps as s

def work():
    kernel = (s.Seal(), s.Proc(b"/proc"), s.Sys(b"/sys"), s.Devices(b"/dev"))
    tops = tuple(s.Directory(path, 0o755) for path in (b"/", b"/proc", b"/sys", b"/dev"))
    plan = s.Plan(b"/", (s.NoUserNamespace(), *tops, s.WholeDirectory(b"/srv", 0o755), *kernel), True, "x")
    try:
        return run(s.assemble(plan), (("true",), b"/", (), False))
    except SetupError as failure:
        print(failure.doing, failure.name, failure.errno, flush=True)
        return 0

print(run_as_user(find_user(sys.argv[1]), work))
"""
    covered = (
        "mount -t tmpfs -o mode=755 none /srv; mkdir -p /srv/a; echo secret >/srv/a/b;"
        'mount -t tmpfs none /srv/a; exec "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", covered, "sh", sys.executable, "-c", script, str(NOBODY)],
        capture_output=True,
        text=True,
        check=False,
        cwd=TOP,
    )
    assert done.stdout == "build b'/srv/a' 16\n0\n", done.stderr


@needs_root
def test_keys_stop_and_end_it(user: Caller, sudo: str, base_manifest: Manifest) -> None:
    """As a job of a shell: Ctrl-Z stops the command and the shell gets the terminal; Ctrl-C ends it."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    (user.home / "m.jsonl").chmod(0o644)
    marked = Marked()
    with shell(user.options()["env"], user.uid) as keyboard:
        keyboard.run(f"cd {user.home}")
        keyboard.wait_for_prompt()
        pkgjail = f"{sudo} {SYSTEM_PYTHON} -m pkgjail run --stage root m.jsonl"
        keyboard.run(f"{pkgjail} -- sleep {marked.seconds}")
        marked.wait_for("S")
        keyboard.type(SUSPEND)
        keyboard.wait_for("Stopped")
        marked.wait_for("T")
        keyboard.run("fg")
        marked.wait_for("S")
        keyboard.type(INTERRUPT)
        marked.wait_for()
        keyboard.wait_for_prompt()
        assert keyboard.status() == 128 + signal.SIGINT


@needs_root
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_everything_ends_with_the_caller(user: Caller, base_manifest: Manifest, number: int) -> None:
    """Killed, or asked to end by another process, it leaves no process."""
    write_manifest(base_manifest, user.home / "m.jsonl")
    marked = Marked()
    words = ["run", "--stage", "root", "--user", str(user.uid), "m.jsonl", "--", "sleep", marked.seconds]
    environment = {"PYTHONPATH": user._environment["PYTHONPATH"]}
    with subprocess.Popen(
        [SYSTEM_PYTHON, "-m", "pkgjail", *words], cwd=user.home, env={**os.environ, **environment}
    ) as process:
        marked.wait_for("S")
        process.send_signal(number)
        status = process.wait(30)
    marked.wait_for()
    assert status == (-number if number == signal.SIGKILL else 128 + number)


@needs_root
def test_failures_are_those_of_the_default_stage(base_manifest: Manifest, tmp_path: Path) -> None:
    """They come from another process, with their types, statuses and causes."""
    options = JailOptions(environment={"PATH": "/usr/bin:/bin"})
    with pytest.raises(CommandError) as missing:
        run_in_stage(base_manifest, ["no-such-command"], options, stage="root", user="nobody")
    assert missing.value.status == 127
    (tmp_path / "usr").mkdir()
    with pytest.raises(DriftError) as drift:
        run_in_stage(base_manifest, ["true"], options, stage="root", root=os.fsencode(tmp_path))
    assert drift.value.changes
    with pytest.raises(UsageError, match="there is no user 'no such user'"):
        run_in_stage(base_manifest, ["true"], options, stage="root", user="no such user")
    bind = UserBind(source=b"/no/such", destination=b"/srv", writable=False)
    with pytest.raises(JailError, match="/no/such"):
        run_in_stage(base_manifest, ["true"], JailOptions(binds=(bind,)), stage="root", user="nobody")


@needs_root
def test_it_works_here_and_says_what_it_does_not_do(base_manifest: Manifest) -> None:
    """What takes a user namespace is refused by name, and programs of other machines are."""
    assert Root().obstacle() == ""
    with pytest.raises(RefusedError, match="a command that is user 0"):
        run_in_stage(base_manifest, ["true"], JailOptions(map_root=True), stage="root")
    other = "s390x" if os.uname().machine != "s390x" else "amd64"
    foreign = replace(base_manifest, header=replace(base_manifest.header, architecture=other))
    with pytest.raises(RefusedError, match=f"programs of another architecture, {other}"):
        run_in_stage(foreign, ["true"], JailOptions(), stage="root")


def test_a_user_who_is_not_root_is_told_so(user: Caller, base_manifest: Manifest) -> None:
    write_manifest(base_manifest, user.home / "m.jsonl")
    (user.home / "m.jsonl").chmod(0o644)
    done = user.pkgjail("run", "--stage", "root", "m.jsonl", "--", "true")
    assert done.returncode == 125
    assert "use sudo" in done.stderr


@needs_root
def test_a_process_that_dies_is_reported() -> None:
    """A status that means something else must not be taken for the command's."""

    def killed() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(JailError, match="killed by signal 9"):
        run_as_user(find_user("nobody"), killed)
    with pytest.raises(JailError, match="ZeroDivisionError"):
        run_as_user(find_user("nobody"), lambda: 1 // 0)
    assert run_as_user(find_user("nobody"), lambda: 7) == 7


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(errors.JailError("no jail"), id="a message"),
        pytest.param(errors.UsageError("bad usage"), id="bad usage"),
        pytest.param(errors.CommandError("no command", 127), id="with a status"),
        pytest.param(errors.OutOfMemoryError(), id="with words of its own"),
        pytest.param(
            errors.DriftError(((b"/a\xff", Mismatch("mode", "0644", "0600")),), cause="moved"), id="drift"
        ),
        pytest.param(errors.ExitDriftError(((b"/a", Mismatch("missing")),), 3), id="drift at the end"),
        pytest.param(
            errors.ManifestError([errors.Problem("m:3", "odd"), errors.Problem("", "b")]), id="input"
        ),
    ],
)
def test_an_error_travels_as_data(error: errors.PkgjailError) -> None:
    """Its type, its message and its causes are the same in another process."""
    made = error_of(json.loads(json.dumps(error_record(error))))
    assert type(made) is type(error)
    assert str(made) == str(error)
    for name in ("changes", "status", "problems", "cause"):
        assert getattr(made, name, None) == getattr(error, name, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NamesError("read {}", [b"/a", b"/b"], "why"), errors.InputError),
        (errors.OutputError("full"), errors.PkgjailError),
        (
            errors.ModifiedEnvironmentError("enter x", ((b"/a", Mismatch("missing")),), "do"),
            errors.PkgjailError,
        ),
        (ValueError("odd"), errors.JailError),
        (KeyboardInterrupt("twice"), KeyboardInterrupt),
    ],
)
def test_an_error_of_another_type_becomes_the_nearest(error: BaseException, kind: type) -> None:
    made = error_of(json.loads(json.dumps(error_record(error))))
    assert type(made) is kind
    assert str(error).splitlines()[0] in str(made) or isinstance(error, errors.NamesError)
