"""Entries: real commands in real jails, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.environments import lock
from pkgjail.environments.build import build_environment
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.record import SCHEMA
from pkgjail.environments.remove import remove_environment
from pkgjail.manifest import write_manifest
from tests.environments.cases import put, replace_by_link, replace_file, rewrite_unseen
from tests.test_exactness import manifest_of
from tests.test_protection import Reporter
from tests.tree_text import parse_tree, tree, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Caller

# A host with one program that needs no other file.
BUSYBOX = b"/bin/busybox"
COMMANDS = ("sh", "cat", "env", "find", "ls", "true", "test", "kill", "touch")
SMALL = """
/data/words = as built
/data/closed/ 0555
/data/closed/x 0444 = x
/usr/bin/set 4755 = x
/usr/bin/plain = not a program
"""


@pytest.fixture
def host() -> Iterator[bytes]:
    """Return the root of a host with one program that has several names."""
    with tree(parse_tree(SMALL)) as root:
        shutil.copy(BUSYBOX, root + b"/usr/bin/busybox")
        for command in COMMANDS:
            os.symlink("busybox", root + b"/usr/bin/" + command.encode())
        yield root


@pytest.fixture
def manifest_file(host: bytes, anyone: Caller) -> Path:
    """Return the path of its manifest, which the user may read."""
    path = anyone.home / "small.jsonl"
    write_manifest(manifest_of(host), path)
    path.chmod(0o644)
    return path


@pytest.fixture(params=["host", "copy", "fstab"])
def env(request: pytest.FixtureRequest, manifest_file: Path, host: bytes, anyone: Caller) -> str:
    """Build an environment of each form by the command, and return its name in the user's home."""
    form = [] if request.param == "host" else [f"--{request.param}"]
    built = anyone.pkgjail("build", *form, "--root", os.fsdecode(host), manifest_file, "env")
    assert built.returncode == 0, built.stderr
    return "env"


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        pytest.param(["true"], 0, "", id="success"),
        pytest.param(["sh", "-c", "exit 7"], 7, "", id="failure"),
        pytest.param(["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM, "", id="a signal"),
        pytest.param(["nope"], 127, "no such command in the jail", id="no such command"),
        pytest.param(["plain"], 126, "cannot", id="not a program"),
        pytest.param([], 125, "there is no command to run", id="no command"),
    ],
)
def test_the_exit_status_is_the_commands(
    env: str, anyone: Caller, command: list[str], status: int, text: str
) -> None:
    """As for `run`."""
    ran = anyone.pkgjail("enter", env, "--", *command)
    assert (ran.returncode, text in ran.stderr) == (status, True), ran.stderr


def test_the_jail_shows_the_manifest_and_nothing_else(env: str, anyone: Caller, host: bytes) -> None:
    ran = anyone.pkgjail("enter", env, "--", "find", "/data", "/usr", "-xdev")
    names = [line.split(" ")[0] for line in walk_lines(host)]
    assert sorted(ran.stdout.split()) == sorted(names), ran.stderr


def test_removal_leaves_the_host_and_the_home_as_they_were(
    env: str, anyone: Caller, host: bytes, manifest_file: Path
) -> None:
    """After entries; and the next environment there can be entered like the first."""
    before = walk_lines(host)
    for _ in range(2):
        for _ in range(2):
            assert anyone.pkgjail("enter", env, "--", "true").returncode == 0
        removed = anyone.pkgjail("remove", env, "--json")
        assert (removed.returncode, json.loads(removed.stdout)["gone"]) == (0, 0), removed.stderr
        assert os.listdir(anyone.home) == ["small.jsonl"]
        built = anyone.pkgjail("build", "--copy", "--root", os.fsdecode(host), manifest_file, env)
        assert built.returncode == 0, built.stderr
    assert walk_lines(host) == before


def test_options_of_the_entry_are_added_to_those_of_the_build(
    anyone: Caller, manifest_file: Path, host: bytes
) -> None:
    """Binds and variables of both apply; the entry's variable wins; without network it stays without."""
    (anyone.home / "in").mkdir()
    (anyone.home / "in" / "letter").write_text("dear")
    recorded = ["--no-network", "--ro-bind", "in:/srv/in", "--env", "A=build", "--env", "B=build"]
    arguments = ["--root", os.fsdecode(host), *recorded]
    assert anyone.pkgjail("build", *arguments, manifest_file, "env").returncode == 0
    script = "cat /srv/in/letter /srv/more/letter; env; ls /sys/class/net"
    added = ["--env", "B=entry", "--ro-bind", "in:/srv/more"]
    ran = anyone.pkgjail("enter", "env", *added, "--", "sh", "-c", script)
    assert ran.stdout.startswith("deardear"), ran.stderr
    lines = set(ran.stdout.removeprefix("deardear").splitlines())
    assert {"A=build", "B=entry", "HOME=/tmp"} <= lines
    assert "B=build" not in lines
    assert "lo" in ran.stdout.splitlines()[-1]


def test_a_copy_outlives_a_change_of_the_host(anyone: Caller, manifest_file: Path, host: bytes) -> None:
    """An environment of the host's files can no longer be entered; the copy is not affected."""
    root = ["--root", os.fsdecode(host)]
    assert anyone.pkgjail("build", *root, manifest_file, "live").returncode == 0
    assert anyone.pkgjail("build", "--copy", *root, manifest_file, "copied").returncode == 0
    replace_file(host + b"/data/words", b"upgraded")
    ran = anyone.pkgjail("enter", "live", "--", "cat", "/data/words")
    assert (ran.returncode, "/data/words" in ran.stderr) == (125, True)
    ran = anyone.pkgjail("enter", "copied", "--", "cat", "/data/words")
    assert (ran.returncode, ran.stdout) == (0, "as built")


def test_dropped_bits_are_reported(anyone: Caller, manifest_file: Path, host: bytes) -> None:
    """A set-user-ID program would run as whoever copied it."""
    built = anyone.pkgjail("build", "--copy", "--root", os.fsdecode(host), manifest_file, "env")
    assert "1 name copied without their set-user-ID and set-group-ID bits: /usr/bin/set" in built.stderr
    assert (anyone.home / "env/root/usr/bin/set").stat().st_mode & 0o7777 == 0o755


def test_a_missing_source_of_a_bind_is_reported_by_the_build(
    anyone: Caller, manifest_file: Path, host: bytes
) -> None:
    """Not only by the first entry; a disk may be mounted by then."""
    options = ["--root", os.fsdecode(host), "--bind", "/no/such:/srv", "--ro-bind", "/usr:/data"]
    built = anyone.pkgjail("build", *options, manifest_file, "env")
    warning = (
        "pkgjail: warning: /no/such does not exist, and is bound at each entry: create it before the first\n"
    )
    assert (built.returncode, built.stderr) == (0, warning)


def test_unreadable_files_are_reported_all_at_once(user: Caller, host: bytes) -> None:
    for name in ("one", "two"):
        put(host + b"/data/" + name.encode(), b"secret")
        os.chmod(host + b"/data/" + name.encode(), 0o600)
    if os.geteuid() == user.uid:
        os.chmod(host + b"/data/one", 0)
        os.chmod(host + b"/data/two", 0)
    write_manifest(manifest_of(host), user.home / "m.jsonl")
    (user.home / "m.jsonl").chmod(0o644)
    built = user.pkgjail("build", "--copy", "--root", os.fsdecode(host), "m.jsonl", "env")
    assert built.returncode == 1
    assert "cannot copy 2 of the manifest's files" in built.stderr
    assert "  /data/one\n  /data/two\n" in built.stderr
    assert not (user.home / "env").exists()


def edit(env: bytes, old: bytes, new: bytes) -> None:
    """Change a part of the record."""
    path = Path(os.fsdecode(env + b"/environment.jsonl"))
    path.write_bytes(path.read_bytes().replace(old, new))


def make_half_built(env: bytes) -> None:
    """Replace the record by a journal, as if the last name had not been made yet."""
    path = Path(os.fsdecode(env + b"/environment.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.with_name("building.jsonl").write_bytes(b"".join(lines[:-2]))
    path.unlink()


TAMPERED: dict[str, tuple[Callable[[bytes], object], str]] = {
    "a name was added": (lambda env: put(env + b"/root/data/new", b"x"), "root/data/new was not made by"),
    "a name is gone": (lambda env: os.unlink(env + b"/root/data/words"), "root/data/words is gone"),
    "a file was replaced": (
        lambda env: replace_file(env + b"/root/data/words", b"As built"),
        "root/data/words was replaced by another regular file",
    ),
    "a file was written to": (
        lambda env: rewrite_unseen(env + b"/root/data/words", b"As built"),
        "root/data/words has other content",
    ),
    "a directory is a link": (
        lambda env: replace_by_link(env + b"/root/data"),
        "root/data is no longer a directory",
    ),
    "the manifest was edited": (
        lambda env: put(env + b"/manifest.jsonl", b"x"),
        "manifest.jsonl has 1 bytes",
    ),
    "the record was edited": (
        lambda env: edit(env, b"words", b"WORDS"),
        "it was truncated or edited",
    ),
    "the record is of a newer pkgjail": (
        lambda env: edit(env, b'"schema":1', f'"schema":{SCHEMA + 1}'.encode()),
        f"it has schema {SCHEMA + 1}, and this pkgjail supports up to {SCHEMA}",
    ),
    "its build was interrupted": (
        make_half_built,
        "its build was interrupted; remove what is left with 'pkgjail remove",
    ),
    "its removal was interrupted": (
        lambda env: os.rename(env + b"/environment.jsonl", env + b"/removing.jsonl"),
        "its removal was interrupted; remove what is left with 'pkgjail remove",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_modified_copy_is_not_entered(anyone: Caller, manifest_file: Path, host: bytes, name: str) -> None:
    """Nothing runs in it, and the message names what differs."""
    built = anyone.pkgjail("build", "--copy", "--root", os.fsdecode(host), manifest_file, "env")
    assert built.returncode == 0
    change, expected = TAMPERED[name]
    change(bytes(anyone.home / "env"))
    ran = anyone.pkgjail("enter", "env", "--", "sh", "-c", "echo entered")
    assert (ran.returncode, ran.stdout) == (125, "")
    assert expected in ran.stderr


def test_a_tree_is_compared_at_each_entry(anyone: Caller, env: str) -> None:
    """Changes in it are reported by the second entry as by the first."""
    tree_of_env = anyone.home / env / "root"
    assert anyone.pkgjail("enter", env, "--", "true").returncode == 0
    if tree_of_env.exists():
        tree_of_env.joinpath("late").touch()
    second = anyone.pkgjail("enter", env, "--", "true")
    assert ("late" in second.stderr) == tree_of_env.exists()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        pytest.param(lambda _: None, "", id="nothing"),
        pytest.param(lambda env: env.rename(env.with_name("gone")), "No such file", id="it is gone"),
        pytest.param(
            lambda env: env.joinpath("manifest.jsonl").write_bytes(b""), "not as", id="its manifest"
        ),
        pytest.param(
            lambda env: env.joinpath("environment.jsonl").unlink(), "not an environment", id="its record"
        ),
        pytest.param(
            lambda env: env.symlink_to(env.rename(env.with_name("gone"))), "symbolic link", id="a link"
        ),
    ],
)
def test_the_second_entry_is_a_replay_unless_something_changed(
    manifest_file: Path, host: bytes, anyone: Caller, change: Callable[[Path], object], refused: str
) -> None:
    """A replay enters nothing that a new entry refuses."""
    built = anyone.pkgjail("build", "--root", os.fsdecode(host), manifest_file, "env")
    assert built.returncode == 0, built.stderr
    command = ["/usr/bin/python3", "-X", "importtime", "-m", "pkgjail", "enter", "env", "--", "true"]
    loaded = [line.rpartition("|")[2].strip() for line in anyone.run(command).stderr.splitlines()]
    assert "pkgjail.environments.enter" in loaded
    change(anyone.home / "env")
    second = anyone.run(command)
    assert second.returncode == (125 if refused else 0)
    assert refused in second.stderr
    loaded = [line.rpartition("|")[2].strip() for line in second.stderr.splitlines()]
    assert ("pkgjail.environments.enter" in loaded) == bool(refused)


def test_a_command_cannot_write_to_its_environment(tmp_path: Path, host: bytes) -> None:
    """Later entries depend on its files."""
    env_path = bytes(tmp_path / "env")
    build_environment(manifest_of(host), env_path, form="copy", root=host)
    for source in (env_path, env_path + b"/root/data", bytes(tmp_path)):
        bind = UserBind(source=source, destination=b"/srv/x", writable=True)
        with pytest.raises(JailError, match="later entries depend on it"):
            enter_environment(env_path, ["true"], JailOptions(binds=(bind,)))
    remove_environment(env_path)


@pytest.mark.parametrize("times", [1, 2], ids=["a new entry", "a replay"])
def test_an_environment_in_use_is_not_removed(anyone: Caller, env: str, times: int) -> None:
    """The command would see its files disappear. The message names the command."""
    os.mkfifo(anyone.home / "gate")
    os.chmod(anyone.home / "gate", 0o644)
    for _ in range(1, times):
        assert anyone.pkgjail("enter", "--ro-bind", "gate", env, "--", "true").returncode == 0
    command = ["enter", "--ro-bind", "gate", env, "--", "cat", str(anyone.home / "gate")]
    options = anyone.options(stdout=subprocess.PIPE)
    del options["capture_output"]
    entered = subprocess.Popen(["/usr/bin/python3", "-m", "pkgjail", *command], **options)
    with open(anyone.home / "gate", "w", encoding="ascii") as gate:  # opens when the command reads it
        refused = anyone.pkgjail("remove", env)
        second = anyone.pkgjail("enter", env, "--", "true")
        gate.write("through")
    assert entered.communicate(timeout=60)[0] == "through"
    assert (refused.returncode, second.returncode) == (1, 0)
    who = f"process {entered.pid} (/usr/bin/python3 -m pkgjail enter --ro-bind gate {env} -- cat "
    assert f"another pkgjail process builds, enters or removes it: {who}" in refused.stderr
    assert refused.stderr.endswith("; wait until that ends\n")
    assert anyone.pkgjail("remove", env).returncode == 0


# Locks a directory and every file in it that another user can open, says so, and waits for its input to end.
_STRANGER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.flock(descriptor, getattr(fcntl, sys.argv[2]))
for name in os.listdir(sys.argv[1]):
    path = os.path.join(sys.argv[1], name)
    if os.stat(path).st_mode & 0o004:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def stranger(env: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that locks everything in the environment that another user can open.

    It is of another user if root runs the tests.
    """
    command = ["/usr/bin/python3", "-c", _STRANGER, str(env), how]
    ids: dict[str, Any] = {"user": 1234, "group": 1234, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", **ids
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


@pytest.fixture
def shared(host: bytes) -> Iterator[Path]:
    """Build an environment of this process's user that everybody may read."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-shared-") as made:
        Path(made).chmod(0o755)
        env_path = Path(made) / "env"
        build_environment(manifest_of(host), bytes(env_path), root=host)
        yield env_path


@pytest.mark.parametrize("older", [False, True], ids=["with a lock file", "of an older pkgjail"])
@pytest.mark.parametrize("who", ["its owner", "another user"])
def test_a_stranger_keeps_nobody_out(
    caller: Caller, user: Caller, shared: Path, who: str, *, older: bool
) -> None:
    """Anybody can lock what they can open to read."""
    assert (shared / "lock").stat().st_mode & 0o777 == 0o600
    if older:
        (shared / "lock").unlink()
    one = caller if who == "its owner" else user
    with stranger(shared, "LOCK_EX"):
        for _ in range(2):  # a new entry, then a replay
            entered = one.pkgjail("enter", shared, "--", "true", timeout=60)
            assert (entered.returncode, entered.stderr) == (0, "")
    assert (shared / "lock").exists() == (not older or one.uid == os.geteuid())


@pytest.mark.parametrize("how", ["LOCK_EX", "LOCK_SH"])
def test_a_removal_waits_for_a_stranger_and_says_so_but_not_for_ever(
    shared: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stranger may be a user of the environment, or not. The warning names the process."""
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 2)
    reporter = Reporter()
    with stranger(shared, how) as process:
        remove_environment(bytes(shared), reporter=reporter)
    assert not shared.exists()
    assert len(reporter.warned) == 1
    assert f"is in use by others, who cannot stop you: process {process.pid} (" in reporter.warned[0]


def test_a_removal_goes_on_when_the_others_have_left(shared: Path) -> None:
    """A short wait causes no warning."""
    reporter = Reporter()
    with stranger(shared, "LOCK_SH") as process:
        assert process.stdin is not None
        leaving = threading.Timer(0.3, process.stdin.close)
        leaving.start()
        remove_environment(bytes(shared), reporter=reporter)
    assert reporter.warned == []


def test_a_stranger_does_not_stop_a_build(anyone: Caller, manifest_file: Path, host: bytes) -> None:
    """The stranger locks the directory before it becomes an environment."""
    env_path = anyone.home / "new"
    env_path.mkdir()
    os.chown(env_path, anyone.uid, anyone.uid)
    anyone.home.chmod(0o755)
    with stranger(env_path, "LOCK_EX"):
        built = anyone.pkgjail("build", "--root", os.fsdecode(host), manifest_file, "new", timeout=60)
    assert built.returncode == 0, built.stderr


def test_an_environment_of_an_older_pkgjail_is_removed(shared: Path) -> None:
    """It has no lock file until it is entered or removed."""
    (shared / "lock").unlink()
    remove_environment(bytes(shared))
    assert not shared.exists()


def test_a_lock_file_that_others_could_open_becomes_private(shared: Path) -> None:
    """At the next entry of a user who may write to the environment."""
    (shared / "lock").chmod(0o644)
    assert enter_environment(bytes(shared), ["true"]) == 0
    assert (shared / "lock").stat().st_mode & 0o777 == 0o600


_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root; CI is root")


@_ROOT
@pytest.mark.parametrize("work", ["enter", "remove"])
@pytest.mark.parametrize("owner", [0, 1234], ids=["root's", "a third user's"])
def test_the_lock_file_of_a_stranger_may_be_any_file(
    caller: Caller, user: Caller, shared: Path, owner: int, work: str
) -> None:
    """The owner of a directory can rename the files of others in it. Root does not give those away."""
    secret = user.home / "secret"
    secret.write_text("not for everybody")
    os.chown(secret, owner, owner)
    secret.chmod(0o640)
    descriptor = os.open(secret, os.O_RDONLY)
    os.chown(shared, user.uid, user.uid)
    for name in ("environment.jsonl", "manifest.jsonl"):
        os.chown(shared / name, user.uid, user.uid)
    secret.rename(shared / "lock")
    command = ("--", "true") if work == "enter" else ()
    done = caller.pkgjail(work, shared, *command, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = os.fstat(descriptor)
    os.close(descriptor)
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (owner, 0o640)


@_ROOT
def test_a_lock_file_that_root_makes_belongs_to_the_owner(caller: Caller, user: Caller, shared: Path) -> None:
    """Root may be the first to enter an environment of an older pkgjail; its owner needs the file too."""
    (shared / "lock").unlink()
    os.chown(shared, user.uid, user.uid)
    assert caller.pkgjail("enter", shared, "--", "true", timeout=60).returncode == 0
    found = (shared / "lock").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user.uid, 0o600)
