"""`make bench`: compare pkgjail with tools that do a part of the same work.

    python benchmarks/run.py [--runs N] [--json] [--only GROUP]

Times are wall times of whole processes. "Cold" and "warm" refer to pkgjail's cache of digests; the kernel's
page cache is always warm. Progress goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

# As a script this file finds its neighbours only from the top of the clone.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.building import audit_subjects, build_subjects
from benchmarks.databases import database_subjects
from benchmarks.exporting import export_subjects, image_entry_subjects, image_subjects
from benchmarks.machines import machine_subjects
from benchmarks.measure import Row, Subject, measure, table, timed
from benchmarks.planning import planning_subjects
from benchmarks.plans import plan_subjects
from benchmarks.verifying import verify_subjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PKGJAIL = (sys.executable, "-m", "pkgjail")
HELPER = (sys.executable, str(Path(__file__).with_name("entering.py")))
PAIR = "apt-cache + dpkg -L"
UNHASHED = "resolve spack, unhashed"
FLOOR = "unshare -Urmpf true"
PASS, MODULE = "python -c pass", "python -m nothing"
APT_LISTS = Path("/var/lib/apt/lists")
APT_CACHE = Path("/var/cache/apt/pkgcache.bin")
# Numbers of files; bubblewrap takes 9,000 arguments, and a bind needs three.
SIZES = (100, 1000, 2900)
TOO_MANY = 3100
GROWN = (1000, 100_000)
GROUPS = (
    "resolve",
    "available",
    "databases",
    "plans",
    "verify",
    "export",
    "images",
    "entry",
    "build",
    "audit",
    "machines",
)
SLOW_BUILDS = 5


def records(manifest: Path) -> list[dict[str, Any]]:
    """Return the manifest's records."""
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def make_manifest(whitelist: str, place: Path) -> Path:
    """Resolve a shipped whitelist and return the manifest's path."""
    path = place / f"{whitelist}.manifest.jsonl"
    subprocess.run([*PKGJAIL, "resolve", whitelist, "--no-hash", "-o", path], check=True, capture_output=True)
    return path


# --- resolve --------------------------------------------------------------------------------


def resolve_subjects(place: Path) -> list[Subject]:
    """Return `resolve spack` in three ways, and the two programs that find packages and list files."""
    found = records(make_manifest("spack", place))
    named = sorted({r["target"] for r in found if r["kind"] == "dependency" and r["field"] == "whitelist"})
    closure = [record["key"] for record in found if record["kind"] == "package"]
    query = ["dpkg-query", "-W", "-f", "${binary:Package}\n"]
    installed = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split()
    listed = [key if key in installed else key.partition(":")[0] for key in closure]
    depends = ["apt-cache", "depends", "--recurse", "--installed", *(key.partition(":")[0] for key in named)]
    resolve = [*PKGJAIL, "resolve", "spack", "-o", str(place / "resolved.jsonl")]
    numbers = count()

    def with_cache(name: str) -> float:
        return timed(resolve, environment={**os.environ, "XDG_CACHE_HOME": str(place / name)})

    return [
        Subject(PAIR, lambda: timed(depends, ["dpkg", "-L", *listed])),
        Subject(UNHASHED, lambda: timed([*resolve, "--no-hash"]), PAIR),
        Subject("resolve spack, hashed, warm", lambda: with_cache("warm"), UNHASHED),
        Subject("resolve spack, hashed, cold", lambda: with_cache(f"cold{next(numbers)}"), UNHASHED),
    ]


def resolve_notes() -> list[str]:
    """Return what a reader must know about the peers."""
    lists = sum(1 for path in APT_LISTS.glob("*_Packages*")) if APT_LISTS.is_dir() else 0
    notes = [f"{APT_LISTS} has {lists} package lists; apt-cache reads them, and pkgjail does not need them."]
    if not lists:
        notes = [f"{APT_LISTS} is empty: apt-cache is much slower after 'apt-get update'."]
    if not APT_CACHE.exists():
        notes.append(f"{APT_CACHE} does not exist (images often prevent it); with it apt-cache is faster.")
    return [
        *notes,
        "apt-cache also follows Recommends and Suggests; neither peer examines the files on disk.",
    ]


# --- entry ----------------------------------------------------------------------------------


@contextmanager
def library(manifest: Path) -> Iterator[Callable[[str], float]]:
    """Start a Python that prepares the manifest's jail; yield a function that runs one command in it."""
    with subprocess.Popen(
        [*HELPER, "enter", manifest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def request(action: str) -> float:
            """Have the process do an action of entering.py once; return the seconds that it took."""
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the helper has no pipes")
            process.stdin.write(f"{action}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield request
        if process.stdin is not None:
            process.stdin.close()


def raw(path: str | dict[str, str]) -> bytes:
    """Return the bytes of a path in a manifest."""
    return path.encode() if isinstance(path, str) else b64decode(path["base64"])


def bubblewrap_arguments(manifest: Path) -> bytes:
    """Return NUL-terminated arguments that make bubblewrap show the manifest's files and links.

    Directories are left out, because bubblewrap makes those that files are in.
    """
    arguments = [b"--unshare-all", b"--share-net", b"--die-with-parent"]
    arguments += [b"--proc", b"/proc", b"--dev", b"/dev", b"--tmpfs", b"/tmp"]
    for record in records(manifest):
        if record["kind"] == "file" and record["type"] == "regular":
            arguments += [b"--ro-bind", raw(record["path"]), raw(record["path"])]
        elif record["kind"] == "file" and record["type"] == "symlink":
            arguments += [b"--symlink", raw(record["target"]), raw(record["path"])]
    return b"".join(argument + b"\0" for argument in arguments)


def bubblewrap(arguments: bytes) -> float:
    """Run `true` under bubblewrap once."""
    descriptor = os.memfd_create("arguments", 0)
    try:
        os.write(descriptor, arguments)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return timed(["bwrap", "--args", str(descriptor), "true"], input_fd=descriptor)
    finally:
        os.close(descriptor)


def cut(manifest: Path, size: int) -> Path:
    """Make a manifest of `size` of the files and return its path."""
    path = manifest.with_name(f"{size}.jsonl")
    subprocess.run([*HELPER, "cut", manifest, str(size), path], check=True)
    return path


def enter(manifest: Path, *options: str) -> float:
    """Run `true` in the manifest's jail with `pkgjail run`."""
    return timed([*PKGJAIL, "run", *options, str(manifest), "--", "true"])


def grown(place: Path, size: int) -> tuple[Path, str, str]:
    """Make a root with `size` files; return its manifest's path and the options to enter it."""
    root, manifest = place / f"root-{size}", place / f"grown-{size}.jsonl"
    root.mkdir()
    subprocess.run([*HELPER, "grow", root, str(size), manifest], check=True)
    return manifest, "--root", str(root)


def files_of(manifest: Path) -> int:
    """Return how many regular files a manifest has, each of which is a bind."""
    return sum(1 for r in records(manifest) if r["kind"] == "file" and r["type"] == "regular")


def process_subjects(spack: Path, place: Path) -> list[Subject]:
    """Return the whole process of `pkgjail run`, and Python alone."""
    (place / "nothing.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(place)}
    return [
        Subject(PASS, lambda: timed([sys.executable, "-c", "pass"])),
        Subject(MODULE, lambda: timed([sys.executable, "-m", "nothing"], environment=environment), PASS),
        Subject(f"pkgjail run spack, {files_of(spack):,} files", partial(enter, spack), PASS),
        Subject("pkgjail run spack", partial(enter, spack), MODULE),
    ]


def library_subjects(request: Callable[[str], float]) -> list[Subject]:
    """Return the jail of `spack` from a running Python, and a plain process, and bare namespaces."""
    return [
        Subject("subprocess.run(true)", partial(request, "true")),
        Subject(FLOOR, partial(request, "bare"), "subprocess.run(true)"),
        Subject("prepare_jail(spack).run(true)", partial(request, "jail"), "subprocess.run(true)"),
        Subject("set-up of the jail of spack", partial(request, "jail"), FLOOR),
        Subject("run_in_jail(spack, true)", partial(request, "once"), FLOOR),
    ]


def growth_subjects(place: Path) -> list[Subject]:
    """Return jails that are one mount, with few files and a hundred times as many."""
    few, many = (grown(place, size) for size in GROWN)
    name = f"pkgjail run, {GROWN[0]:,} files in a tree"
    return [
        Subject(name, partial(enter, *few)),
        Subject(f"pkgjail run, {GROWN[1]:,} files in a tree", partial(enter, *many), name),
    ]


def entry_rows(place: Path, runs: int) -> tuple[list[Row], list[str]]:
    """Compare entries with Python alone, bare namespaces, and bubblewrap with the same files."""
    spack = make_manifest("spack", place)
    rows = measure("whole process", process_subjects(spack, place), 2 * runs)
    with library(spack) as request:
        rows += measure("from a running Python", library_subjects(request), 2 * runs)
    rows += measure("growth", growth_subjects(place), runs)
    peers, notes = peer_rows(spack, runs)
    return rows + peers, notes


def peer_rows(spack: Path, runs: int) -> tuple[list[Row], list[str]]:
    """Compare jails of growing size, one bind mount per file, with bubblewrap's."""
    subjects = []
    has_peer = shutil.which("bwrap") is not None
    for size in SIZES:
        part, peer = cut(spack, size), f"bubblewrap, {size:,} files"
        if has_peer:
            subjects.append(Subject(peer, partial(bubblewrap, bubblewrap_arguments(part))))
        binds = partial(enter, part, "--strategy", "binds")
        subjects.append(Subject(f"pkgjail run --strategy binds, {size:,} files", binds, peer))
        subjects.append(Subject(f"pkgjail run, {size:,} files", partial(enter, part), peer))
    rows = measure("entry", subjects, runs)
    return rows, [refusal(spack) if has_peer else "bubblewrap is not installed."]


def refusal(manifest: Path) -> str:
    """Return bubblewrap's error for more files than it takes."""
    try:
        bubblewrap(bubblewrap_arguments(cut(manifest, TOO_MANY)))
    except subprocess.CalledProcessError as error:
        return f"bubblewrap refuses {TOO_MANY:,} files: {error.stderr.decode(errors='replace').strip()}"
    return f"bubblewrap took {TOO_MANY:,} files."


# --- all of it ------------------------------------------------------------------------------


def machine() -> str:
    """Return a description of this machine."""
    cpus, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"Linux {platform.release()}, {cpus} CPUs, load {load:.1f}, Python {platform.python_version()}"


def slow_rows(only: str | None, place: Path, runs: int) -> list[Row]:
    """Measure the groups whose subjects take seconds."""
    rows: list[Row] = []
    if only in (None, "build"):
        subjects = build_subjects(make_manifest("build", place), PKGJAIL, place)
        rows += measure("build", subjects, runs, slow_runs=SLOW_BUILDS)
    if only in (None, "audit"):
        subjects = audit_subjects(make_manifest("build", place), PKGJAIL, place)
        rows += measure("audit", subjects, runs, slow_runs=SLOW_BUILDS)
    if only in (None, "machines"):
        with machine_subjects(PKGJAIL, place) as subjects:
            rows += measure("machines", subjects, runs, slow_runs=SLOW_BUILDS)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print tables or JSON."""
    parser = argparse.ArgumentParser(description="Compare pkgjail with its peers on this machine.")
    parser.add_argument("--runs", type=int, default=11, help="timed runs of each subject (default 11)")
    parser.add_argument("--only", choices=GROUPS, help="measure one group only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    notes = [machine()]
    with tempfile.TemporaryDirectory(prefix="pkgjail-bench-") as made:
        place = Path(made)
        if options.only in (None, "resolve"):
            rows += measure("resolve", resolve_subjects(place), options.runs)
            notes += resolve_notes()
        if options.only in (None, "available"):
            rows += measure("available", planning_subjects(PKGJAIL, APT_LISTS, place), options.runs)
        if options.only in (None, "databases"):
            rows += measure("databases", database_subjects(place), options.runs)
        if options.only in (None, "plans"):
            with tempfile.TemporaryDirectory(prefix="pkgjail-bench-", dir="/dev/shm") as memory:
                rows += measure("plans", plan_subjects(Path(memory)), options.runs)
        if options.only in (None, "verify"):
            rows += measure("verify", verify_subjects(PKGJAIL, place), options.runs)
        if options.only in (None, "export"):
            rows += measure("export", export_subjects(PKGJAIL, place), options.runs)
        if options.only in (None, "images"):
            rows += measure("images", image_subjects(PKGJAIL, place), options.runs)
            rows += measure("entry of images", image_entry_subjects(PKGJAIL, place), options.runs)
        if options.only in (None, "entry"):
            entries, entry_notes = entry_rows(place, options.runs)
            rows += entries
            notes += entry_notes
        rows += slow_rows(options.only, place, options.runs)
    if options.json:
        print(json.dumps({"notes": notes, "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print("\n".join([table(rows), "", *notes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
