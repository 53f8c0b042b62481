"""Time a build that is mostly gcc under supervision, without pkgjail, and in the default jail, by turns.

    python -m benchmarks.supervised [PAIRS]

Each round runs the same make in the same directory in each way. The ratio is that of the times of one round;
the median of all rounds is printed. "work" is what the build itself takes, "whole" has the start, too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pkgjail import resolve
from pkgjail.manifest import write_manifest

_FILES = 60
_HEADERS = (
    "errno", "math", "netinet/in", "pthread", "signal", "stdio", "stdlib", "string", "sys/socket", "sys/stat",
    "time", "unistd",
)  # fmt: skip
_MAKEFILE = (
    "all: $(patsubst %.c,%.o,$(wildcard f*.c))\n%.o: %.c\n\t@gcc -O1 -c $< -o $@\nclean:\n\t@rm -f *.o\n"
)
_SCRIPT = "s=$(date +%s%N); make -s all || exit; e=$(date +%s%N); echo $((e - s)); make -s clean"


def _prepare(place: Path) -> None:
    place.mkdir()
    (place / "Makefile").write_text(_MAKEFILE, encoding="ascii")
    for number in range(_FILES):
        lines = [f"#include <{name}.h>" for name in _HEADERS]
        lines += [
            f'int f{number}_{each}(int x) {{ return x * {each} + printf("%d", x); }}' for each in range(40)
        ]
        (place / f"f{number}.c").write_text("\n".join(lines), encoding="ascii")


def _time(words: list[str], place: Path) -> tuple[float, float]:
    """Return the seconds of the work and of the whole process."""
    began = time.perf_counter()
    said = subprocess.run([*words, "sh", "-c", _SCRIPT], cwd=place, check=True, stdout=subprocess.PIPE)
    return int(said.stdout.split()[-1]) / 1e9, time.perf_counter() - began


def main(rounds: int) -> None:
    """Print a table of medians."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-bench-") as made:
        place, manifest = Path(made) / "build", Path(made) / "m.jsonl"
        _prepare(place)
        write_manifest(resolve(["build"]), manifest)
        run = [sys.executable, "-m", "pkgjail", "run"]
        end = ["--cwd", str(manifest), "--"]
        ways = {"bare": [], "namespaces": [*run, *end], "supervised": [*run, "--stage", "supervised", *end]}
        environment = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{Path(__file__).parent.parent}:{environment}"
        for words in ways.values():
            _time(words, place)  # fills the caches
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, words in ways.items():
                found[name].append(_time(words, place))
    sys.stdout.write("| way | work, s | whole, s | work / bare | whole / bare |\n|---|---|---|---|---|\n")
    for name, runs in found.items():
        medians = [statistics.median(run[index] for run in runs) for index in (0, 1)]
        pairs = [
            statistics.median(run[index] / bare[index] for run, bare in zip(runs, found["bare"]))
            for index in (0, 1)
        ]
        row = " | ".join(f"{value:.2f}" for value in (*medians, *pairs))
        sys.stdout.write(f"| {name} | {row} |\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
