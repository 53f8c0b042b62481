"""Time Spack's commands bare and in the jail, by both hooks, in turn.

    PKGJAIL_SPACK_ROOT=… PKGJAIL_SPACK_PACKAGES=… python3 -m benchmarks.spack [--cpu] [--json]

For each Spack that PKGJAIL_SPACK_ROOT names (docs/spack.md): `find`, which does little; `spec zlib`, which
asks the solver; and an install of a package of one source file. Each way has its own copy of the Spack. This
runs as an ordinary user, with the distribution's Python, and needs only the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Row, Subject, measure, table
from tests.spack.real import ROOTS, make_pythons
from tests.spack.table import WAYS, Place, move, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Each with the command that makes it possible once more, which is not timed.
COMMANDS = (
    (("find",), ()),
    (("spec", "zlib"), ()),
    (("install", "hello-z"), ("uninstall", "--yes-to-all", "hello-z")),
)


def seconds_of_processor() -> float:
    """Return the processor time of all children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(place: Place, command: Sequence[str], undo: Sequence[str], clock: Callable[[], float]) -> float:
    """Run a Spack command, undo it, and return the seconds of the command alone."""
    began = clock()
    _spack(place, command)
    taken = clock() - began
    if undo:
        _spack(place, undo)
    return taken


def _spack(place: Place, command: Sequence[str]) -> None:
    subprocess.run(
        [place.root / "bin" / "spack", *command],
        env=place.variables,
        cwd=place.base / "work",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def compare(source: Path, directory: Path, pythons: tuple[Path, Path], runs: int, *, cpu: bool) -> list[Row]:
    """Time all commands of one Spack."""
    first, version = set_up(source, directory / "first", pythons)
    places = {way: move(first, directory / way.replace(" ", "-"), way, pythons) for way in WAYS}
    clock = seconds_of_processor if cpu else perf_counter
    rows = []
    for command, undo in COMMANDS:
        subjects = [
            Subject(way, partial(run, place, command, undo, clock), "" if way == WAYS[0] else WAYS[0])
            for way, place in places.items()
        ]
        rows += measure(f"{version.text}: spack {' '.join(command)}", subjects, runs, slow_runs=runs)
    return rows


def main() -> None:
    """Time the Spacks that PKGJAIL_SPACK_ROOT names."""
    parser = argparse.ArgumentParser(prog="benchmarks.spack", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each command and way (5)")
    parser.add_argument("--cpu", action="store_true", help="processor time instead, for a busy machine")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--directory", type=Path, help="where to work; it is kept")
    arguments = parser.parse_args()
    if os.geteuid() == 0 or not ROOTS:
        parser.error("run this as an ordinary user, with PKGJAIL_SPACK_ROOT")
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="pkgjail-spack-times-"))
    directory.mkdir(exist_ok=True)
    pythons = make_pythons(directory)
    rows = [
        row
        for number, root in enumerate(ROOTS)
        for row in compare(root, directory / str(number), pythons, arguments.runs, cpu=arguments.cpu)
    ]
    if arguments.json:
        json.dump([row.as_json() for row in rows], sys.stdout, indent=1)
    else:
        print(table(rows))
    if not arguments.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
