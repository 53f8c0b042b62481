"""`make fuzz`: a number of changed inputs over all targets, some at a time, and what was found.

A finding ends libFuzzer's process; the target is gone on with until it has had its share, or too many.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.fuzz.targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from resource import struct_rusage

_LONGEST = 5000  # bytes of an input
_HANG = 10  # seconds
_MEMORY = 1024  # MiB
_MOST_FINDINGS = 3  # of one target
_UNITS = re.compile(r"stat::number_of_executed_units: (\d+)")
_SAVED = re.compile(r"Test unit written to (\S+)")


class Result(NamedTuple):
    """What became of a target: inputs, seconds of a processor, MiB at most, and where findings are."""

    target: str
    inputs: int
    seconds: float
    peak: int
    findings: tuple[str, ...]


def fuzz(build: Path, seed: int, target: str, inputs: int) -> Result:
    """Give a target its share. What it says is in `build/TARGET.log`."""
    grown = build / "corpus" / target
    grown.mkdir(parents=True, exist_ok=True)
    done, peak, seconds = 0, 0, 0.0
    findings: list[str] = []
    while done < inputs and len(findings) < _MOST_FINDINGS:
        used = _run(build, target, grown, runs=inputs - done, seed=seed + len(findings))
        said = (build / f"{target}.log").read_text(errors="replace")
        units, saved = _UNITS.search(said), _SAVED.search(said)
        done += int(units[1]) if units else 0
        seconds += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss >> 10)
        findings += [saved[1]] if saved else []
        if not saved and done < inputs:
            findings.append(str(build / f"{target}.log"))  # it ended, and libFuzzer did not say of what
            break
    return Result(target, done, seconds, peak, tuple(findings))


def _run(build: Path, target: str, grown: Path, *, runs: int, seed: int) -> struct_rusage:
    """Run libFuzzer until its end; what it used."""
    command = [
        *(sys.executable, "-m", "tests.fuzz.worker", target),
        *(f"-runs={runs}", f"-seed={seed}", f"-timeout={_HANG}", f"-rss_limit_mb={_MEMORY}"),
        *(f"-max_len={_LONGEST}", f"-artifact_prefix={build}/findings/{target}-", "-print_final_stats=1"),
        *(str(grown), str(CORPUS / target)),
    ]
    with open(build / f"{target}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return used


def main() -> int:
    """Fuzz all targets, or those that are named; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many, over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=Path, default=Path("build/fuzz"), help="for logs, findings, inputs")
    arguments = parser.parse_args()
    build: Path = arguments.build.resolve()
    shutil.rmtree(build, ignore_errors=True)
    (build / "findings").mkdir(parents=True)
    shares = {target: TARGETS[target].share for target in arguments.targets}
    wanted = {
        target: -(-arguments.inputs * share // sum(shares.values())) for target, share in shares.items()
    }
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pkgjail-fuzz-", dir=memory) as scratch:
        os.environ["TMPDIR"] = scratch
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            run = partial(fuzz, build, arguments.seed)
            results = list(map(_told, pool.map(run, wanted, wanted.values())))
    found = [(result.target, finding) for result in results for finding in result.findings]
    for target, finding in found:
        print(f"finding: {finding}\n    again: {sys.executable} -m tests.fuzz.worker {target} {finding}")
    inputs, seconds = sum(result.inputs for result in results), time.monotonic() - started
    print(
        f"{inputs:,} inputs over {len(results)} targets in {seconds:,.0f} s ({inputs / seconds:,.0f}/s), "
        f"at most {max(result.peak for result in results)} MiB: {len(found)} findings"
    )
    return 1 if found else 0


def _told(result: Result) -> Result:
    rate = result.inputs / result.seconds
    print(
        f"{result.target:20} {result.inputs:9,} inputs {result.seconds:6.0f} s of a processor {rate:7,.0f}/s "
        f"{result.peak:5} MiB {len(result.findings)} findings",
        flush=True,
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
