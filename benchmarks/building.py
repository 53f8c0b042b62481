"""Time work in a jail and the same work outside: a project's configure and make, and small programs.

Both sides have the same directory, environment, programs and number of processes. Each run gives two times:
that of the work, measured by the shell that does it, and that of the whole process.
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
# The script of each subject, which runs in a directory of its own with the project's source and small.c.
SCRIPTS = {
    f"configure and make {PROJECT}": "cd project && ./configure && make",
    "200 times true": "i=0; while [ $i -lt 200 ]; do /usr/bin/true; i=$((i+1)); done",
    "20 times gcc -c": "i=0; while [ $i -lt 20 ]; do gcc -c small.c; i=$((i+1)); done",
}
_LARGE = "".join(
    f"#include <{name}.h>\n"
    for name in ("errno", "math", "netinet/in", "pthread", "stdio", "stdlib", "string", "sys/stat", "unistd")
)
_SMALL = '#include <stdio.h>\nint main(void) { return puts("small") < 0; }\n'


def fetch_project(place: Path) -> Path:
    """Fetch and unpack the project's source from the archive of this machine's apt; return its directory.

    It uses a configuration of its own, because the machine's usually has no sources and must not be changed.
    """
    command = ["apt-get", "indextargets", "--format", _INDEX, "Created-By: Packages"]
    lines = sorted(set(_output(command).splitlines()))
    apt = place / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "sources.list").write_text("".join(f"deb-src {line}\n" for line in lines), encoding="utf-8")
    apt_get = [
        *("apt-get", "-qq", "-o", "APT::Sandbox::User=root"),
        *("-o", f"Dir::Etc::SourceList={apt}/sources.list", "-o", "Dir::Etc::SourceParts=-"),
        *("-o", f"Dir::State::Lists={apt}/lists", "-o", f"Dir::Cache={apt}/cache"),
    ]
    for step in (["update"], ["source", PROJECT]):
        subprocess.run(apt_get + step, check=True, cwd=apt, capture_output=True)
    return next(path for path in apt.glob(f"{PROJECT}-*") if path.is_dir())


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Side:
    """One script, in the jail or outside. `time_work` runs it; `last_process` is its whole process's time."""

    def __init__(self, launcher: Sequence[str], script: str, work: Path, source: Path) -> None:
        self._command = [
            *launcher, "sh", "-c", f"date +%s%N; {{ {script}; }} >/dev/null 2>&1 || exit; date +%s%N"
        ]  # fmt: skip
        self._work = work
        self._source = source
        self._process_seconds = 0.0

    def time_work(self) -> float:
        """Run the script once, in a new copy of the source; return the seconds from its begin to its end."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        shutil.copytree(self._source, self._work / "project", symlinks=True)
        (self._work / "small.c").write_text(_SMALL, encoding="utf-8")
        (self._work / "large.c").write_text(_LARGE + "int main(void) { return 0; }\n", encoding="utf-8")
        text = "#include <iostream>\n#include <map>\nint main() { std::cout << 1; }\n"
        (self._work / "large.cc").write_text(text, encoding="utf-8")
        os.sync()
        began = perf_counter()
        # The jail's command leads a session, which on a busy machine has its own share of the CPUs (sched(7),
        # "The autogroup feature"), so the other side must lead one too.
        done = subprocess.run(
            self._command,
            check=True,
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
        )
        self._process_seconds = perf_counter() - began
        first, last = map(int, done.stdout.split())
        return (last - first) / 1e9

    def last_process(self) -> float:
        """Return the seconds of the whole process that `time_work` ran last."""
        return self._process_seconds


# What an audit costs most: compilers look for headers and libraries in many places.
AUDITED = {
    f"configure and make {PROJECT}": SCRIPTS[f"configure and make {PROJECT}"],
    "30 times gcc": "i=0; while [ $i -lt 30 ]; do gcc -O2 -o large large.c -lm -lpthread; i=$((i+1)); done",
    "6 times g++": "i=0; while [ $i -lt 6 ]; do g++ -o large large.cc; i=$((i+1)); done",
}


def audit_subjects(manifest: Path, pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return each script of `AUDITED` in the jail, in the jail with an audit, bare, and bare with strace."""
    source, work = fetch_project(place), place / "work"
    temporary = f"TMPDIR={work}"
    bare = ["env", "-i", *(f"{name}={value}" for name, value in default_environment().items()), temporary]
    run = [*pkgjail, "run", "--cwd", "--env", temporary]
    traced = ["strace", "-f", "-qq", "-o", str(place / "trace"), "-e", "trace=%file", "--seccomp-bpf"]
    launchers = {
        "jail": ([*run, str(manifest), "--"], ""),
        "audited": ([*run, "--audit", str(place / "audit.jsonl"), str(manifest), "--"], "jail"),
        "bare": (bare, ""),
        "strace": ([*bare, *traced], "bare"),
    }
    subjects = []
    for name, script in AUDITED.items():
        for how, (launcher, peer) in launchers.items():
            side = Side(launcher, script, work, source)
            subjects += [
                Subject(f"{name}, {how}", side.time_work, f"{name}, {peer}" if peer else ""),
                Subject(
                    f"{name}, {how}, process", side.last_process, f"{name}, {peer}, process" if peer else ""
                ),
            ]
    return subjects


def build_subjects(manifest: Path, pkgjail: Sequence[str], place: Path) -> list[Subject]:
    """Return each script of `SCRIPTS` as subjects, bare and in the jail of `manifest`."""
    source, work = fetch_project(place), place / "work"
    temporary = f"TMPDIR={work}"
    bare = ["env", "-i", *(f"{name}={value}" for name, value in default_environment().items()), temporary]
    jail = [*pkgjail, "run", "--cwd", "--env", temporary, str(manifest), "--"]
    subjects = []
    for name, script in SCRIPTS.items():
        bare_side, jail_side = (Side(launcher, script, work, source) for launcher in (bare, jail))
        subjects += [
            Subject(f"{name}, bare", bare_side.time_work),
            Subject(f"{name}, bare, process", bare_side.last_process),
            Subject(f"{name}, jail", jail_side.time_work, f"{name}, bare"),
            Subject(f"{name}, jail, process", jail_side.last_process, f"{name}, bare, process"),
        ]
    return subjects
