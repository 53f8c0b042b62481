"""Stopped at any system call, or with a full disk: the host is as before, and the next run works.

`make test` does it at the first and the last call of each kind, `make test-long` at every one.
Environments have their walks in tests/environments/test_interruptions.py.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests.debian_roots import make_root
from tests.faults import Done, Fault, Worker, faults, mounts_below, state_of
from tests.forking import BROKEN
from tests.manifest_text import files_alone
from tests.test_drift import entries_of, make_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

STOPS = ("signal=SIGKILL", "signal=SIGTERM", "signal=SIGINT", "error=ENOSPC")
# Else argparse looks for translations and asks for the terminal's width some 800 times.
_QUIET = {"LANGUAGE": "C", "COLUMNS": "80", "LINES": "24"}
_REMOVING = ("unlink", "unlinkat", "rmdir")
_PLACES = ("XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


class Scene:
    """A small host, the places where pkgjail keeps things, and a worker, for one walk."""

    def __init__(self, place: Path, record: Callable[[str, object], None]) -> None:
        self.record = record
        self.host = place / "host"
        self.host.mkdir(mode=0o755)
        make_host(self.host)
        self.out = place / "out.jsonl"
        self.worker = Worker(place, "tests.faults_worker", environment=_QUIET)
        self.environment = {name: str(place / name) for name in _PLACES}

    def fresh(self) -> None:
        """Nothing is kept from earlier runs."""
        for name in _PLACES:
            shutil.rmtree(self.environment[name], ignore_errors=True)
            os.mkdir(self.environment[name], 0o700)

    def run(self, words: list[str]) -> Done:
        """Run it undisturbed."""
        return self.worker.run((words, self.environment))

    def half_written(self) -> list[str]:
        """Return what was made under a temporary name."""
        walks = (os.walk(self.environment[top]) for top in _PLACES)
        names = (name for walk in walks for _, inner, files in walk for name in (*inner, *files))
        return [name for name in names if name.startswith((".new-", ".probe", ".going-"))]


@pytest.fixture
def scene(tmp_path: Path, record_property: Callable[[str, object], None]) -> Iterator[Scene]:
    made = Scene(tmp_path, record_property)
    with made.worker:
        yield made


def walk(
    scene: Scene, words: list[str], what: str, *, every: bool, prepare: Callable[[], None]
) -> Iterator[tuple[Fault, Done]]:
    """Run pkgjail with each fault in turn, from the start that `prepare` makes."""
    prepare()
    calls = scene.worker.calls((words, scene.environment))
    before = state_of(scene.host)
    met = []
    for fault in faults(calls, what=what, every=every):
        prepare()
        done = scene.worker.disturbed((words, scene.environment), fault)
        assert state_of(scene.host) == before, fault
        assert mounts_below(scene.host.parent) == [], fault
        assert done.status != BROKEN, (fault, done.err)
        met.append(done.met)
        yield fault, done
    scene.record("faults met", f"{sum(met)} of {len(met)}")
    assert sum(met) > len(met) // 2  # a run makes a few calls more or less than the one before


thorough = pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="every", marks=pytest.mark.long)]
)
each_fault = pytest.mark.parametrize("what", STOPS)


@thorough
@each_fault
def test_resolve(scene: Scene, what: str, *, every: bool) -> None:
    """The manifest is the old one or the whole new one."""
    files = {
        "etc/os-release": "ID=debian\n",
        "var/lib/dpkg/info/a.list": "/.\n/usr\n/usr/lib\n/usr/lib/library\n",
    }
    make_root(scene.host, "a 1 amd64", files=files)
    whitelist = scene.out.with_name("w.toml")
    whitelist.write_text('[packages]\ndebian = ["a"]\n[options]\nessential = false\n')
    words = ["resolve", str(whitelist), "--root", str(scene.host), "--backend", "dpkg", "-o", str(scene.out)]
    scene.fresh()
    assert scene.run(words).status == 0
    whole = scene.out.read_bytes()

    def prepare() -> None:
        scene.fresh()
        scene.out.write_bytes(b"old")

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert scene.out.read_bytes() in {b"old", whole}, fault
        assert done.status != 0 or scene.out.read_bytes() == whole, fault
        again = scene.run(words)
        assert (again.status, scene.out.read_bytes()) == (0, whole), (fault, again.err)


@thorough
@each_fault
@pytest.mark.parametrize(
    ("plan", "kept"),
    [
        pytest.param("tree", False, id="making a tree"),
        pytest.param("mask", False, id="making a mask", marks=pytest.mark.long),
        pytest.param("auto", True, id="the short way"),
    ],
)
def test_run(scene: Scene, plan: str, what: str, *, kept: bool, every: bool) -> None:
    """The command runs whole or not at all, and the next entry is right, by whatever is kept."""
    write_manifest(files_alone(entries_of(scene.host)), scene.out)
    command = ["/bin/busybox", "cat", "/usr/lib/library"]
    words = ["run", "--strategy", plan, "--root", str(scene.host), str(scene.out), "--", *command]
    scene.fresh()
    assert scene.run(words).status == 0

    def prepare() -> None:
        if not kept:
            scene.fresh()

    for fault, done in walk(scene, words, what, every=every, prepare=prepare):
        assert done.out in {b"", b"abc"}, fault
        assert done.status != 0 or done.out == b"abc", fault
        again = scene.run(words)
        assert (again.status, again.out) == (0, b"abc"), (fault, again.err)
        # A removal that is refused leaves the work to the next try-out, on the long way.
        left = [".probe"] if what == "error=ENOSPC" and fault.call in _REMOVING else []
        assert set(scene.half_written()) <= set(left), fault
