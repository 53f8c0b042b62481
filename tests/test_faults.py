"""Stopped at any system call, or with a full disk: the host is as before, and the next run works.

`make test` stops each program at the first call of each kind, and kills it at the last too; `make
test-long` at every one. Environments have their walks in tests/environments/test_interruptions.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import read_manifest, write_manifest
from tests.conftest import TOP
from tests.debian_roots import make_root
from tests.faults import Fault, calls_of, disturbed, faults, mounts_below, state_of
from tests.test_drift import entries_of, make_host, manifest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

STOPS = ("signal=SIGKILL", "signal=SIGTERM", "signal=SIGINT", "error=ENOSPC")
# An overlay for a directory of five names too.
_SMALL = (
    "import sys; from pkgjail import choosing; choosing._WORTH_IT = 5; from pkgjail.commands import main; "
)
_MAIN = f"{_SMALL}sys.exit(main())"
_SHORT = "import sys; from pkgjail.__main__ import main; sys.exit(main())"


class Scene:
    """A small host, and the places where pkgjail keeps things, for one walk."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.host = place / "host"
        self.host.mkdir(mode=0o755)
        make_host(self.host)
        self.out = place / "out.jsonl"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(TOP),
            "HOME": str(place),
        }

    def fresh(self) -> None:
        """Places of their own for the next run, with nothing in them."""
        number = len(os.listdir(self.place))
        for name in ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
            directory = self.place / f"{name}-{number}"
            directory.mkdir(mode=0o700)
            self.environment[name] = str(directory)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        """Run it undisturbed."""
        return subprocess.run(command, env=self.environment, check=False, capture_output=True, timeout=60)

    def half_written(self) -> list[str]:
        """Files of this pkgjail's making that have no name of their own and were not left by SIGKILL."""
        kept = (self.environment["XDG_CACHE_HOME"], self.environment["XDG_RUNTIME_DIR"])
        found = [path for top in kept for path, *_ in os.walk(top)]
        return [path for path in found if os.path.basename(path).startswith((".new-", ".probe-", ".going-"))]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def walk(
    scene: Scene, command: list[str], *, marker: str, every: bool, prepare: Callable[[], None]
) -> Iterator[tuple[Fault, subprocess.CompletedProcess[bytes]]]:
    """Run `command` with each fault in turn, from the start that `prepare` makes."""
    prepare()
    calls = calls_of(command, scene.environment, log=scene.place / "trace", marker=marker)
    before = state_of(scene.host)
    for fault in faults(calls, what=STOPS, every=every):
        prepare()
        done = disturbed(command, scene.environment, fault)
        assert state_of(scene.host) == before, fault
        assert mounts_below(scene.place) == [], fault
        yield fault, done


thorough = pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="every", marks=pytest.mark.long)]
)


@thorough
def test_resolve(scene: Scene, *, every: bool) -> None:
    """The manifest is the old one or the whole new one."""
    files = {
        "etc/os-release": "ID=debian\n",
        "var/lib/dpkg/info/a.list": "/.\n/usr\n/usr/lib\n/usr/lib/library\n",
    }
    make_root(scene.host, "a 1 amd64", files=files)
    whitelist = scene.place / "w.toml"
    whitelist.write_text('[packages]\ndebian = ["a"]\n[options]\nessential = false\n')
    command = [sys.executable, "-c", _MAIN, "resolve", str(whitelist), "--root", str(scene.host)]
    command += ["--backend", "dpkg", "-o", str(scene.out)]
    scene.fresh()
    assert scene.run(command).returncode == 0
    whole = scene.out.read_bytes()

    def prepare() -> None:
        scene.fresh()
        scene.out.write_bytes(b"old")

    for fault, _ in walk(scene, command, marker=str(whitelist), every=every, prepare=prepare):
        assert scene.out.read_bytes() in {b"old", whole}, fault
        again = scene.run(command)
        assert (again.returncode, scene.out.read_bytes()) == (0, whole), (fault, again.stderr)


@thorough
@pytest.mark.parametrize(
    ("plan", "kept"),
    [
        pytest.param("tree", False, id="making a tree"),
        pytest.param("mask", False, id="making a mask"),
        pytest.param("auto", True, id="the short way"),
    ],
)
def test_run(scene: Scene, plan: str, *, kept: bool, every: bool) -> None:
    """The command runs whole or not at all, and the next entry is right, by whatever is kept."""
    write_manifest(manifest_of(entries_of(scene.host)), scene.out)
    assert read_manifest(scene.out)
    words = [
        "run",
        "--plan",
        plan,
        "--root",
        str(scene.host),
        str(scene.out),
        "--",
        "/bin/busybox",
        "cat",
        "/usr/lib/library",
    ]
    command = [sys.executable, "-c", _SHORT if kept else _MAIN, *words]

    def prepare() -> None:
        if not kept:
            scene.fresh()

    if kept:
        scene.fresh()
        assert scene.run(command).returncode == 0
    marker = f"{scene.environment['XDG_RUNTIME_DIR']}/pkgjail/prepared" if kept else str(scene.out)
    for fault, done in walk(scene, command, marker=marker, every=every, prepare=prepare):
        assert done.stdout in {b"", b"abc"}, fault
        if done.returncode == 0:
            assert done.stdout == b"abc", fault
        if "SIGKILL" not in fault.what:
            assert scene.half_written() == [], fault
        again = scene.run(command)
        assert (again.returncode, again.stdout) == (0, b"abc"), (fault, again.stderr)
