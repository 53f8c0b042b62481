"""Probes: an answer is used only under the circumstances of the probe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.jails import privileges, probe
from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# Runs pkgjail behind a seccomp filter that answers EPERM to one system call.
BEHIND = """
import os, sys
from pkgjail.sandbox import seccomp, syscalls as sc
number, words = int(sys.argv[1]), sys.argv[2:]
seccomp._program = lambda *_, **__: [
    (seccomp._LOAD, 0, 0, seccomp._NUMBER),
    *seccomp._when(number, [seccomp._refuse(1)]),
    seccomp._allow(),
]
sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(network=True)
os.execv(sys.executable, [sys.executable, "-m", "pkgjail", *words])
"""
FSOPEN, LANDLOCK = 430, 444  # one that overlays need, and one that nothing of pkgjail's does


def behind(caller: Caller, number: int, words: list[str | Path], own: dict[str, str]) -> tuple[int, str]:
    command = [SYSTEM_PYTHON, "-c", BEHIND, str(number), *map(str, words)]
    done = caller.run(command, environment=own)
    return done.returncode, done.stderr


def answers(own: dict[str, str]) -> set[str]:
    place = f"{own['XDG_RUNTIME_DIR']}/pkgjail"
    return {name.partition("-")[0] for name in os.listdir(place)} & {"tree", "mask", "whole"}


@pytest.mark.parametrize("before", ["no filter", "another filter"])
def test_a_seccomp_filter_makes_another_plan(
    caller: Caller, base_manifest: Manifest, tmp_path: Path, before: str
) -> None:
    """Protects a command behind a container's filter: it gets another plan, and no error.

    Only the number of filters is visible, so the probe runs again after an overlay fails.
    """
    manifest = tmp_path / "m.jsonl"
    write_manifest(base_manifest, manifest)
    own = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir(mode=0o700)
    words: list[str | Path] = ["run", manifest, "--", "true"]
    if before == "no filter":
        assert caller.pkgjail(*words, environment=own).returncode == 0
    else:
        assert behind(caller, LANDLOCK, words, own) == (0, "")
    assert answers(own) == {"tree"}
    assert behind(caller, FSOPEN, words, own) == (0, "")
    assert "tree" not in answers(own) or before == "no filter"
    assert caller.pkgjail(*words, environment=own).returncode == 0
    assert "tree" in answers(own)


SITUATIONS = [
    pytest.param("/proc/self/status", b"Seccomp:\t2\nSeccomp_filters:\t1\n", id="a seccomp filter"),
    pytest.param("/proc/self/status", b"NoNewPrivs:\t1\n", id="no new privileges"),
    pytest.param("/proc/self/status", b"CapBnd:\t0000000000000000\n", id="fewer capabilities"),
    pytest.param("/proc/self/status", b"Uid:\t1\t1\t1\t1\n", id="another user"),
    pytest.param("/proc/self/attr/current", b"confined (enforce)\n", id="a security module's profile"),
    pytest.param("/proc/sys/user/max_user_namespaces", b"0\n", id="no user namespaces"),
]


@pytest.mark.parametrize(("path", "content"), SITUATIONS)
def test_other_privileges_need_another_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, content: bytes
) -> None:
    """Protects from the answer for a process with more or fewer privileges."""
    real = privileges._read
    run = tmp_path / "run"
    stored(run, monkeypatch)
    monkeypatch.setattr(privileges, "_read", lambda name: content if name == path else real(name))
    assert probe.probe_obstacle("tree", b"/usr", run) == "tried again"


@pytest.mark.parametrize(("name", "other"), [("identity", 1), ("_boot_id", "another")])
def test_another_file_system_or_boot_needs_another_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: object
) -> None:
    """Protects from the answer for another file system with the same number."""
    run = tmp_path / "run"
    stored(run, monkeypatch)
    monkeypatch.setattr(probe, name, lambda *_: other)
    assert probe.probe_obstacle("tree", b"/usr", run) == "tried again"


def stored(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have success stored, and let each later probe fail."""
    monkeypatch.setattr(os, "major", lambda _: 8)  # answers about filesystems on no device are not kept
    monkeypatch.setattr(probe, "_probe", lambda *_: "")
    assert probe.probe_obstacle("tree", b"/usr", run) == ""
    monkeypatch.setattr(probe, "_probe", lambda *_: "tried again")
    assert probe.probe_obstacle("tree", b"/usr", run) == ""


def test_after_forgetting_there_is_another_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from an answer that proved wrong. Other files stay."""
    run = tmp_path / "run"
    assert not probe.forget_answers(run)
    stored(run, monkeypatch)
    (run / "layers").mkdir()
    assert probe.forget_answers(run)
    assert not probe.forget_answers(run)
    assert (run / "layers").is_dir()
    assert probe.probe_obstacle("tree", b"/usr", run) == "tried again"
