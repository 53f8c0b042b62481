"""Limits of a jail: read from text, enforced or refused, and never weaker than requested.

Tests that need a delegated control group run in a virtual machine: see `test_limits_guest.py`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.limit_options import add_limit_options, limits_of
from pkgjail.core.errors import JailError
from pkgjail.core.options import JailOptions, Limits, UserBind
from pkgjail.jails.limits import checked_limits
from pkgjail.jails.run import run_in_jail
from pkgjail.manifest import write_manifest
from pkgjail.sandbox import cgroups, limits

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller


@pytest.fixture
def manifest(base_manifest: Manifest, library: Path) -> Path:
    """Return a manifest's file that every user may read."""
    path = library / "limits.jsonl"
    write_manifest(base_manifest, path)
    path.chmod(0o644)
    return path


def parsed(words: str) -> Limits:
    parser = argparse.ArgumentParser()
    add_limit_options(parser)
    return limits_of(parser.parse_args(words.split()))


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("", Limits()),
        ("--memory 4096", Limits(memory=4096)),
        ("--memory 512M", Limits(memory=512 << 20)),
        ("--memory 4g", Limits(memory=4 << 30)),
        ("--memory 1T", Limits(memory=1 << 40)),
        ("--cpus 2", Limits(cpus=2.0)),
        ("--cpus .5", Limits(cpus=0.5)),
        ("--pids 7 --cpus 1.25 --memory 1K", Limits(memory=1024, cpus=1.25, pids=7)),
    ],
)
def test_limits_are_read(words: str, read: Limits) -> None:
    assert parsed(words) == read


@pytest.mark.parametrize(
    "words",
    [f"--memory={word}" for word in ("", "0", "0G", "-1", "1.5G", "1P", "1 G", "9999999T", "²", "0x10")]
    + [f"--cpus={word}" for word in ("", "-1", "nan", "inf", "1e3", "1_0", "two", "٣")]
    + [f"--pids={word}" for word in ("", "0", "-1", "1.5", "9999999999", "many", "٣")],
)
def test_a_wrong_limit_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects from a limit that is read as another, or as none."""
    with pytest.raises(SystemExit):
        parsed(words)
    assert words.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Limits(memory=0), "memory 0 is less than 1"),
        (Limits(memory=-5), "memory -5 is less than 1"),
        (Limits(memory=1 << 63), f"memory {1 << 63} is too much"),
        (Limits(cpus=0.001), "cpus 0.001 is less than 0.01"),
        (Limits(cpus=float("inf")), "cpus inf is too much"),
        (Limits(cpus=float("nan")), "cpus nan is too much"),
        (Limits(pids=0, memory=0), "memory 0 is less than 1, pids 0 is less than 1"),
    ],
)
def test_the_library_refuses_a_wrong_limit(base_manifest: Manifest, asked: Limits, text: str) -> None:
    with pytest.raises(JailError, match=text):
        run_in_jail(base_manifest, ["true"], JailOptions(limits=asked))


@pytest.mark.parametrize("source", [b"/", b"/sys", b"MOUNT", b"MOUNT/below"])
def test_a_bind_of_control_groups_is_refused(source: bytes) -> None:
    """Protects the limits from a command that could write to the files that set them."""
    for point in cgroups.mount_points():
        place = source.replace(b"MOUNT", point)
        bind = UserBind(source=place, destination=b"/srv", writable=True)
        with pytest.raises(JailError, match="where the command could lift its limits"):
            checked_limits(JailOptions(binds=(bind,), limits=Limits(pids=9)))
        read_only = UserBind(source=place, destination=b"/srv", writable=False)
        assert checked_limits(JailOptions(binds=(read_only,), limits=Limits(pids=9))) == (None, None, 9)


# Starts children that stay, until it may not; says how many it got.
_FORK = "$n = 0; while ($n < 90 && defined($p = fork)) { sleep 60 if !$p; $n++ } print qq($n\\n)"


@pytest.mark.parametrize("nested", [False, True], ids=["the jail", "a user namespace in it"])
def test_an_ordinary_users_processes_are_limited(user: Caller, manifest: Path, *, nested: bool) -> None:
    """Protects the host from a fork bomb, with or without a control group: 1 + 19 are 20."""
    command = ["unshare", "--user"] if nested else []
    done = user.pkgjail("run", "--pids", "20", manifest, "--", *command, "perl", "-e", _FORK)
    assert (done.returncode, done.stdout) == (0, "19\n"), done.stderr


@pytest.mark.parametrize("pids", ["1", "2"])
def test_no_process_more_than_the_limit(user: Caller, manifest: Path, pids: str) -> None:
    """Protects the count: pkgjail's own processes are not the command's."""
    done = user.pkgjail("run", "--pids", pids, manifest, "--", "perl", "-e", _FORK)
    assert (done.returncode, done.stdout) == (0, f"{int(pids) - 1}\n"), done.stderr


def test_a_second_run_is_limited_too(user: Caller, manifest: Path) -> None:
    """Protects from a replay, which does not know limits."""
    command = ["--", "perl", "-e", _FORK]
    for options, told in (([], "90\n"), (["--pids", "9"], "8\n"), (["--pids", "9"], "8\n"), ([], "90\n")):
        assert user.pkgjail("run", *options, manifest, *command).stdout == told


# Whoever runs the tests has other processes in the control group, if it is the user's at all.
_WHY = "(is not delegated to this user|has other processes too|has no controller|no control groups)"


@pytest.mark.parametrize("option", ["--memory=1G", "--cpus=1", "--pids=9"])
@pytest.mark.parametrize("verb", ["run", "mounts"])
def test_a_limit_that_cannot_be_enforced_is_refused(
    user: Caller, manifest: Path, verb: str, option: str
) -> None:
    """Protects from a jail without the requested limits; the message says what to do."""
    done = user.pkgjail(verb, option, manifest, *(["--", "true"] if verb == "run" else []))
    said = done.stderr + done.stdout
    if option == "--pids=9":
        assert (done.returncode, verb == "mounts") == (0, "pids: 9, by RLIMIT_NPROC" in said), said
    else:
        assert done.returncode == (125 if verb == "run" else 0), said
        assert re.search(_WHY, said), said
        assert "systemd-run --user --scope -p Delegate=yes pkgjail" in said


def test_a_group_that_cannot_be_entered_is_reported(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Protects the command from starting outside of its group, and the message from a wrong cause."""
    with open(tmp_path / "cgroup.procs", "wb") as entrance, monkeypatch.context() as patch:
        os.dup2(os.open("/dev/full", os.O_WRONLY), entrance.fileno())
        group = cgroups.JailGroup(os.fsencode(tmp_path), entrance.fileno())
        enforcement = limits.EnforcedLimits(group, None, limits_memory=False)
        patch.setattr(limits, "enforced", lambda _, own_processes: nullcontext(enforcement))  # noqa: ARG005
        with pytest.raises(JailError, match=f"cannot limit the jail: {tmp_path}/cgroup.procs: No space left"):
            run_in_jail(base_manifest, ["true"], JailOptions(limits=Limits(pids=9)))


def test_a_resource_limit_does_not_bind_root() -> None:
    """Protects the use of RLIMIT_NPROC, which depends on this probe."""
    assert limits._rlimit_counts_per_namespace() == (os.geteuid() != 0)


_V2 = "29 22 0:26 {top} {point} rw - cgroup2 cgroup2 rw\n"
_V1 = "30 22 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"


# Where the mount shows `top`, and the process is in `name`: the group's place below the mount point.
@pytest.mark.parametrize(
    ("top", "name", "place"),
    [
        ("/", "/", ""),
        ("/", "/user.slice/a b", "/user.slice/a b"),
        ("/user.slice", "/user.slice/x.scope", "/x.scope"),
        ("/user.slice", "/user.slice", ""),
        ("/", "/x.scope/pkgjail-caller", "/x.scope"),
    ],
)
def test_the_own_group_is_found(tmp_path: Path, top: str, name: str, place: str) -> None:
    """The mount may show only a part. The caller may be in the leaf in which an earlier jail put it."""
    point = tmp_path / "the mount"
    group = point / place.lstrip("/")
    group.mkdir(parents=True)
    (group / "pkgjail-caller").mkdir(exist_ok=True)
    for file, content in (
        ("cgroup.procs", f"{os.getpid()}\n"),
        ("cgroup.type", "domain\n"),
        ("cgroup.subtree_control", ""),
        ("cgroup.controllers", "cpu memory pids\n"),
    ):
        (group / file).write_text(content)
    proc = _proc(tmp_path, name, _V1 + _V2.format(top=top, point=str(point).replace(" ", "\\040")))
    found = cgroups.own_group(proc)
    assert (found.path, sorted(found.controllers)) == (os.fsencode(group), ["cpu", "memory", "pids"])


@pytest.mark.parametrize(
    ("top", "name", "text"),
    [
        ("", "/", "no control groups of version 2 are mounted"),
        ("/elsewhere", "/", "no control groups of version 2 are mounted"),
        ("/elsewhere", "/elsewhere-too", "no control groups of version 2 are mounted"),
        ("/", "/..", "no control groups of version 2 are mounted"),
        ("/", "/gone", "is not delegated to this user"),
        ("/", "/shared", r"has other processes too \(such as 1\)"),
        ("/", "/unreadable", "cgroup.controllers: No such file|unreadable: No such file"),
    ],
)
def test_there_may_be_no_own_group(tmp_path: Path, top: str, name: str, text: str) -> None:
    for group, processes in (("shared", f"{os.getpid()}\n1\n"), ("unreadable", "")):
        (tmp_path / group).mkdir()
        for file, content in (
            ("cgroup.procs", processes),
            ("cgroup.type", "domain"),
            ("cgroup.subtree_control", ""),
        ):
            (tmp_path / group / file).write_text(content)
    proc = _proc(tmp_path, name, _V1 + (_V2.format(top=top, point=tmp_path) if top else ""))
    with pytest.raises(cgroups.NoGroupError, match=text):
        cgroups.own_group(proc)


def _proc(place: Path, name: str, mounts: str) -> bytes:
    """Make a directory like /proc/self, whose process is in the group `name`."""
    proc = place / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(f"8:pids:/\n0::{name}\n")
    (proc / "mountinfo").write_text(mounts)
    return os.fsencode(proc)


def test_waiting_for_a_locked_group_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user who sees a control group can lock it; that is reported."""
    monkeypatch.setattr(cgroups, "_LOCK_TIMEOUT", 0.2)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with (
        pytest.raises(BlockingIOError, match="another process has locked it"),
        cgroups._locked(bytes(tmp_path)),
    ):
        pass
    os.close(held)
    with cgroups._locked(bytes(tmp_path)):
        pass
