"""Stages, with the real engines: what a command sees, what it cannot do, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.cli.main import main
from pkgjail.core.errors import CommandError, JailError, PkgjailError, UsageError
from pkgjail.core.jail_names import ROOT_CAPABILITIES, ROOT_CAPABILITY_NAMES
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.core.stage_names import STAGE_NAMES
from pkgjail.export.image.bundle import hidden_paths
from pkgjail.manifest import write_manifest
from pkgjail.sandbox import steps as s
from pkgjail.stages import STAGES, run_in_stage
from pkgjail.stages.container import container_of
from pkgjail.stages.model import PROPERTIES, RefusedError
from tests.conftest import SYSTEM_PYTHON
from tests.engines import settings_of_podman
from tests.sleepers import Marked
from tests.terminals import INTERRUPT, SUSPEND, shell
from tests.test_export import FIT, LINE_ENDS, NOT_UTF8, described, odd_tree, seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Caller

ENGINES = ("bwrap", "podman", "runc", "nspawn")
IS_ROOT = os.geteuid() == 0
NAMES = (*FIT, *LINE_ENDS, *NOT_UTF8)
HOSTS = b"127.0.0.1\tlocalhost pkgjail\n::1\tlocalhost ip6-localhost ip6-loopback\n"
BUSYBOX = "/usr/bin/busybox"
# Who can use each engine. podman needs subordinate ids, and an ordinary user here has none.
USERS = [
    pytest.param(("root", "caller"), id="root", marks=pytest.mark.skipif(not IS_ROOT, reason="root's alone")),
    pytest.param(("bwrap", "caller"), id="bwrap"),
    pytest.param(("runc", "caller"), id="runc"),
    *(
        pytest.param((engine, "caller"), id=engine, marks=pytest.mark.skipif(not IS_ROOT, reason="root's"))
        for engine in ("podman", "nspawn")
    ),
    pytest.param(("bwrap", "member"), id="bwrap of a user"),
    pytest.param(("runc", "member"), id="runc of a user"),
]


class Staged:
    """Runs commands of one user in one stage, among the files of a tree with odd names."""

    def __init__(self, stage: str, user: Caller) -> None:
        self.stage = stage
        self.user = user
        self.manifest = odd_tree(user.home / "root", NAMES)
        write_manifest(self.manifest, user.home / "m.jsonl")
        self.variables = settings_of_podman(user.home)
        (user.home / "data").mkdir()
        subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)
        # What every call needs: a user's runc knows user 0 alone.
        self.needed = ["--map-root"] if stage == "runc" and user.uid else []

    def words(self, *options: str | Path) -> list[str | Path]:
        """The arguments before the command."""
        return ["run", "--stage", self.stage, *self.needed, "--root", "root", *options, "m.jsonl", "--"]

    def __call__(
        self, *command: str, options: Sequence[str | Path] = (), **more: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command."""
        words = [*self.words(*options), *command]
        return self.user.pkgjail(*words, environment=self.variables, **more)

    def sh(
        self, script: str, options: Sequence[str | Path] = (), **more: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a script of busybox's shell, which has its programs."""
        return self(BUSYBOX, "sh", "-c", script, options=options, **more)


@pytest.fixture(params=USERS)
def staged(request: pytest.FixtureRequest) -> Staged:
    stage, user = request.param
    return Staged(stage, request.getfixturevalue(user))


# --- what a command sees --------------------------------------------------------------------------

_ADDED = {
    "podman": {b"/etc/hostname", b"/etc/mtab", b"/run/.containerenv"},
}


def test_exactly_the_manifest(staged: Staged) -> None:
    """Names of any bytes, kinds, modes, contents and links, and no others but those that are documented."""
    tops = {entry.path for entry in staged.manifest.files if entry.path.count(b"/") == 1} - {b"/"}
    listed = staged(BUSYBOX, "ls", "-a", "/", text=False, errors=None).stdout
    assert set(listed.split(b"\n")) - {b"", b".", b".."} == {top[1:] for top in tops} | {b"dev", b"sys"}
    # Of /run systemd-nspawn makes its own.
    other = {b"/proc", b"/run"} if staged.stage == "nspawn" else {b"/proc"}
    walked = sorted(os.fsdecode(path[1:]) for path in tops - other)
    archive = staged(BUSYBOX, "tar", "-c", "-C", "/", "-f", "-", *walked, text=False, errors=None)
    assert archive.returncode == 0, archive.stderr
    found = seen(archive.stdout)
    for path in _ADDED.get(staged.stage, ()):
        assert found.pop(path)
    entries = [
        entry
        if entry.kind == "symlink" or staged.stage == "root"
        else entry._replace(mode=entry.mode & 0o1777)
        for entry in staged.manifest.files
        if entry.path not in {b"/", *other}
    ]
    assert found == described(entries, HOSTS)


def test_no_right_and_nothing_of_the_caller(staged: Staged) -> None:
    """No capability, no new privilege, no writing, the jail's variables and id, and no open descriptor."""
    script = (
        "id -u; id -g; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; env | sort; echo fds;"
        "for each in /proc/self/fd/*; do readlink $each; done;"
        "touch /usr/x || echo refused; touch /x || echo refused; rm /etc/hosts || echo refused"
    )
    secret = os.open(staged.user.home, os.O_RDONLY)
    try:
        done = staged.sh(script, pass_fds=(secret,), options=["--env", "ONE=1 2"])
    finally:
        os.close(secret)
    assert done.returncode == 0, done.stderr
    as_root = bool(staged.needed)
    lines, _, descriptors = done.stdout.partition("fds\n")
    user = "0" if as_root else str(staged.user.uid)
    rights = f"{ROOT_CAPABILITIES if as_root else 0:016x}"
    expected = [user, user, f"CapEff:\t{rights}", f"CapBnd:\t{rights}", "NoNewPrivs:\t1"]
    found = lines.splitlines()[:5]
    if staged.stage == "bwrap" and not staged.user.uid:
        # Root's bubblewrap leaves the bounding set as it is; without new privileges nobody gets them.
        expected[3] = found[3]
    assert found == expected
    variables = dict(line.split("=", 1) for line in lines.splitlines()[5:])
    own = {"HOME", "LANG", "LOGNAME", "PATH", "PWD", "SHELL", "SHLVL", "USER", "ONE"}
    added = {
        "podman": {"HOSTNAME"},
        "nspawn": {"NOTIFY_SOCKET", "container", "container_host_id", "container_host_version_id"}
        | {"container_uuid", "TERM"},
    }
    assert set(variables) - added.get(staged.stage, set()) == own
    assert variables["ONE"] == "1 2"
    assert str(staged.user.home) not in descriptors
    assert descriptors.count("refused") == 3


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user may not read or write these anyway")
@pytest.mark.parametrize("stage", ENGINES)
def test_what_the_hosts_root_may_do_without_capabilities(stage: str, caller: Caller) -> None:
    """Protects the kernel's settings, control groups, and what root alone may read."""
    staged = Staged(stage, caller)
    setting = "/proc/sys/kernel/core_pattern"
    writes = f"cat {setting} >/tmp/same; cat /tmp/same >{setting} || echo refused"
    groups = "test ! -d /sys/fs/cgroup || ! mkdir /sys/fs/cgroup/pkgjail-test || echo made"
    hidden = [os.fsdecode(path) for path in hidden_paths(as_root=True)]
    if stage == "nspawn":  # as its promise says
        groups = "true"
        hidden = [path for path in hidden if path.startswith("/sys/")]
    each = "find $each -type f -o -type l | head -n 3; head -c 1 $each"
    reads = f"for each in {' '.join(hidden)}; do {each}; done"
    done = staged.sh(f"({writes}) 2>/dev/null; ({groups}) 2>/dev/null; ({reads}) 2>/dev/null")
    shown = [line for line in done.stdout.splitlines() if not line.startswith("/proc/")]
    assert shown == ["refused"]
    assert len(hidden) > 5


def test_network_and_own_processes(staged: Staged) -> None:
    """Without network there is a loopback alone. Of the host's processes none is seen."""
    script = "cat /proc/net/dev; echo; ls /proc"
    done = staged.sh(script, options=["--no-network"])
    assert done.returncode == 0, done.stderr
    devices, _, names = done.stdout.partition("\n\n")
    assert re.findall(r"^ *(\w+):", devices, re.MULTILINE) == ["lo"]
    assert len([name for name in names.split() if name.isdecimal()]) <= 4
    with_network = staged.sh("cat /proc/net/dev").stdout
    assert with_network.count(":") == Path("/proc/net/dev").read_text(encoding="ascii").count(":")


def test_binds(staged: Staged) -> None:
    """A writable bind is written through to the host, as the caller; a read-only one is not."""
    (staged.user.home / "data/given").write_text("given\n")
    data = staged.user.home / "data"
    options = ["--bind", f"{data}:/srv/a b", "--ro-bind", f"{data}:/opt/odd\\:data"]
    script = "cat '/srv/a b/given'; echo made > '/srv/a b/made'; ls '/opt/odd:data'; touch '/opt/odd:data/x'"
    done = staged.sh(script, options=options)
    assert (done.returncode, done.stdout) == (1, "given\ngiven\nmade\n"), done.stderr
    assert "Read-only file system" in done.stderr
    assert (data / "made").read_text() == "made\n"
    assert (data / "made").stat().st_uid == staged.user.uid


def test_the_working_directory(staged: Staged) -> None:
    """`--cwd` starts the command where the caller is; the manifest there is protected, or that is refused."""
    done = staged.sh("pwd; touch new; rm m.jsonl", options=["--cwd"])
    if staged.stage == "nspawn":
        assert done.returncode == 125
        assert "a writable bind with names on which later runs depend" in done.stderr
        return
    assert done.stdout == f"{staged.user.home}\n", done.stderr
    assert done.returncode == 1
    assert "m.jsonl" in done.stderr
    assert (staged.user.home / "new").exists()
    assert (staged.user.home / "m.jsonl").exists()


# --- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param("exit 0", 0, id="0"),
        pytest.param("exit 7", 7, id="7"),
        pytest.param("exit 255", 255, id="255"),
        pytest.param("sh -c 'kill -9 $$' & wait $!; exit $?", 137, id="a child's signal"),
    ],
)
def test_the_status_is_the_commands(staged: Staged, script: str, status: int) -> None:
    done = staged.sh(script)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr


def test_streams_are_apart_and_unchanged(staged: Staged) -> None:
    data = bytes(range(256)) * 4000
    script = "cat; echo error >&2"
    done = staged.sh(script, input=data, text=False, errors=None)
    assert (done.returncode, done.stdout == data) == (0, True)
    assert b"error\n" in done.stderr


@pytest.mark.parametrize(
    ("command", "statuses", "words"),
    [
        pytest.param(["nothing"], {127}, "there is no such command in the jail", id="missing"),
        pytest.param(["/etc/hosts"], {125, 126, 1}, "", id="no program"),
    ],
)
def test_a_command_that_cannot_be_started(
    staged: Staged, command: list[str], statuses: set[int], words: str
) -> None:
    """Of a file that is no program, systemd-nspawn's status is 1, as `pkgjail stages` says."""
    done = staged(*command)
    assert done.returncode in statuses - (set() if staged.stage == "nspawn" else {1})
    assert words in done.stderr
    assert done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_command_handles(staged: Staged, number: signal.Signals) -> None:
    """It ends by itself in root's jail, podman's and runc's; the others are killed, as their promise says."""
    marked = Marked()
    script = f"trap 'echo handled; exit 5' INT TERM; sleep {marked.seconds} & wait"
    words = [SYSTEM_PYTHON, "-m", "pkgjail", *staged.words(), BUSYBOX, "sh", "-c", script]
    given = staged.user.options(staged.variables)
    given.pop("capture_output")
    with subprocess.Popen(words, stdout=subprocess.PIPE, **given) as process:
        try:
            marked.wait_for("S")
            process.send_signal(number)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    if staged.stage in {"root", "podman", "runc"}:
        assert (process.returncode, out) == (5, "handled\n")
    else:
        assert process.returncode not in {0, 5}
    marked.wait_for()


def test_keys_end_it_and_nothing_is_left(staged: Staged) -> None:
    """In a terminal: it can be stopped and continued, and the second Ctrl-C kills it."""
    marked = Marked()
    words = " ".join(map(str, staged.words()))
    variables = {**staged.user.options(staged.variables)["env"], "PS1": ""}
    with shell(variables, staged.user.uid) as keyboard:
        keyboard.run(f"cd {staged.user.home}")
        keyboard.wait_for_prompt()
        keyboard.run(f"/usr/bin/python3 -m pkgjail {words} {BUSYBOX} sh -c 'sleep {marked.seconds}; exit 1'")
        marked.wait_for("S")
        keyboard.type(INTERRUPT)
        time.sleep(0.4)
        keyboard.type(INTERRUPT)
        marked.wait_for()
        keyboard.wait_for_prompt()
        assert keyboard.status() in {130, 1}
    assert not list(staged.user.home.glob("pkgjail-stage-*"))
    if staged.stage == "podman":
        left = staged.user.run(["podman", "ps", "--all", "--quiet"], environment=staged.variables)
        assert left.stdout == ""


@pytest.mark.parametrize("stage", ["bwrap"])
def test_job_control(stage: str, caller: Caller) -> None:
    staged, marked = Staged(stage, caller), Marked()
    words = " ".join(map(str, staged.words()))
    with shell(caller.options(staged.variables)["env"], caller.uid) as keyboard:
        keyboard.run(f"cd {caller.home}")
        keyboard.wait_for_prompt()
        keyboard.run(f"/usr/bin/python3 -m pkgjail {words} {BUSYBOX} sleep {marked.seconds}")
        other = Marked(f"{BUSYBOX} sleep {marked.seconds}")
        other.wait_for("S")
        keyboard.type(SUSPEND)
        keyboard.wait_for("Stopped")
        other.wait_for("T")
        keyboard.run("fg")
        other.wait_for("S")
        keyboard.type(INTERRUPT)
        other.wait_for()
        keyboard.wait_for_prompt()
        assert keyboard.status() == 128 + signal.SIGINT


def test_a_terminal_of_its_own(staged: Staged) -> None:
    """With `--tty`, and with the size of the caller's."""
    words = " ".join(map(str, staged.words("--tty")))
    with shell(staged.user.options(staged.variables)["env"], staged.user.uid) as keyboard:
        keyboard.resize(33, 250)
        keyboard.run(f"cd {staged.user.home}")
        keyboard.wait_for_prompt()
        # systemd-nspawn copies the size when the command may run already.
        wait = "sleep 0.3; " if staged.stage == "nspawn" else ""
        script = f"{wait}test -t 0 && test -t 1 && stty size; exit 3"
        keyboard.run(f'/usr/bin/python3 -m pkgjail {words} {BUSYBOX} sh -c "{script}"')
        keyboard.wait_for("33 250")
        keyboard.wait_for_prompt()
        assert keyboard.status() == 3


# --- the copy -------------------------------------------------------------------------------------


def _cache(user: Caller) -> Path:
    return Path(user.options()["env"]["XDG_CACHE_HOME"])


def test_the_copy_outlives_the_hosts_files(caller: Caller) -> None:
    """It is made once, has what the manifest says though the host changes, and is made again if changed."""
    staged = Staged("bwrap", caller)
    assert staged.sh("cat /odd/plain").stdout == "1plain"
    copies = list((_cache(caller) / "pkgjail/layers").glob("copy-*"))
    (caller.home / "root/odd/plain").write_text("changed")
    assert staged.sh("cat /odd/plain").stdout == "1plain"
    assert list((_cache(caller) / "pkgjail/layers").glob("copy-*")) == copies


def test_changed_files_are_not_copied(caller: Caller) -> None:
    staged = Staged("bwrap", caller)
    (caller.home / "root/odd/plain").write_text("2plain")
    done = staged.sh("cat /odd/plain")
    assert (done.returncode, done.stdout) == (125, "")
    assert "the host has changed since the manifest was made" in done.stderr


def test_a_manifest_without_digests_is_refused(caller: Caller) -> None:
    staged = Staged("bwrap", caller)
    files = tuple(entry._replace(sha256=None) for entry in staged.manifest.files)
    write_manifest(replace(staged.manifest, files=files), caller.home / "m.jsonl")
    done = staged.sh("true")
    assert done.returncode == 125
    assert re.search("cannot export .* to a stage of copied files: the manifest has no digest", done.stderr)


def test_every_step_of_a_plan_has_its_place_in_a_container(tmp_path: Path) -> None:
    """Protects steps that few manifests have: a cover, a hidden directory, and what no engine can do."""
    steps: list[s.Step] = [
        s.Directory(b"/", 0o755),
        s.WholeDirectory(b"/a", 0o555),
        s.Cover(b"/a/f", 0o640, b"covered"),
        s.Directory(b"/tmp", 0o1777),
        s.Seal(),
        s.Tmpfs(b"/tmp", 0o1777),
        s.Directory(b"/tmp/x", 0o755),
        s.Bind(b"/tmp/x", b"/srv", writable=True),
        s.Hidden(b"/tmp/x/cache"),
        s.OneMountNamespace(),
    ]
    plan = s.Plan(b"/copy", tuple(steps), network=True, hostname="h")
    made = container_of(plan, str(tmp_path), argv=("x",))
    mounts = [(m.source.removeprefix(os.fsencode(tmp_path)), m.path, m.writable) for m in made.mounts]
    assert mounts == [
        (b"/copy/a", b"/a", False),
        (b"/cover-1", b"/a/f", False),
        (b"/srv", b"/tmp/x", True),
        (b"/empty", b"/tmp/x/cache", False),
    ]
    assert ((tmp_path / "cover-1").read_bytes(), made.keep_names) == (b"covered", True)
    assert (tmp_path / "skeleton/a").stat().st_mode & 0o7777 == 0o555
    assert not list((tmp_path / "skeleton/tmp").iterdir())


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([s.KeptLink(b"/srv/l", b"/host/l")], "cannot protect /host/l, a link on which"),
        ([s.Tmpfs(b"/tmp", 0o1777), s.Symlink(b"/tmp/l", b"x")], "cannot make the link /tmp/l"),
    ],
)
def test_what_no_engine_can_do_is_refused(steps: list[s.Step], words: str, tmp_path: Path) -> None:
    plan = s.Plan(b"/copy", (s.Directory(b"/", 0o755), *steps), network=True, hostname="h")
    with pytest.raises(PkgjailError, match=words):
        container_of(plan, str(tmp_path), argv=("x",))


def test_a_whole_image_with_a_file_that_others_may_not_read(staged: Staged) -> None:
    """An image has such files (/etc/shadow): they are there, and have no content."""
    user, store = staged.user, {"PKGJAIL_STORE": str(staged.user.home / "store")}
    imported = user.pkgjail("image", "import", "root", "odd", environment=store)
    assert imported.returncode == 0, imported.stderr
    script = "cat /odd/hidden; stat -c '%A %s' /closed/file; cat /closed/file"
    words = ["run", "--source", "image:odd", "--stage", staged.stage, *staged.needed]
    shell_words = ["--", BUSYBOX, "sh", "-c", script]
    done = user.pkgjail(*words, *shell_words, environment={**staged.variables, **store})
    may_read = bool(staged.needed)  # user 0 with capabilities reads that it is empty
    expected = (may_read, "hidden---------- 0\n")
    if staged.stage == "root":  # it shows the user's own files, no copy
        expected = (True, "hidden-rw------- 6\nclosed")
    assert (done.returncode == 0, done.stdout) == expected, done.stderr


# --- what is promised and what is refused ---------------------------------------------------------

_NOT_KEPT = [
    pytest.param(["--memory", "1G"], "limits of memory, processors or processes", id="limits"),
    pytest.param(["--share-ipc"], "shared memory with processes outside", id="ipc"),
    pytest.param(["--allow-drift"], "files that differ from the manifest", id="drift"),
    pytest.param(["--strategy", "binds"], "a strategy", id="strategy"),
    pytest.param(["--device", "/dev/fuse"], "devices", id="devices"),
    pytest.param(["--map-root"], "a command that is user 0", id="root"),
]


@pytest.mark.skipif(not IS_ROOT, reason="what root's engines keep")
@pytest.mark.parametrize("stage", ENGINES)
@pytest.mark.parametrize(("options", "words"), _NOT_KEPT)
def test_what_a_stage_cannot_keep_is_refused(
    stage: str, options: list[str], words: str, caller: Caller
) -> None:
    """Before anything is copied; unless it keeps that, as bubblewrap does with devices."""
    staged = Staged(stage, caller)
    done = staged.sh("true", options=options)
    if (stage, words) == ("bwrap", "devices"):
        assert words not in done.stderr
        return
    assert (done.returncode, done.stdout) == (125, "")
    assert f"the stage {stage} cannot keep what was asked for: {words}" in done.stderr


@pytest.mark.parametrize("stage", [*ENGINES, "namespaces"] if IS_ROOT else ["bwrap", "namespaces"])
def test_the_library(
    stage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a program's own process: `run_in_stage` returns the status, and starts nothing in vain."""
    for name, value in settings_of_podman(tmp_path).items():
        monkeypatch.setenv(name, value)
    manifest = odd_tree(tmp_path / "root", NAMES)
    root = os.fsencode(tmp_path / "root")
    (tmp_path / "data").mkdir()
    bind = UserBind(source=os.fsencode(tmp_path / "data"), destination=b"/srv", writable=True)
    options = JailOptions(binds=(bind,), cwd=b"/srv", environment={"ONE": "two"}, network=False)
    command = [BUSYBOX, "sh", "-c", "pwd; echo $ONE >file; exit 7"]
    assert run_in_stage(manifest, command, options, stage=stage, root=root) == 7
    assert capfd.readouterr().out == "/srv\n"
    assert (tmp_path / "data/file").read_text() == "two\n"
    with pytest.raises(CommandError, match="there is no such command"):
        run_in_stage(manifest, ["nothing"], options, stage=stage, root=root)
    if stage in {"bwrap", "runc"}:
        with pytest.raises(JailError, match=f"{stage} cannot start the command: "):
            run_in_stage(manifest, ["/etc/hosts"], options, stage=stage, root=root)


_UNFIT = [
    pytest.param("podman", {"argv": ("\udcff",)}, r"the word \\xff \(it is not UTF-8\)", id="podman: a word"),
    pytest.param("runc", {"argv": ("\udcff",)}, r"the word \\xff \(it is not UTF-8\)", id="runc: a word"),
    pytest.param(
        "podman",
        {"environment": {"A": "1\n2"}},
        r"the variable A \(it has several lines\)",
        id="podman: lines",
    ),
    pytest.param("podman", {"destination": b"/srv/a,b"}, r"the name /srv/a,b", id="podman: a comma"),
    pytest.param("runc", {"destination": b"/srv/\xff"}, r"the name /srv/\\xff", id="runc: a name"),
    pytest.param("nspawn", {"destination": b"/run/x"}, r"the name /run/x", id="nspawn: /run"),
]


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user has no podman and no nspawn here")
@pytest.mark.parametrize(("stage", "given", "words"), _UNFIT)
def test_what_an_engine_cannot_express_is_refused(
    stage: str, given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Names and words are never changed on the way to an engine."""
    manifest = odd_tree(tmp_path / "root", NAMES)
    destination = given.get("destination", b"/srv/x")
    bind = UserBind(source=os.fsencode(tmp_path), destination=destination, writable=False)
    options = JailOptions(binds=(bind,), environment=given.get("environment", {}))
    argv = (BUSYBOX, *given.get("argv", ()))
    with pytest.raises(RefusedError, match=words):
        run_in_stage(manifest, argv, options, stage=stage, root=os.fsencode(tmp_path / "root"))


def test_all_that_cannot_be_kept_is_said_at_once(caller: Caller) -> None:
    done = Staged("bwrap", caller).sh(
        "true", options=["--memory", "1G", "--share-ipc", "--strategy", "binds"]
    )
    assert done.stderr.count("cannot keep") == 1
    assert all(word in done.stderr for word in ("limits", "shared memory", "strategy"))


def test_an_unknown_stage_and_a_missing_engine(caller: Caller) -> None:
    staged = Staged("bwrap", caller)
    unknown = staged.user.pkgjail("run", "--stage", "chroot", "--root", "root", "m.jsonl", "--", "true")
    assert "invalid choice: 'chroot'" in unknown.stderr
    assert unknown.returncode == 125
    with pytest.raises(UsageError, match=", ".join(STAGES)):
        run_in_stage(staged.manifest, ["true"], stage="chroot")
    assert list(STAGES) == list(STAGE_NAMES)
    done = staged.user.pkgjail(*staged.words(), "true", environment={"PATH": "/nonexistent"})
    assert done.returncode == 125
    assert "bwrap is not in PATH (Debian's package bubblewrap has it)" in done.stderr


def test_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage says whether it works here, and something on each property."""
    for name, value in settings_of_podman(tmp_path).items():
        monkeypatch.setenv(name, value)
    assert main(["stages", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(STAGES)
    assert all(list(row["promises"]) == list(PROPERTIES) for row in rows)
    works = {row["name"]: row["works"] for row in rows}
    assert works["namespaces"]
    assert works["bwrap"]
    assert works["runc"]
    assert works["nspawn"] is IS_ROOT
    assert works["podman"] or not IS_ROOT, rows
    assert main(["stages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("namespaces  works")


def test_the_names_of_roots_capabilities() -> None:
    """Protects the names that engines get from the bits that the jail gets; the numbers are the kernel's."""
    numbers = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7}
    assert [f"CAP_{name}" for name in numbers] == list(ROOT_CAPABILITY_NAMES)
    assert sum(1 << number for number in numbers.values()) == ROOT_CAPABILITIES
