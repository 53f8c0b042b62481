"""Run the commands of `commands` bare, by the entry point, and by the wrapper; compare; write the table.

    PKGJAIL_SPACK_ROOT=… PKGJAIL_SPACK_PACKAGES=… python3 -m tests.spack.table [--write docs/spack.md]

This runs as an ordinary user, with the distribution's Python, and needs only the standard library. Each way
has a copy of its own of each Spack. The program ends with 1 if there is a difference without a reason.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.spack.commands import COMMANDS, REASONS, Command
from tests.spack.real import (
    ROOTS,
    Version,
    copy_spack,
    make_hello_mpi,
    make_hello_z,
    make_pythons,
    version_of,
    write_repositories,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

WAYS = ("bare", "entry point", "wrapper")
BEGIN, END = "<!-- table of commands: begin -->", "<!-- table of commands: end -->"
_SECONDS = 1800

# What differs between two runs of the same command.
_NORMAL = (
    (re.compile(r"\x1b\[[0-9;]*[a-zA-Z]"), ""),
    (re.compile(r"\b\d+(\.\d+)?(ms|s)\b"), "TIME"),
    (re.compile(r"\b\d+m\d+(\.\d+)?s\b"), "TIME"),
    (re.compile(r"\b\d\d\d\d-\d\d-\d\d[T -]\d\d:\d\d:\d\d(\.\d+)?"), "DATE"),
    (re.compile(r"\b20\d\d-\d\d-\d\d(-[\d:.]+)?"), "DATE"),
    (re.compile(r"\b\d+\.\d+ (seconds|s)\b"), "TIME"),
    (re.compile(r"/tmp[a-z0-9_]{8}\b"), "/TEMPORARY"),
    (re.compile(r" {3,}"), "  "),  # columns, as wide as the place's path
    (re.compile(r"Fetching [^\n]*|\[100%\][^\n]*"), "FETCH"),
)


class Result(NamedTuple):
    """The status of a command and what it printed, without what differs between two runs."""

    status: int
    output: str


class Place(NamedTuple):
    """A Spack of one way, and the variables with which its commands run."""

    base: Path
    root: Path
    variables: dict[str, str]


def set_up(
    source: Path, base: Path, pythons: tuple[Path, Path], externals: Sequence[str] = ()
) -> tuple[Place, Version]:
    """Make a Spack in `base` that has the recipe hello-z, the host's compilers, gmake and more externals."""
    root, work = base / "spack", base / "work"
    if (work / "hello-z.json").exists():  # of an earlier run in this directory
        return Place(base, root, variables_of(base, "bare", pythons)), version_of(root)
    version = copy_spack(source, root)
    for directory in (base / "home", base / "tmp", base / "cache", work):
        directory.mkdir()
    write_repositories(root, version, [make_hello_z(work, version)])
    make_hello_mpi(work, version)
    # Beside the cache of the user: Spack would put it where the name depends on its own path.
    settings = f"config:\n  misc_cache: {base}/cache/misc\n  build_stage: {base}/tmp/stage\n"
    (root / "etc" / "spack" / "config.yaml").write_text(settings, encoding="utf-8")
    log = "gcc -c x.c\nx.c:1:1: error: unknown type name 'y'\nmake: *** [x.o] Error 1\n"
    (work / "build.log").write_text(log, encoding="utf-8")
    subprocess.run(["tar", "-C", work, "-xf", work / "hello-z-1.0.tar.gz"], check=True)
    place = Place(base, root, variables_of(base, "bare", pythons))
    spack(place, ["compiler", "find", "--scope", "site"])
    spack(place, ["external", "find", "--scope", "site", "--not-buildable", "gmake", *externals])
    if not version.has_recipes:
        # Otherwise the solver considers all compilers that could be built, and takes three times as long.
        for name in ("gcc", "c", "cxx", "fortran"):
            spack(place, ["config", "--scope", "site", "add", f"packages:{name}:buildable:false"])
    spec = run(place, Command("spec --json hello-z"))
    (work / "hello-z.json").write_text(spec.output[spec.output.index("{") :], encoding="utf-8")
    return place, version


def variables_of(base: Path, way: str, pythons: tuple[Path, Path]) -> dict[str, str]:
    """Return the variables for one way: bare and by the wrapper, pkgjail is not in Spack's Python."""
    python, plain = pythons
    names = {
        "HOME": str(base / "home"),
        "TMPDIR": str(base / "tmp"),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "EDITOR": "/bin/true",
        "SPACK_USER_CACHE_PATH": str(base / "cache"),
        "SPACK_USER_CONFIG_PATH": str(base / "home" / "config"),
        "SPACK_DISABLE_LOCAL_CONFIG": "1",
        "SPACK_PYTHON": str(python if way == "entry point" else plain),
    }
    if way == "wrapper":
        names["SPACK_PYTHON"] = str(python.parent / "pkgjail-spack-python")
        names["PKGJAIL_SPACK_PYTHON"] = str(plain)
    return names


def spack(place: Place, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a Spack command; a status of -1 means that it did not end."""
    command = [str(place.root / "bin" / "spack"), *arguments]
    try:
        return subprocess.run(
            command,
            env=place.variables,
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, -1, f"no end after {error.timeout} s")


def run(place: Place, command: Command) -> Result:
    """Run one command of the table; the place's own path is taken out of what it prints."""
    words = command.line.replace("{spec}", f"{place.base}/work/hello-z.json")
    words = words.replace("{work}", f"{place.base}/work")
    words = words.replace("{root}", str(place.root))
    done = spack(place, words.split(" "))
    return Result(done.returncode, normalize(done.stdout.replace(str(place.base), "$BASE")))


def normalize(text: str) -> str:
    """Take out what differs between two runs of the same command."""
    for pattern, instead in _NORMAL:
        text = pattern.sub(instead, text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def commands_of(version: Version) -> list[Command]:
    """Return the commands that this version has."""
    return [command for command in COMMANDS if command.since <= version.numbers <= command.until]


def move(
    place: Place, base: Path, way: str, pythons: tuple[Path, Path], whitelists: Sequence[str] = ()
) -> Place:
    """Copy a Spack that was set up to another place, with all paths in its configuration."""
    shutil.copytree(place.base, base, symlinks=True)
    for path in (
        *base.glob("spack/etc/spack/**/*.yaml"),
        *base.glob("work/**/package.py"),
        base / "work" / "hello-z.json",
    ):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(place.base), str(base)), encoding="utf-8")
    made = Place(base, base / "spack", variables_of(base, way, pythons))
    if way != "bare":
        variables = variables_of(base, "entry point", pythons)
        lists = [f"--whitelist={name}" for name in ("spack", *whitelists)] if whitelists else []
        command = ["jail", "--build-environment", f"{base}-env", "--bind", str(base / "work"), *lists]
        done = spack(made._replace(variables=variables), command)
        assert done.returncode == 0, done.stdout
    return made


def run_all(source: Path, directory: Path, pythons: tuple[Path, Path]) -> Run:
    """Run all commands of one Spack by all ways, which run beside each other."""
    place, version = set_up(source, directory / "first", pythons)
    places = {way: move(place, directory / way.replace(" ", "-"), way, pythons) for way in WAYS}
    commands = commands_of(version)

    def run_way(way: str) -> list[Result]:
        results = []
        for command in commands:
            results.append(run(places[way], command))
            print(f"{version.text} {way}: {command.line}: {results[-1].status}", file=sys.stderr, flush=True)
            with open(directory / f"{way}.jsonl", "a", encoding="utf-8") as log:
                print(json.dumps([command.line, *results[-1]]), file=log)
        return results

    with ThreadPoolExecutor(len(WAYS)) as pool:
        results = dict(zip(WAYS, pool.map(run_way, WAYS)))
    return Run(
        version.text,
        [
            Row(command, {way: results[way][number] for way in WAYS})
            for number, command in enumerate(commands)
        ],
    )


class Row(NamedTuple):
    """A command and its results by each way."""

    command: Command
    results: dict[str, Result]

    def difference(self) -> str:
        """Return what differs by one of the hooks: "", "output" or "status"."""
        bare, *others = (self.results[way] for way in WAYS)
        if any(other.status != bare.status for other in others):
            return "status"
        if not self.command.only_status and any(other.output != bare.output for other in others):
            return "output"
        return ""

    def reason(self) -> str:
        """Return the known reason of a difference, or ""."""
        return REASONS.get(self.command.line, "")


class Run(NamedTuple):
    """All commands of one Spack."""

    version: str
    rows: list[Row]

    def unexplained(self) -> list[Row]:
        """Return the commands that differ without a reason."""
        return [row for row in self.rows if row.difference() and not row.reason()]


def render(runs: list[Run], today: dt.date) -> str:
    """Return the table in Markdown."""
    reasons = dict.fromkeys(row.reason() for one in runs for row in one.rows if row.difference())
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    count = sum(len(one.rows) for one in runs)
    introduction = (
        f"`make spack-table` made this on {today.isoformat()}: {count} times a command bare, by the entry "
        "point, and by the wrapper, as an ordinary user. A cell has the status of the bare command. With "
        "`=`, both hooks gave the same status and output; with `s`, the same status, as the output differs "
        "from run to run or lists the host; a number names a difference below."
    )
    cells = [{row.command.line: _cell(row, numbers) for row in one.rows} for one in runs]
    lines = [
        "\n".join(textwrap.wrap(introduction, 118)),
        "",
        "| `spack …` | " + " | ".join(one.version for one in runs) + " |",
        "|---" * (len(runs) + 1) + "|",
    ]
    for line in dict.fromkeys(command.line for command in COMMANDS):
        if any(line in found for found in cells):
            row = " | ".join(found.get(line, "") for found in cells)
            lines.append(f"| `{line}` | {row} |")
    notes = [
        textwrap.fill(f"{number}. {reason}", 118, subsequent_indent="   ")
        for reason, number in numbers.items()
    ]
    return "\n".join([BEGIN, "", *lines, "", *notes, "", END])


def _cell(row: Row, numbers: dict[str, int]) -> str:
    status = row.results[WAYS[0]].status
    if row.difference():
        return f"{status} [{numbers[row.reason()]}]"
    return f"{status} {'s' if row.command.only_status else '='}"


def write(path: Path, table: str) -> None:
    """Replace the table in a page."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    path.write_text(before + table + rest.split(END)[1], encoding="utf-8")


def save(path: Path, runs: list[Run]) -> None:
    """Write all results."""
    values = [
        {
            "version": one.version,
            "rows": [{"line": row.command.line, "results": row.results} for row in one.rows],
        }
        for one in runs
    ]
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def load(path: Path) -> list[Run]:
    """Read what `save` wrote, without commands that the table no longer has."""
    by_line = {command.line: command for command in COMMANDS}
    return [
        Run(
            one["version"],
            [
                Row(
                    by_line[row["line"]],
                    {way: Result(code, normalize(text)) for way, (code, text) in row["results"].items()},
                )
                for row in one["rows"]
                if row["line"] in by_line
            ],
        )
        for one in json.loads(path.read_text(encoding="utf-8"))
    ]


def main() -> int:
    """Run all Spacks that PKGJAIL_SPACK_ROOT names."""
    parser = argparse.ArgumentParser(prog="tests.spack.table", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write all results")
    parser.add_argument("--load", type=Path, action="append", metavar="FILE", help="run nothing; read these")
    parser.add_argument("--directory", type=Path, help="where to work; it is kept")
    arguments = parser.parse_args()
    if arguments.load:
        runs = [one for path in arguments.load for one in load(path)]
    else:
        if os.geteuid() == 0:
            parser.error("run this as an ordinary user, who has an entry in passwd(5)")
        if not ROOTS:
            parser.error("PKGJAIL_SPACK_ROOT names no Spack")
        runs = run_roots(arguments.directory)
    if arguments.save:
        save(arguments.save, runs)
    unexplained = [(one, row) for one in runs for row in one.unexplained()]
    for one, row in unexplained:
        print(f"{one.version}: {row.command.line}: another {row.difference()}")
        for way in WAYS:
            print(f"--- {way}: {row.results[way].status}\n{row.results[way].output}")
    if arguments.write and not unexplained:
        write(arguments.write, render(runs, dt.datetime.now(tz=dt.timezone.utc).date()))
    counts = [f"{one.version}: {len(one.rows)} commands" for one in runs]
    print(f"{'; '.join(counts)}; {len(unexplained)} differ without a reason")
    return 1 if unexplained else 0


def run_roots(directory: Path | None) -> list[Run]:
    """Run all commands of all Spacks in a directory, or in a temporary one, which is removed."""
    place = directory or Path(tempfile.mkdtemp(prefix="pkgjail-spack-table-"))
    place.mkdir(exist_ok=True)
    pythons = make_pythons(place)
    runs = [run_all(root, place / str(number), pythons) for number, root in enumerate(ROOTS)]
    if directory is None:
        shutil.rmtree(place)
    return runs


if __name__ == "__main__":
    sys.exit(main())
