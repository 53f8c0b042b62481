"""Replay: the same command line enters a prepared jail again, unless its state has changed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail import __main__
from pkgjail.cli.main import main
from pkgjail.core.errors import JailError, limit_at_fault
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails import replay, strategy
from pkgjail.jails.run import default_environment, prepare_jail
from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON
from tests.manifest_text import files_alone
from tests.test_drift import CHANGING, WAITING, entries_of, make_host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# What the long way imports, and the short one does not.
_LONG = "pkgjail.jails.run"


class Entering:
    """One user who runs the same command line many times, in a runtime directory of their own."""

    def __init__(self, caller: Caller, manifest: Manifest) -> None:
        self.caller = caller
        self.home = caller.home
        self.manifest = caller.home / "m.jsonl"
        self.runtime = caller.home / "run"
        self.runtime.mkdir(mode=0o700)
        self.bound = caller.home / "bound"
        self.bound.mkdir()
        write_manifest(manifest, self.manifest)
        for path in (self.manifest, self.runtime, self.bound):
            os.chown(path, caller.uid, caller.uid)
        self.words: list[str | Path] = ["--ro-bind", f"{self.bound}:/srv", "--env", "WANTED", "m.jsonl"]
        self.environment = {"XDG_RUNTIME_DIR": str(self.runtime), "WANTED": "1"}
        self.cwd = self.home

    def run(self, script: str = "echo $WANTED; ls /srv") -> tuple[str, bool]:
        """Return what the script prints, and whether the jail was prepared anew."""
        command = [SYSTEM_PYTHON, "-X", "importtime", "-m", "pkgjail", "run", *self.words]
        done = self.caller.run(
            [*command, "--", "sh", "-c", script], environment=self.environment, cwd=self.cwd
        )
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert done.returncode == 0, done.stderr
        return done.stdout, _LONG in loaded

    def records(self) -> list[Path]:
        """Return the saved jails."""
        return sorted((self.runtime / "pkgjail/prepared").iterdir())


def test_replay_does_not_wait_for_a_layer_locked_by_another_process(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that removes layers is soon done, but a command in a jail could lock a layer for ever."""

    def refuse(_places: object) -> list[int]:
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

    jail = prepare_jail(base_manifest)
    monkeypatch.setattr(replay, "lock_shared", refuse)
    with pytest.raises(JailError, match="another process has locked the layers"):
        jail.run(["true"])


@pytest.fixture
def entering(user: Caller, base_manifest: Manifest) -> Entering:
    return Entering(user, base_manifest)


def test_the_second_run_is_a_replay(anyone: Caller, base_manifest: Manifest) -> None:
    """Also for another command, which is not part of the key."""
    entering = Entering(anyone, base_manifest)
    assert entering.run() == ("1\n", True)
    assert entering.run() == ("1\n", False)
    assert entering.run("echo other") == ("other\n", False)
    assert len(entering.records()) == 1


def _elsewhere(entering: Entering) -> None:
    entering.cwd = entering.bound
    (entering.bound / "m.jsonl").symlink_to("../m.jsonl")


def _another_source(entering: Entering) -> None:
    entering.bound.rename(entering.home / "moved")
    (entering.home / "other").mkdir()
    (entering.home / "other/file").touch()
    entering.bound.symlink_to("other")


def _rewrite_manifest(entering: Entering) -> None:
    content = entering.manifest.read_bytes()
    entering.manifest.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        pytest.param(lambda e: e.environment.update(TERM="vt100"), "1\n", id="another terminal"),
        pytest.param(lambda e: e.words.insert(0, "--no-network"), "1\n", id="other words"),
        pytest.param(_elsewhere, "1\nm.jsonl\n", id="another working directory"),
        pytest.param(_another_source, "1\nfile\n", id="a bind's source is another directory"),
        pytest.param(_rewrite_manifest, "1\n", id="the manifest was written to"),
        pytest.param(lambda e: e.records()[0].write_bytes(b""), "1\n", id="an empty record"),
        pytest.param(lambda e: e.records()[0].write_bytes(b"\xffnonsense"), "1\n", id="nonsense"),
        pytest.param(lambda e: e.records()[0].write_bytes(b"N"), "1\n", id="a record of another kind"),
        pytest.param(lambda e: e.records()[0].unlink(), "1\n", id="no record"),
        pytest.param(
            lambda e: (e.runtime / "pkgjail").chmod(0o777), "1\n", id="a directory that others may write to"
        ),
    ],
)
def test_a_changed_state_prevents_replay(
    entering: Entering, change: Callable[[Entering], object], output: str
) -> None:
    """Protects from entering a jail other than the requested one."""
    entering.run()
    assert entering.run()[1] is False
    change(entering)
    assert entering.run() == (output, True)


def test_a_replay_chooses_variables_anew(entering: Entering) -> None:
    """No plan depends on them, and each process of an MPI program has other values."""
    entering.words[2:4] = ["--env=WANTED", "--env=RANK_*", "--env=RANK_X"]
    entering.environment.update(RANK_X="", RANK_1="a")
    script = "echo $WANTED; env | grep RANK_ | sort"
    assert entering.run(script) == ("1\nRANK_1=a\nRANK_X=\n", True)
    del entering.environment["RANK_1"]
    entering.environment.update(WANTED="2", RANK_2="b", RANK_3="c")
    assert entering.run(script) == ("2\nRANK_2=b\nRANK_3=c\nRANK_X=\n", False)


def test_a_variable_that_is_not_passed_on_is_reported_each_time(entering: Entering) -> None:
    """A replay has no words for it, so the jail is prepared anew; nothing of the former value is left."""
    entering.run()
    assert entering.run() == ("1\n", False)
    del entering.environment["WANTED"]
    for _ in range(2):
        words = ["run", *entering.words, "--", "sh", "-c", "echo $WANTED"]
        ran = entering.caller.pkgjail(*words, environment=entering.environment, cwd=entering.cwd)
        assert (ran.stdout, ran.stderr) == (
            "\n",
            "pkgjail: warning: '--env WANTED' passes nothing on: no such variable is set\n",
        )


def test_a_changed_link_on_the_way_to_the_manifest_prevents_replay(
    entering: Entering, base_manifest: Manifest
) -> None:
    """The link is neither the given path nor the final one."""
    for link, target in (("stable.jsonl", "m.jsonl"), ("latest.jsonl", "stable.jsonl")):
        (entering.home / link).symlink_to(target)
    entering.words[-1] = "latest.jsonl"
    assert [entering.run()[1], entering.run()[1]] == [True, False]
    fewer = tuple(entry for entry in base_manifest.files if entry.path != b"/usr/bin/env")
    write_manifest(replace(base_manifest, files=fewer), entering.home / "other.jsonl")
    (entering.home / "stable.jsonl").unlink()
    (entering.home / "stable.jsonl").symlink_to("other.jsonl")
    assert entering.run("test -e /usr/bin/env || echo other") == ("other\n", True)


def test_a_changed_root_prevents_replay(entering: Entering) -> None:
    """The root is given as a link, which then leads elsewhere."""
    (entering.home / "root").symlink_to("/")
    entering.words[:0] = ["--root", "root"]
    assert [entering.run()[1], entering.run()[1]] == [True, False]
    (entering.home / "root").unlink()
    (entering.home / "root").symlink_to("bound")
    command = [SYSTEM_PYTHON, "-m", "pkgjail", "run", *entering.words, "--", "true"]
    assert entering.caller.run(command, environment=entering.environment).returncode == 125


def test_a_link_that_leads_to_another_environment_prevents_replay(entering: Entering) -> None:
    """One path leads first to one environment and then to another."""
    for name in ("first", "second"):
        (entering.home / name).mkdir()
        os.chown(entering.home / name, entering.caller.uid, entering.caller.uid)
        words = ["build", "--env", f"WHICH={name}", "m.jsonl", f"{name}/env"]
        assert entering.caller.pkgjail(*words, environment=entering.environment).returncode == 0
    link = entering.home / "link"
    said = []
    for name in ("first", "first", "second"):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        words = ["enter", "link/env", "--", "sh", "-c", "echo $WHICH"]
        said.append(entering.caller.pkgjail(*words, environment=entering.environment).stdout)
    assert said == ["first\n", "first\n", "second\n"]


def test_a_jail_of_a_whitelist_is_never_replayed(entering: Entering) -> None:
    """It depends on included lists, blacklists and packages, which replay does not check."""
    (entering.home / "outer.toml").write_text('include = ["./inner.toml"]\n')
    (entering.home / "inner.toml").write_text('include = ["base"]\n')
    entering.words[-1] = "./outer.toml"
    assert [entering.run()[1], entering.run()[1]] == [True, True]
    entering.words[:0] = ["--blacklist", "./names.ignore"]
    names = entering.home / "names.ignore"
    names.write_text("")
    for _ in range(2):
        assert entering.run("ls /usr/bin/env")[0] == "/usr/bin/env\n"
    names.write_text("/usr/bin/env\n")
    assert entering.run("test -e /usr/bin/env || echo hidden")[0] == "hidden\n"


def test_a_missing_working_directory_is_no_crash(entering: Entering) -> None:
    """Protects from a traceback in a replay."""
    (entering.home / "gone").mkdir()
    entering.cwd = entering.home / "gone"
    entering.words[-1] = entering.manifest
    entering.run()
    words = ["-m", "pkgjail", "run", *entering.words, "--", "echo", "in"]
    script = 'rmdir ../gone && exec "$@"'
    command = ["sh", "-c", script, "sh", SYSTEM_PYTHON, *words]
    done = entering.caller.run(command, environment=entering.environment, cwd=entering.cwd)
    assert (done.stdout, done.stderr) == ("in\n", "")


@pytest.mark.parametrize("option", ["--verify", "--allow-drift"])
def test_verification_is_never_replayed(entering: Entering, option: str) -> None:
    """Protects a verification that was requested by name."""
    entering.words.insert(0, option)
    for _ in range(2):
        assert entering.run() == ("1\n", True)


def test_another_version_of_pkgjail_prevents_replay(entering: Entering, library: Path) -> None:
    """Protects from a plan of another version: the code is part of the state."""
    entering.run()
    source = library / "pkgjail/jails/plan.py"
    content = source.read_bytes()
    source.write_bytes(content)
    assert entering.run()[1] is True
    assert entering.run()[1] is False


def test_a_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects /dev/shm, where any user can make a directory of that name beforehand."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "pkgjail").symlink_to(tmp_path)
    assert replay.replay(["run", "m.jsonl", "--", "true"], int) is None


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="nothing"),
        pytest.param(["run", "m.jsonl"], id="no command"),
        pytest.param(["run", "m.jsonl", "--"], id="an empty command"),
        pytest.param(["show", "m.jsonl", "--", "x"], id="another verb"),
        pytest.param(["run", "m\udcff.jsonl", "--", "x"], id="an odd name"),
    ],
)
def test_other_command_lines_are_not_replayed(words: list[str]) -> None:
    assert replay.replay(words, int) is None


def test_a_missing_command_has_the_usual_error(entering: Entering) -> None:
    """Protects the messages: replay has none of its own."""
    entering.run()
    done = entering.caller.pkgjail("run", *entering.words, "--", "no-such", environment=entering.environment)
    assert (done.returncode, "there is no such command in the jail" in done.stderr) == (127, True)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (
            OSError(errno.EAGAIN, "no more processes"),
            125,
            f"pkgjail: no more processes: {limit_at_fault(errno.EAGAIN)}\n",
        ),
        (KeyboardInterrupt(), 130, "pkgjail: interrupted\n"),
    ],
    ids=["refused", "interrupted"],
)
def test_an_interrupted_replay_is_reported(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    told: str,
) -> None:
    """Protects from a traceback, and from running the command twice."""

    def enter(*_: object) -> int:
        raise error

    monkeypatch.setattr(replay, "replay", enter)
    monkeypatch.setattr(sys, "argv", ["pkgjail", "run", "m.jsonl", "--", "true"])
    assert __main__.main() == status
    assert capfd.readouterr().err == told


def test_a_program_can_enter_many_times(base_manifest: Manifest, tmp_path: Path) -> None:
    """Protects `prepare_jail`: one jail after the other, each with a /tmp of its own."""
    bind = UserBind(source=bytes(tmp_path), destination=b"/srv", writable=True)
    jail = prepare_jail(base_manifest, JailOptions(binds=(bind,), environment=default_environment()))
    for number in range(3):
        assert jail.enter(["sh", "-c", f"test ! -e /tmp/x && touch /tmp/x && echo {number} >> /srv/out"]) == 0
    assert (tmp_path / "out").read_text() == "0\n1\n2\n"


def test_threads_can_enter_at_the_same_time(base_manifest: Manifest) -> None:
    """Protects a program with threads, each with a jail of its own."""
    statuses: list[int] = []

    def enter(number: int) -> None:
        jail = prepare_jail(base_manifest, JailOptions(environment=default_environment()))
        statuses.append(jail.enter(["sh", "-c", f"exit {number}"]))

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 1, 2, 3]


def test_replay_imports_little(entering: Entering) -> None:
    """Protects the time of an entry: no typing, no argparse, no pathlib, no dataclasses."""
    entering.run()
    command = [SYSTEM_PYTHON, "-X", "importtime", "-m", "pkgjail", "run", *entering.words, "--", "true"]
    done = entering.caller.run(command, environment=entering.environment)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & {"typing", "argparse", "pathlib", "dataclasses", "hashlib", "json", "subprocess"} == set()
    assert {name for name in loaded if name.startswith("pkgjail.")} == {
        "pkgjail.cli",
        "pkgjail.settings",
        "pkgjail.settings.files",
        "pkgjail.jails",
        "pkgjail.storage",
        "pkgjail.storage.fingerprint",
        "pkgjail.storage.filesystems",
        "pkgjail.core",
        "pkgjail.core.working_directory",
        "pkgjail.storage.locks",
        "pkgjail.storage.locations",
        "pkgjail.storage.marshal_store",
        "pkgjail.storage.mounts",
        "pkgjail.storage.own_files",
        "pkgjail.jails.replay",
        "pkgjail.sandbox",
        "pkgjail.sandbox.rootfs",
        "pkgjail.sandbox.pseudo_filesystems",
        "pkgjail.sandbox.executables",
        "pkgjail.sandbox.proc_links",
        "pkgjail.sandbox.seccomp",
        "pkgjail.sandbox.id_calls",
        "pkgjail.sandbox.id_maps",
        "pkgjail.sandbox.capabilities",
        "pkgjail.sandbox.command",
        "pkgjail.sandbox.init",
        "pkgjail.sandbox.job",
        "pkgjail.sandbox.launch",
        "pkgjail.sandbox.syscalls",
        "pkgjail.sandbox.signals",
        "pkgjail.jails.privileges",
        "pkgjail.jails.variables",  # as there is --env
        "pkgjail.cli.streams",
    }


def test_a_temporary_fallback_is_not_saved(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the runtime directory was full for a moment, file binds must not stay the strategy for good."""

    def probe_obstacle(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_manifest(base_manifest, tmp_path / "m.jsonl")
    words = ["run", str(tmp_path / "m.jsonl"), "--", "true"]
    with monkeypatch.context() as patch:
        patch.setattr(strategy, "probe_obstacle", probe_obstacle)
        assert main(words) == 0
    assert not (tmp_path / "pkgjail/prepared").exists()
    assert main(words) == 0
    assert len(os.listdir(tmp_path / "pkgjail/prepared")) == 1


@pytest.mark.parametrize(("option", "status"), [((), 7), (("--strict-exit",), 125)])
def test_replay_warns_of_changes_during_the_run(user: Caller, option: tuple[str, ...], status: int) -> None:
    """Protects results of half-old, half-new files. The jail is replayed."""
    host, sync = user.home / "host", user.home / "sync"
    for directory in (host, sync):
        directory.mkdir()
    make_host(host)
    write_manifest(files_alone(entries_of(host)), user.home / "m.jsonl")
    subprocess.run(["chown", "-R", "-h", f"{user.uid}:{user.uid}", user.home], check=True)
    words = ["run", *option, "--root", str(host), "--bind", f"{sync}:/sync", "m.jsonl", "--"]
    assert user.pkgjail(*words, "/bin/busybox", "true").returncode == 0
    with subprocess.Popen(["/bin/sh", "-ec", CHANGING.format(sync, "rm usr/lib/link")], cwd=host):
        command = [SYSTEM_PYTHON, "-X", "importtime", "-m", "pkgjail", *words, "/bin/busybox", "sh", "-ec"]
        done = user.run([*command, WAITING])
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, lines[1]) == (status, "  /usr/lib/link is gone")
    assert "the host changed while the command ran, which ended with status 7:" in lines[0]
    # The jail's own modules come after the command's end only.
    assert done.stderr.index("pkgjail.sandbox.launch") < done.stderr.index("pkgjail.cli.main")
