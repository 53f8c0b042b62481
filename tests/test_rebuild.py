"""Builds that are run again from the same start: in real jails, with private copies, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.differences import compare
from pkgjail.audit.rebuild import Rebuilds, refuse_unequal
from pkgjail.audit.run import run_audited
from pkgjail.core.errors import CommandError, DriftError, PkgjailError, UsageError
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

BUILD = "set -e; cat source > out/made; pwd > out/where; echo said; echo told >&2; exit $(cat status)"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the sources of a build of one line, in a directory of its own."""
    made = tmp_path / "work"
    (made / "out").mkdir(parents=True)
    (made / "source").write_text("content\n")
    (made / "status").write_text("0\n")
    return made


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of its own, to see what is left in it."""
    made = tmp_path / "scratch"
    made.mkdir(mode=0o700)
    monkeypatch.setattr("pkgjail.storage.scratch.temporary_directory", lambda: str(made))
    return made


def _options(place: Path, *binds: UserBind) -> JailOptions:
    here = os.fsencode(place)
    bind = UserBind(source=here, destination=here, writable=True)
    return JailOptions(binds=(bind, *binds), cwd=here, environment=default_environment())


def _rebuilds(place: Path, command: str = BUILD, output: str = "out") -> Rebuilds:
    return Rebuilds(["sh", "-c", command], _options(place), os.fsencode(place / output))


def _files(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_a_build_is_run_with_copies(base_manifest: Manifest, place: Path, scratch: Path) -> None:
    """The build sees the same paths, its outputs are taken, and nothing of it is left."""
    before = _files(place)
    with _rebuilds(place) as rebuilds:
        (place / "source").write_text("changed meanwhile\n")
        first, second = rebuilds.run(base_manifest), rebuilds.run(base_manifest)
        assert len(list(scratch.iterdir())) == 1
    assert (first.status, first.log) == (0, b"said\ntold\n")
    assert first.outputs.files.keys() == {b"made", b"where"}
    assert first.outputs.files[b"made"].size == len("content\n")
    assert first.outputs.files[b"where"].size == len(f"{place}\n")
    assert compare(first.outputs, second.outputs).is_same
    assert _files(place) == {**before, "source": "changed meanwhile\n"}
    assert list(scratch.iterdir()) == []


def test_runs_beside_each_other(base_manifest: Manifest, place: Path) -> None:
    """Several run at a time, each with its own copies; all results come, with their numbers."""
    less = replace(base_manifest, files=tuple(e for e in base_manifest.files if e.path != b"/usr/bin/cat"))
    with _rebuilds(place) as rebuilds:
        manifests = [base_manifest, less, base_manifest, less, base_manifest]
        found = dict(rebuilds.run_all(manifests, jobs=3))
    assert [found[number].status for number in range(5)] == [0, 127, 0, 127, 0]


def test_what_ends_a_run(base_manifest: Manifest, place: Path) -> None:
    """A command that is not there is a result, like a status; another host is an error, as for any jail."""
    with Rebuilds(["none"], _options(place), os.fsencode(place / "out")) as rebuilds:
        found = rebuilds.run(base_manifest)
        assert (found.status, "none" in found.error) == (127, True)
        with pytest.raises(CommandError, match="none"):
            refuse_unequal(found, found)
        with pytest.raises(PkgjailError, match="left nothing in the directory of outputs"):
            refuse_unequal(found._replace(error=""), found)
    drifted = [e._replace(mode=0o600) if e.path == b"/usr/bin/env" else e for e in base_manifest.files]
    with _rebuilds(place) as rebuilds, pytest.raises(DriftError):
        rebuilds.run(replace(base_manifest, files=tuple(drifted)))


def test_an_audited_run(base_manifest: Manifest, place: Path) -> None:
    """A run through the audit has the same outputs, and what the build looked for."""
    with _rebuilds(place, f"cat /no/such/file 2>&1; {BUILD}") as rebuilds:
        first, second, noise = rebuilds.run_twice(base_manifest, run_audited)
    refuse_unequal(first, second)
    assert noise.facts == frozenset()
    assert first.audit is not None
    assert first.audit.status == first.status
    assert b"/usr/bin/cat" in {look_up.path for look_up in first.audit.look_ups}
    assert second.audit is None


def test_noise_of_two_runs(base_manifest: Manifest, place: Path) -> None:
    """The second run begins in another second, so that recorded times differ and are noise."""
    with _rebuilds(place, f"date > out/date; echo $$ > out/same; {BUILD}") as rebuilds:
        first, second, noise = rebuilds.run_twice(base_manifest)
        third = rebuilds.run(base_manifest)
    assert {name for _, name, _ in noise.facts} == {b"date"}
    assert compare(first.outputs, third.outputs, noise).is_same
    (place / "status").write_text("$((RANDOM))")
    with pytest.raises(PkgjailError, match="statuses 0 and 1"):
        refuse_unequal(first, second._replace(status=1))


def test_where_the_outputs_are(base_manifest: Manifest, place: Path, tmp_path: Path) -> None:
    """A directory of outputs is named by its path on the host, through links too, or by that inside."""
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "other").mkdir()
    inside = UserBind(source=os.fsencode(tmp_path / "other"), destination=b"/inside", writable=True)
    read_only = UserBind(source=b"/usr", destination=b"/usr2", writable=False)
    (place / "nested").mkdir()
    nested = UserBind(source=os.fsencode(place / "nested"), destination=b"/nested", writable=True)
    options = _options(place, inside, read_only, nested)
    command = ["sh", "-c", "mkdir /inside/deep; echo x > out/o; echo y > /inside/deep/i; echo > /nested/n"]
    for output, names in (
        (place / "out", {b"o"}),
        (tmp_path / "link/out", {b"o"}),
        (Path("/inside/deep"), {b"i"}),
        (tmp_path / "other", {b"deep", b"deep/i"}),
        (place / "nested", {b"n"}),
    ):
        with Rebuilds(command, options, os.fsencode(output)) as rebuilds:
            assert rebuilds.run(base_manifest).outputs.files.keys() == names
    for output in (tmp_path, Path("/usr2"), Path("/usr"), Path("/inside2")):
        with pytest.raises(UsageError, match="no writable bind has it"):
            Rebuilds(command, options, os.fsencode(output))


def test_a_build_that_the_scratch_is_in(
    base_manifest: Manifest, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR may be in the tree that is copied: the copy does not have itself in it."""
    (place / "tmp").mkdir(mode=0o700)
    monkeypatch.setattr("pkgjail.storage.scratch.temporary_directory", lambda: str(place / "tmp"))
    with _rebuilds(place, f"ls tmp > out/listed; {BUILD}") as rebuilds:
        assert rebuilds.run(base_manifest).outputs.files[b"listed"].size == 0


_KILLED = """
import os, sys
from pkgjail.audit.rebuild import Rebuilds
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment
from pkgjail.manifest import write_manifest
from pkgjail.manifest import read_manifest
manifest, place = sys.argv[1:]
here = os.fsencode(place)
bind = UserBind(source=here, destination=here, writable=True)
options = JailOptions(binds=(bind,), cwd=here, environment=default_environment())
print("ready", flush=True)
with Rebuilds(["sh", "-c", "while :; do echo x >> out/$$.$RANDOM; done"], options, here) as rebuilds:
    list(rebuilds.run_all([read_manifest(manifest)] * 2, jobs=2))
"""


@pytest.mark.unmeasured  # coverage leaves files of its own in what is built
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_killed(
    base_manifest: Manifest, place: Path, scratch: Path, number: signal.Signals, seconds: float
) -> None:
    """Whatever ends it, no process is left, and no file; after a kill, the next run removes the files."""
    write_manifest(base_manifest, place.parent / "m.jsonl")
    environment = {**os.environ, "TMPDIR": str(scratch)}
    words = [sys.executable, "-c", _KILLED, str(place.parent / "m.jsonl"), str(place)]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(seconds)
        running.send_signal(number)
        running.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _mentioning(str(scratch)):
        time.sleep(0.05)
    assert _mentioning(str(scratch)) == []
    if number == signal.SIGINT:
        assert list(scratch.iterdir()) == []
    for path in scratch.iterdir():
        os.utime(path, (1, 1))  # as a minute later
    with _rebuilds(place):
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []


def _mentioning(text: str) -> list[str]:
    """The processes that show a path in their mounts."""
    return [str(process) for process in Path("/proc").glob("[0-9]*") if text in _mounts(process)]


def _mounts(process: Path) -> str:
    try:
        return (process / "mountinfo").read_text()
    except OSError:  # it has ended
        return ""
