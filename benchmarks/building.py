"""Work in a jail beside the same work outside of it: a project's configure and make, small programs.

Both sides have the same directory, environment, programs and number of processes. A side is timed
twice at once: the work as measured by the shell that does it, and the whole process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Subject
from pkgjail import default_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROJECT = "hello"
_INDEX = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
# What each subject does, in a directory of its own that holds the project's source and small.c.
WORKS = {
    f"configure and make {PROJECT}": "cd project && ./configure && make",
    "200 times true": "i=0; while [ $i -lt 200 ]; do /usr/bin/true; i=$((i+1)); done",
    "20 times gcc -c": "i=0; while [ $i -lt 20 ]; do gcc -c small.c; i=$((i+1)); done",
}
_SMALL = '#include <stdio.h>\nint main(void) { return puts("small") < 0; }\n'


def fetch_project(place: Path) -> Path:
    """The project's source from the archive that this machine's apt reads, unpacked; its directory.

    By a configuration of its own: the machine's has no sources, as a rule, and is not touched.
    """
    told = ["apt-get", "indextargets", "--format", _INDEX, "Created-By: Packages"]
    lines = sorted(set(_said(told).splitlines()))
    apt = place / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "sources.list").write_text("".join(f"deb-src {line}\n" for line in lines), encoding="utf-8")
    own = [
        *("apt-get", "-qq", "-o", "APT::Sandbox::User=root"),
        *("-o", f"Dir::Etc::SourceList={apt}/sources.list", "-o", "Dir::Etc::SourceParts=-"),
        *("-o", f"Dir::State::Lists={apt}/lists", "-o", f"Dir::Cache={apt}/cache"),
    ]
    for step in (["update"], ["source", PROJECT]):
        subprocess.run(own + step, check=True, cwd=apt, capture_output=True)
    return next(path for path in apt.glob(f"{PROJECT}-*") if path.is_dir())


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Side:
    """One work, in the jail or out of it. `inside` does it; `whole` is what that last took in all."""

    def __init__(self, launcher: Sequence[str], script: str, work: Path, source: Path) -> None:
        self._command = [
            *launcher, "sh", "-c", f"date +%s%N; {{ {script}; }} >/dev/null 2>&1 || exit; date +%s%N"
        ]  # fmt: skip
        self._work = work
        self._source = source
        self._whole = 0.0

    def inside(self) -> float:
        """Do the work once, in a new copy of the source; the seconds between its begin and its end."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        shutil.copytree(self._source, self._work / "project", symlinks=True)
        (self._work / "small.c").write_text(_SMALL, encoding="utf-8")
        os.sync()
        began = perf_counter()
        # The jail's command leads a session, which on a busy machine has a share of its own (sched(7),
        # "The autogroup feature"): so must the other side.
        done = subprocess.run(
            self._command,
            check=True,
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
        )
        self._whole = perf_counter() - began
        first, last = map(int, done.stdout.split())
        return (last - first) / 1e9

    def whole(self) -> float:
        """The seconds of the whole process that `inside` ran last."""
        return self._whole


def build_subjects(manifest: Path, pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Each work of `WORKS`, bare and in the jail of `manifest`."""
    source, work = fetch_project(place), place / "work"
    temporary = f"TMPDIR={work}"
    bare = ["env", "-i", *(f"{name}={value}" for name, value in default_environment().items()), temporary]
    jail = [*pkgjail, "run", "--cwd", "--env", temporary, str(manifest), "--"]
    subjects = []
    for name, script in WORKS.items():
        outside, inside = (Side(launcher, script, work, source) for launcher in (bare, jail))
        subjects += [
            Subject(f"{name}, bare", outside.inside),
            Subject(f"{name}, bare, whole", outside.whole),
            Subject(f"{name}, jail", inside.inside, f"{name}, bare"),
            Subject(f"{name}, jail, whole", inside.whole, f"{name}, bare, whole"),
        ]
    return subjects
