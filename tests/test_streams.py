"""Exit statuses and messages if standard input, output or error is closed, full, or has no reader."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.api import resolve
from pkgjail.audit.model import Audit
from pkgjail.audit.record import write_audit
from pkgjail.cli.main import VERBS, main
from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pkgjail.core.model import FileEntry, Manifest


AUDIT = Audit(
    manifest="sha256:0", family="debian", architecture="amd64", command=("true",), status=0, events=0
)


class Work(NamedTuple):
    """A command line, its end, and its end if standard output cannot be written.

    `prints` is whether pkgjail itself writes to standard output.
    """

    words: str
    status: int = 0
    lost: int = 0
    prints: bool = True


# M is a manifest, S a small one, A the record of an audit, B a directory with a file, D a directory that is
# not there, E an environment, F a file to write.
WORK = {
    "init": Work("init --package coreutils"),
    "lock": Work("lock"),
    "resolve": Work("resolve base --no-hash -o F"),
    "resolve, printing": Work("resolve base --no-hash", lost=1),
    "show": Work("show M", lost=1),
    "browse": Work("browse M", 1, 1, prints=False),  # there is no terminal
    "why": Work("why M /no/such", 1, 1),
    "diff": Work("diff M OLD", 1, 2),
    "graph": Work("graph M", lost=1),
    "graph to a file": Work("graph M -o F", prints=False),
    "check": Work("check --static HOLED", 1, 1),
    "check, closed": Work("check --static M"),
    "check, for programs": Work("check --static M --json", lost=1),
    "verify": Work("verify --quick M"),
    "verify, differing": Work("verify --quick DRIFTED", 1, 1),
    "report": Work("report M -o F"),
    "audit": Work("audit show A", lost=1),
    "audit, of programs": Work("audit why A /no/such", 1, 1),
    "audit, compared": Work("audit diff A A", prints=False),
    "audit, influence": Work("audit influence --bind B --output B --limit 0 S -- true", lost=1),
    "report, printing": Work("report M -o -", lost=1),
    "learn": Work("learn --manifest M -o F -- true"),
    "learn, printing": Work("learn --manifest M --no-check -- true", lost=1),
    "minimise": Work("minimise --bind B --output B -o F S -- true"),
    "minimise, printing": Work("minimise --bind B --output B S -- true", lost=1),
    "run": Work("run M -- sh -c 'exit 5'", 5, 5, prints=False),
    "run, audited": Work("run --audit F M -- sh -c 'exit 5'", 5, 5, prints=False),
    "run, failing": Work("run /no/such -- true", 125, 125, prints=False),
    "run, no such command": Work("run M -- nope", 127, 127, prints=False),
    "shell": Work("shell M", prints=False),
    "build": Work("build M D"),
    "build, printing": Work("build --fstab M D", lost=1),
    "enter": Work("enter E -- sh -c 'exit 5'", 5, 5, prints=False),
    "remove": Work("remove D"),
    "mounts": Work("mounts M", lost=1),
    "doctor": Work("doctor", lost=1),
    "stages": Work("stages", lost=1),
    "backends": Work("backends", lost=1),
    "image": Work("image ls", lost=1),
    "image, pruning": Work("image prune"),
    "cache": Work("cache ls", lost=1),
    "cache, pruning": Work("cache prune"),
    "export": Work("export M --format mtree", lost=1),
    "export to a file": Work("export M --format mtree -o F", prints=False),
    "completion": Work("completion bash", lost=1),
    "man": Work("man", lost=1),
    "help of run, by the verb": Work("help run", lost=1),
    "help": Work("--help", lost=1),
    "help of run": Work("run --help", lost=125),
    "version": Work("--version", lost=1),
    "bad usage": Work("show", 2, 2, prints=False),
    "bad usage of run": Work("run", 125, 125, prints=False),
}
CLOSED = [found for count in (0, 1, 2, 3) for found in itertools.combinations((0, 1, 2), count)]
# Those that every run of the tests looks at; the others take minutes.
QUICK = ("closed: (0, 1, 2)", "output full", "error full")
# How the descriptors are, in the words of a shell; whether standard output is lost, and whether standard
# error can be read.
STATES = {
    **{
        f"closed: {closed}": ("".join(f" {n}>&-" for n in closed), 1 in closed, 2 not in closed)
        for closed in CLOSED
    },
    "output full": (" >/dev/full", True, True),
    "error full": (" 2>/dev/full", False, False),
    "both full": (" >/dev/full 2>/dev/full", True, False),
    "output full, error closed": (" >/dev/full 2>&-", True, False),
    "nobody reads": (" >&9", False, True),
    "nobody reads either": (" >&9 2>&9", False, False),
}


@pytest.fixture(scope="module")
def places(base_manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that the letters of `WORK` stand for: manifests of this host, and an environment."""
    place = tmp_path_factory.mktemp("stdio")
    made = {
        name: str(place / name) for name in ("M", "S", "A", "B", "OLD", "HOLED", "DRIFTED", "E", "D", "F")
    }
    files = base_manifest.files
    write_manifest(base_manifest, made["M"])
    (place / "s.toml").write_text('[packages]\ndebian = ["coreutils"]\n[options]\nessential = false\n')
    write_manifest(resolve([str(place / "s.toml")], hashed=False), made["S"])
    (place / "B").mkdir()
    (place / "B/file").write_text("content\n")
    write_audit(AUDIT, made["A"])
    write_manifest(_with_files(base_manifest, [e for e in files if e.path != b"/usr/bin/env"]), made["OLD"])
    holed = [e for e in files if not e.path.endswith(b"/libselinux.so.1")]
    write_manifest(_with_files(base_manifest, holed), made["HOLED"])
    drifted = [e._replace(mode=0o600) if e.path == b"/usr/bin/env" else e for e in files]
    write_manifest(_with_files(base_manifest, drifted), made["DRIFTED"])
    assert main(["build", made["M"], made["E"]]) == 0
    return made


def _with_files(manifest: Manifest, files: list[FileEntry]) -> Manifest:
    return replace(manifest, files=tuple(files))


@contextlib.contextmanager
def _nobody_reads() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


def _run(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, whose descriptor 9 is a pipe that nobody reads."""
    with _nobody_reads() as pipe:
        return subprocess.run(
            ["bash", "-c", f"exec 9>&{pipe}; ({line})"],
            pass_fds=[pipe],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def test_all_verbs_are_worked_with() -> None:
    """Protects the table from a verb that is not in it."""
    assert {work.words.split()[0] for work in WORK.values()} >= set(VERBS)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_statuses_are_those_of_the_table(work: Work, places: dict[str, str]) -> None:
    """Any stream closed or full: the documented status, a message if it can be read, no traceback."""
    assert _wrong(work, places, QUICK) == []


@pytest.mark.long
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_statuses_in_each_state(work: Work, places: dict[str, str]) -> None:
    """The same with each of the three streams closed or open, and with all their other faults."""
    assert _wrong(work, places, [state for state in STATES if state not in QUICK]) == []


def _wrong(work: Work, places: dict[str, str], states: Iterable[str]) -> list[tuple[object, ...]]:
    """Return the states in which the command ends differently, or reports differently."""
    words = shlex.join(places.get(word, word) for word in shlex.split(work.words))
    # What `build` makes goes before and after, and `remove` finds one.
    before = f"rm -rf {places['D']}; "
    if work.words == "remove D":
        before += f"{sys.executable} -m pkgjail build {places['M']} {places['D']} >/dev/null; "
    if work.words.startswith(("init", "lock")):
        project = f"{places['B']}/project"
        before += f"rm -rf {project}; mkdir {project}; cd {project}; "
    if work.words == "lock":
        before += f"{sys.executable} -m pkgjail init --package coreutils >/dev/null; "
    wrong: list[tuple[object, ...]] = []
    for state in states:
        redirections, lost, readable = STATES[state]
        ran = _run(f"{before}{sys.executable} -m pkgjail {words}{redirections}")
        expected = work.lost if lost else work.status
        told = "cannot write to standard output" in ran.stderr
        as_expected = ran.returncode == expected and told == (lost and readable and work.prints)
        if not as_expected or "Traceback" in ran.stderr or "Exception" in ran.stderr:
            wrong.append((state, ran.returncode, expected, ran.stderr))
    return wrong


def test_the_command_has_closed_what_its_caller_has(places: dict[str, str], tmp_path: Path) -> None:
    """The command does not inherit pkgjail's placeholders."""
    listing = "for n in 0 1 2; do test -e /proc/self/fd/$n && printf $n; done >F; true"
    for verb, place in (("run", "M"), ("enter", "E")):
        for closed in CLOSED:
            redirections = "".join(f" {n}>&-" for n in closed)
            line = f"cd {tmp_path}; "
            line += f"{sys.executable} -m pkgjail {verb} --cwd {places[place]} -- sh -c '{listing}'"
            assert _run(line + redirections).returncode == 0
            # The redirection to F is the loop's, and takes 1 for it.
            still = "".join(str(n) for n in (0, 1, 2) if n == 1 or n not in closed)
            assert (tmp_path / "F").read_text() == still


def test_no_file_lands_on_a_standard_descriptor(places: dict[str, str]) -> None:
    """Protects a manifest from what is written to standard output or error while it is open."""
    _run(f"{sys.executable} -m pkgjail resolve base --no-hash -o {places['F']} >&-")
    with open(places["F"], "rb") as found:
        whole = found.read()
    for closed in CLOSED:
        redirections = "".join(f" {n}>&-" for n in closed)
        _run(f"{sys.executable} -m pkgjail resolve base --no-hash -o {places['F']}{redirections}")
        with open(places["F"], "rb") as found:
            assert found.read() == whole


def test_a_pipe_that_does_not_block_gets_all_of_it(places: dict[str, str]) -> None:
    """As a terminal that another program has set so: whoever is slow to read still reads all."""
    command = [sys.executable, "-m", "pkgjail", "export", "--format", "mtree", places["M"]]
    whole = subprocess.run(command, capture_output=True, check=True).stdout
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        time.sleep(0.5)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == whole
        assert (process.communicate()[1], process.wait()) == (b"", 0)
    assert len(whole) > 1 << 17  # more than a pipe holds


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["--json", "show"], "required: MANIFEST", id="before the verb"),
        pytest.param(["show", "--json"], "required: MANIFEST", id="too few"),
        pytest.param(["shw", "--json"], "did you mean 'show'?", id="a verb's name"),
        pytest.param(["graph", "--json", "--fokus", "m"], "--fokus; did you mean '--focus'?", id="an option"),
        pytest.param(["graph", "--format", "json", "m", "x"], "arguments: x", id="a word too many"),
        pytest.param(["diff", "--format=json"], "required: OLD, NEW", id="by a format"),
        pytest.param(["run", "--json"], "required: MANIFEST", id="run"),
        pytest.param(["run", "m", "--json", "--frob", "--", "x"], "--frob", id="run, behind the manifest"),
        pytest.param(["enter", "d", "--strategy", "biinds", "--json", "--", "x"], "'binds'?", id="a choice"),
        pytest.param(["resolve", "--json", "\x1b[31m", "--frob\x1b"], r"--frob\x1b", id="a sign"),
    ],
)
def test_bad_usage_as_json(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An object on a line, with the status and what may be meant."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    found = json.loads(captured.err)
    assert (captured.out, found["error"], found["exit_status"]) == ("", "UsageError", ended.value.code)
    assert told in found["message"]


def test_a_manifest_from_a_closed_standard_input() -> None:
    """Is an error that names it, and no traceback."""
    ran = _run(f"{sys.executable} -m pkgjail verify - <&-")
    told = "pkgjail: cannot read standard input: it is closed; name a file\n"
    assert (ran.returncode, ran.stderr) == (1, told)


def test_json_behind_the_command_is_the_command_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--frob", "m", "--", "x", "--json"])
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_name_that_the_locale_lacks_is_escaped(places: dict[str, str]) -> None:
    """Protects people with a locale of few characters from a traceback, and from less than all of it."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "pkgjail", "why", places["M"], "/usr/share/\u00e9"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = "/usr/share/\\xe9: not in the manifest; no package of the host has it\n"
    assert (ran.returncode, ran.stdout) == (1, told)
