"""Shared memory by `--share-ipc`: what a jail shares then, and what it still does not."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.jail_names import SHARED_MEMORY
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.plan import plan_jail
from pkgjail.sandbox.steps import Bind
from tests.manifest_text import files_alone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Caller

_LIBC = ctypes.CDLL(None, use_errno=True)
_IPC_RMID = 0


@pytest.fixture
def segment() -> Iterator[str]:
    """The id of a System V shared memory segment of this process's user."""
    number = _LIBC.shmget(0, 4096, 0o1644)
    assert number >= 0
    yield str(number)
    _LIBC.shmctl(number, _IPC_RMID, None)


@pytest.fixture
def shared_file() -> Iterator[str]:
    """A file in /dev/shm that everybody may read."""
    path = f"/dev/shm/tests-share-ipc-{os.getpid()}"
    with open(path, "w", encoding="ascii") as file:
        file.write("outside\n")
    os.chmod(path, 0o644)
    yield path
    os.unlink(path)


def test_memory_is_shared_if_asked_for(
    anyone: Caller, manifest_file: Path, segment: str, shared_file: str
) -> None:
    """Neither System V's nor /dev/shm otherwise; and each of two entries, of which one is a replay."""
    script = f"cat {shared_file}; awk 'NR > 1 {{print $2}}' /proc/sysvipc/shm"
    for words, expected in (([], []), (["--share-ipc"], ["outside", segment])):
        for _ in range(2):
            ran = anyone.pkgjail("run", *words, manifest_file, "--", "sh", "-c", script)
            shown = ran.stdout.split()
            assert (shown if not words else [line for line in shown if line in expected]) == expected, (
                ran.stderr
            )


def test_commands_that_share_memory_have_ids_of_their_own(anyone: Caller, manifest_file: Path) -> None:
    """Open MPI takes a segment whose maker has its own process id for its own: every command had id 2."""
    run = ("run", "--share-ipc", manifest_file, "--", "sh", "-c", "echo $$")
    ids = [int(anyone.pkgjail(*run).stdout) for _ in range(3)]
    assert len({2, *ids}) == 4
    assert anyone.pkgjail("run", manifest_file, "--", "sh", "-c", "echo $$").stdout == "2\n"


def test_the_cache_in_shared_memory_is_hidden(anyone: Caller, manifest_file: Path) -> None:
    """Layers, from which later jails are made: a command can neither write to them nor move them away."""
    run = anyone.options()["env"]["XDG_RUNTIME_DIR"]
    assert run.startswith("/dev/shm/")
    script = f"""
    ls -A {run}/pkgjail; touch {run}/pkgjail/x || echo read-only
    for name in {run}/pkgjail {run} {os.path.dirname(run)}; do mv $name /dev/shm/x || echo stays; done
    """
    for _ in range(2):
        ran = anyone.pkgjail("run", "--share-ipc", manifest_file, "--", "sh", "-c", script)
        assert ran.stdout.split() == ["read-only", "stays", "stays", "stays"], ran.stderr
        assert "warning" not in ran.stderr
        assert os.listdir(f"{run}/pkgjail/layers")


def test_a_bind_of_the_same_place_is_refused_as_ever(anyone: Caller, manifest_file: Path) -> None:
    """A bind of /dev/shm elsewhere shows the caches."""
    ran = anyone.pkgjail("run", "--share-ipc", "--bind", "/dev/shm:/srv", manifest_file, "--", "true")
    assert (ran.returncode, "pkgjail's cache" in ran.stderr) == (125, True)


def test_a_plan_says_so(anyone: Caller, manifest_file: Path) -> None:
    planned = anyone.pkgjail("mounts", "--share-ipc", manifest_file)
    assert "System V IPC and /dev/shm: the host's\nentry: works here (tried)\n" in planned.stdout
    assert "System V" not in anyone.pkgjail("mounts", manifest_file).stdout


def test_the_step_comes_in_the_order_of_paths(tmp_path: Path) -> None:
    """`pkgjail.jails.protection` relies on it."""
    binds = tuple(
        UserBind(source=bytes(tmp_path), destination=path, writable=True) for path in (b"/srv/a", b"/a")
    )
    plan = plan_jail(files_alone(()), JailOptions(binds=binds, share_ipc=True), entry_files={})
    assert [step.path for step in plan.steps if isinstance(step, Bind)] == [b"/a", SHARED_MEMORY, b"/srv/a"]
    assert plan.share_ipc
