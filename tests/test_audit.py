"""Audits of commands in real jails: what is recorded, whatever a program does, and how each ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pkgjail.audit import tally
from pkgjail.audit.record import read_audit
from pkgjail.audit.run import run_audited
from pkgjail.audit.wanted import wanted
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment
from pkgjail.manifest import write_manifest
from tests.conftest import SYSTEM_PYTHON
from tests.sleepers import Marked

if TYPE_CHECKING:
    from pkgjail.audit.model import Audit, LookUp
    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

SOURCE = Path(__file__).with_name("audit_probe.c")
ZLIB = b"/usr/include/zlib.h"


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that makes odd calls (audit_probe.c)."""
    made = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["gcc", "-static", "-pthread", "-O1", "-o", made, SOURCE], check=True)
    return made


class Auditor:
    """Runs commands of one user with an audit, in a directory with the probe."""

    def __init__(self, user: Caller, manifest: Manifest, probe: Path) -> None:
        self.user = user
        self.place = user.home / "build"
        self.place.mkdir()
        write_manifest(manifest, user.home / "m.jsonl")
        (self.place / "probe").write_bytes(probe.read_bytes())
        (self.place / "probe").chmod(0o755)
        subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", user.home], check=True)

    def words(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line."""
        return [
            "run",
            "--audit",
            str(self.user.home / "a.jsonl"),
            "--cwd",
            *options,
            "../m.jsonl",
            "--",
            *command,
        ]

    def run(
        self, *command: str, options: tuple[str, ...] = ()
    ) -> tuple[subprocess.CompletedProcess[str], Audit]:
        """Run a command, and read the record."""
        ran = self.user.pkgjail(*self.words(*command, options=options), cwd=self.place)
        return ran, read_audit(self.user.home / "a.jsonl")

    def __call__(self, *command: str) -> Audit:
        """Run a command that ends with 0, and read the record."""
        ran, audit = self.run(*command)
        assert ran.returncode == audit.status == 0, ran.stderr
        return audit


@pytest.fixture
def auditor(anyone: Caller, base_manifest: Manifest, probe: Path) -> Auditor:
    """For root and an ordinary user in turn."""
    return Auditor(anyone, base_manifest, probe)


def at(audit: Audit, path: bytes) -> LookUp | None:
    """The look-up of a path, None if there is none."""
    return next((each for each in audit.look_ups if each.path == path), None)


class Row(NamedTuple):
    """A command in the jail, the path that it asks for, and by which call."""

    command: str
    path: bytes
    call: str


# Each asks for a file that this host has and `base` does not show.
ROWS = {
    "an absolute path": Row("./probe stat /usr/include/zlib.h", ZLIB, "look"),
    "a relative path": Row("cd /usr; /usr/bin/test -e include/zlib.h", ZLIB, "look"),
    "through a directory's descriptor": Row("./probe at include/zlib.h", ZLIB, "look"),
    "up and down": Row("./probe stat /usr/lib/../include/./zlib.h", ZLIB, "look"),
    "a slash too many": Row("./probe stat //usr//include//zlib.h", ZLIB, "look"),
    "through a link of the build": Row("ln -s /usr/include i; ./probe stat i/zlib.h", ZLIB, "look"),
    "the merged directory's other name": Row(
        "./probe stat /lib/x86_64-linux-gnu/libz.a", b"/usr/lib/x86_64-linux-gnu/libz.a", "look"
    ),
    "the ABI of 32 bits": Row("./probe 32 /usr/include/zlib.h", ZLIB, "look"),
    "at the end of a page": Row("./probe edge /usr/include/zlib.h", ZLIB, "look"),
    "of the longest path": Row("./probe long /usr/include/zlib.h", ZLIB, "look"),
    "by open(2)": Row("read line < /usr/include/zlib.h", ZLIB, "open"),
    "by open(2) to write": Row("echo > /usr/include/zlib.h", ZLIB, "change"),
    "by readlink(2)": Row("readlink /usr/include/zlib.h", ZLIB, "link"),
    "by execve(2)": Row("/usr/bin/make", b"/usr/bin/make", "exec"),
    "by chdir(2)": Row("cd /usr/include/X11", b"/usr/include/X11", "look"),
    "by opendir(3)": Row("ls -f /usr/include/asm-generic", b"/usr/include/asm-generic", "look"),
    "by unlink(2)": Row("rm -f /usr/include/zlib.h", ZLIB, "change"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_way_to_ask_is_seen(auditor: Auditor, row: Row) -> None:
    """Whatever call asks, and however the path is written, the record has the one resolved path."""
    ran, audit = auditor.run("sh", "-c", f"{row.command}; true")
    assert ran.returncode == 0
    found = at(audit, row.path)
    assert found is not None
    assert found.calls.get(row.call, 0) >= 1
    assert (found.inside, found.area) == ("absent", "manifest")
    assert found.source != "absent"
    assert audit.unread == 0


def test_the_answers(auditor: Auditor) -> None:
    """What is inside, with its packages; what only the source has, with its package; what is nowhere."""
    (auditor.place / "own.h").write_text("")
    audit = auditor(
        "sh", "-c", "for f in /bin/sh /etc/passwd own.h /usr/include/zlib.h; do [ -e $f ]; done; true"
    )
    shell = at(audit, b"/usr/bin/dash")
    assert shell is not None
    assert (shell.inside, shell.area, shell.owners) == ("regular", "manifest", ("dash:amd64",))
    own = at(audit, os.fsencode(auditor.place / "own.h"))
    assert own is not None
    assert (own.inside, own.area, own.owners) == ("regular", "bind", ())
    header = at(audit, ZLIB)
    assert header is not None
    assert (header.source, header.owners, header.rule) == ("regular", ("zlib1g-dev:amd64",), "")
    assert next(package.package for package in wanted(audit)) == "zlib1g-dev:amd64"


def test_names_that_are_nowhere_are_counted_by_directory(auditor: Auditor) -> None:
    """And those of the jail's own directories. None of them is listed."""
    audit = auditor(
        "sh", "-c", "for n in 1 2 3 1; do [ -e /usr/include/nope$n.h ]; [ -e /tmp/x$n ]; done; true"
    )
    counts = {each.directory: (each.names, each.asked) for each in audit.nowhere}
    assert counts[b"/usr/include"] == (3, 4)
    assert counts[b"/tmp"] == (3, 4)
    assert not any(b"nope" in each.path or each.path.startswith(b"/tmp/x") for each in audit.look_ups)


def test_programs_are_known_with_those_that_started_them(auditor: Auditor) -> None:
    """A script by its interpreter; a failed execve(2) changes nothing; what the kernel opens counts, too."""
    script = auditor.place / "configure"
    script.write_text("#!/bin/sh\n/no/such/program\n./probe stat /usr/include/zlib.h\ntrue\n")
    script.chmod(0o755)
    audit = auditor("sh", "-c", "./configure && true")
    programs = {each.number: each for each in audit.programs}
    header = at(audit, ZLIB)
    assert header is not None
    ((number, count),) = header.programs
    chain = []
    while number:
        chain.append((programs[number].path.rpartition(b"/")[2], programs[number].script))
        number = programs[number].parent
    assert (chain, count) == ([(b"probe", b""), (b"dash", b"./configure"), (b"dash", b"")], 1)
    interpreter = at(audit, b"/usr/bin/dash")
    assert interpreter is not None
    assert interpreter.calls["exec"] >= 1
    loader = at(audit, b"/usr/lib64/ld-linux-x86-64.so.2")
    assert loader is not None, "the kernel opens the loader itself"


@pytest.mark.parametrize("limits", [(), ("--tty",)], ids=["spawned", "forked"])
def test_the_python_that_runs_pkgjail(caller: Caller, limits: tuple[str, ...]) -> None:
    """Protects from taking the command, which may be the same Python, for pkgjail's own process before it."""
    (caller.home / "w.toml").write_text('[packages]\ndebian = ["python3"]\n')
    assert caller.pkgjail("resolve", "./w.toml", "--no-hash", "-o", "w.jsonl").returncode == 0
    command = ["/usr/bin/python3", "-c", "import os; os.access('/usr/include/zlib.h', 0)"]
    ran = caller.pkgjail("run", *limits, "--audit", "a.jsonl", "w.jsonl", "--", *command)
    assert ran.returncode == 0, ran.stderr
    assert at(read_audit(caller.home / "a.jsonl"), ZLIB) is not None


def test_a_missing_interpreter_is_wanted(auditor: Auditor) -> None:
    """The kernel itself looks for it, so no call has its name."""
    script = auditor.place / "script"
    script.write_text("#!/usr/bin/python3\n")
    script.chmod(0o755)
    audit = auditor("sh", "-c", "./script; true")
    found = at(audit, b"/usr/bin/python3")
    assert found is not None
    assert (found.inside, found.owners) == ("absent", ("python3-minimal:amd64",))


def test_a_blacklists_rule_is_named(caller: Caller) -> None:
    """A path that the whitelist's package has, and a blacklist dropped."""
    (caller.home / "w.toml").write_text(
        '[packages]\ndebian = ["dash", "base-files"]\n[options]\nessential = false\n'
    )
    (caller.home / "b.ignore").write_text("/etc/debian_version\n")
    caller.pkgjail("resolve", "./w.toml", "--blacklist", "./b.ignore", "-o", "w.jsonl")
    caller.pkgjail("run", "--audit", "a.jsonl", "w.jsonl", "--", "sh", "-c", "[ -e /etc/debian_version ]")
    found = at(read_audit(caller.home / "a.jsonl"), b"/etc/debian_version")
    assert found is not None
    assert (found.inside, found.rule, found.owners) == (
        "absent",
        "b.ignore:1: /etc/debian_version",
        ("base-files:amd64",),
    )


def test_directories_that_are_listed(auditor: Auditor) -> None:
    """What the listing lacked is counted by package, and recorded if the build's own files name it."""
    (auditor.place / "configure.ac").write_text("AC_INIT\nPKG_CHECK_MODULES([Z], [zlib])\n")
    audit = auditor("sh", "-c", "ls /usr/share/aclocal; cat configure.ac; true")
    (listing,) = [each for each in audit.listings if each.path == b"/usr/share/aclocal"]
    assert listing.hidden["pkgconf:amd64"] == 1
    macros = at(audit, b"/usr/share/aclocal/pkg.m4")
    assert macros is not None
    assert (macros.clue, macros.owners, macros.mentions[0].line) == ("listed", ("pkgconf:amd64",), 2)


@pytest.mark.parametrize("what", ["race", "vanish", "notifier", "filter", "ring"])
def test_hostile_programs(auditor: Auditor, what: str) -> None:
    """The audit stays whole: the program ends as it does without, and what it did besides is recorded."""
    audit = auditor(
        "sh", "-c", f"./probe {what} /usr/include/zlib.h && ./probe stat /usr/include/zutil.h; true"
    )
    assert audit.unread == 0
    assert audit.rings == (1 if what == "ring" else 0)
    probes = [each for each in audit.programs if each.path.endswith(b"/probe")]
    assert probes
    if what == "filter":
        assert at(audit, ZLIB) is None, "the kernel never looked"
        assert at(audit, b"/usr/include/zconf.h") is not None
    if what in {"vanish", "notifier"}:
        assert at(audit, ZLIB) is not None


def test_any_bytes(auditor: Auditor) -> None:
    """Names that are no UTF-8 go through to the record and back."""
    name = b"caf\xe9 \n\\x"
    (auditor.place / os.fsdecode(name)).write_bytes(b"")
    audit = auditor("sh", "-c", "cat ./caf*")
    assert at(audit, os.fsencode(auditor.place) + b"/" + name) is not None


def test_folding_loses_nothing_that_exists(
    monkeypatch: pytest.MonkeyPatch, base_manifest: Manifest, tmp_path: Path, probe: Path
) -> None:
    """Protects the bound of memory: with a tiny one, what exists is recorded as without."""
    (tmp_path / "probe").write_bytes(probe.read_bytes())
    (tmp_path / "probe").chmod(0o755)
    place = os.fsencode(tmp_path)
    options = JailOptions(
        binds=(UserBind(source=place, destination=place, writable=True),),
        cwd=place,
        environment=default_environment(),
    )
    command = ["sh", "-c", "./probe many 5000; ./probe stat /usr/include/zlib.h; ./probe many 5000; true"]
    audits = []
    for most in (tally.MOST_BYTES, 100_000):
        monkeypatch.setattr(tally.Tally.__init__, "__defaults__", (most,))
        audits.append(run_audited(base_manifest, command, options))
    whole, folded = audits
    assert (whole.events, whole.unread) == (folded.events, 0)
    kept = {look_up.path: look_up for look_up in folded.look_ups}
    for look_up in whole.look_ups:
        if look_up.area == "manifest":
            assert kept[look_up.path].calls == look_up.calls
    counts = [{each.directory: each.asked for each in audit.nowhere} for audit in audits]
    assert counts[0][b"/usr/include"] == counts[1][b"/usr/include"] == 10_000


def test_a_caller_with_threads(base_manifest: Manifest) -> None:
    """Protects a jail from being killed if the process that sees its calls notices its end first."""
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        statuses = [run_audited(base_manifest, ["true"]).status for _ in range(12)]
    finally:
        stop.set()
        other.join()
    assert statuses == [0] * 12


class Ends(NamedTuple):
    """Who is killed, the statuses of pkgjail, and words of its message."""

    victim: str
    status: int
    words: str


ENDS = {
    "the process that sees the calls": Ends("supervisor", 125, "no record: ended by signal 9"),
    "the caller": Ends("caller", -9, ""),
    "the jail": Ends("init", 137, ""),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_kills(auditor: Auditor, end: Ends) -> None:
    """Whoever is killed while a build makes calls: nothing is left, and nobody waits forever."""
    marked = Marked()
    command = f"./probe forever & exec sleep {marked.seconds}"
    words = [SYSTEM_PYTHON, "-m", "pkgjail", *auditor.words("sh", "-c", command)]
    given = auditor.user.options(cwd=auditor.place)
    del given["capture_output"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given) as process:
        marked.wait_for("S")
        victims = _family(process.pid)
        os.kill(victims[end.victim], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == end.status
    assert end.words in errors
    marked.wait_for()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{number}").exists() for number in victims.values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (auditor.user.home / "a.jsonl").exists() == (end.victim == "init")


def _family(caller: int) -> dict[str, int]:
    """The processes that pkgjail started: the one that sees the calls, which leads a session, and init."""
    children = Path(f"/proc/{caller}/task/{caller}/children").read_text(encoding="ascii").split()
    found = {"caller": caller}
    for child in map(int, children):
        name = Path(f"/proc/{child}/cmdline").read_bytes()
        found["init" if name.startswith(b"pkgjail-init") else "supervisor"] = child
    return found


def test_closed_streams_leak_nothing(auditor: Auditor) -> None:
    """Protects the command from descriptors of the audit's in the place of closed ones."""
    command = "for n in 0 1 2 3 4 5 6; do [ -e /proc/$$/fd/$n ] && exit 1$n; done; exit 7"
    words = ["-m", "pkgjail", *auditor.words("sh", "-c", command)]
    closing = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', SYSTEM_PYTHON, *words]
    assert auditor.user.run(closing, cwd=auditor.place).returncode == 7


def test_an_audit_in_an_audit_is_refused(auditor: Auditor) -> None:
    """The outer one has the only listener: a clear error, and no record of nothing."""
    ran = auditor.user.pkgjail(
        "run", "--stage", "runc", "--audit", "a.jsonl", "../m.jsonl", "--", "true", cwd=auditor.place
    )
    assert ran.returncode == 125
    assert "only the stage namespaces lets another process see its calls" in ran.stderr


def test_a_record_that_cannot_be_written(auditor: Auditor) -> None:
    """It is told before the command runs, as that may take hours."""
    words = ["run", "--audit", "/no/such/a.jsonl", "--cwd", "../m.jsonl", "--", "touch", "ran"]
    ran = auditor.user.pkgjail(*words, cwd=auditor.place)
    assert ran.returncode == 125
    assert "/no/such" in ran.stderr
    assert not (auditor.place / "ran").exists()


def test_environments_and_shells(anyone: Caller, base_manifest: Manifest, probe: Path) -> None:
    """`enter` and `shell` take --audit, too; a copied environment's source is still the host."""
    auditor = Auditor(anyone, base_manifest, probe)
    for options in ((), ("--copy",)):
        built = anyone.pkgjail("build", *options, "m.jsonl", f"env{len(options)}")
        if built.returncode == 2 and options:  # no such option
            continue
        assert built.returncode == 0, built.stderr
        ran = anyone.pkgjail(
            "enter",
            "--audit",
            "e.jsonl",
            f"env{len(options)}",
            "--",
            "sh",
            "-c",
            "[ -e /usr/include/zlib.h ]",
        )
        assert ran.returncode == 1, ran.stderr
        found = at(read_audit(anyone.home / "e.jsonl"), ZLIB)
        assert found is not None
        assert found.owners == ("zlib1g-dev:amd64",)
    ran = anyone.pkgjail("shell", "--audit", "s.jsonl", "m.jsonl", input="[ -e /usr/include/zlib.h ]\n")
    assert ran.returncode == 1, ran.stderr
    assert at(read_audit(anyone.home / "s.jsonl"), ZLIB) is not None
    del auditor


def test_the_commands(auditor: Auditor) -> None:
    """`audit show`, `why` and `diff` say what the record has, as text, JSON and markdown."""
    auditor("sh", "-c", "./probe stat /usr/include/zlib.h; cat /etc/debian_version")
    user, record = auditor.user, str(auditor.user.home / "a.jsonl")
    shown = user.pkgjail("audit", "show", "--manifest", "m.jsonl", record).stdout
    assert "zlib1g-dev:amd64" in shown
    assert '  whitelist: packages.debian = ["zlib1g-dev"]' in shown
    assert '  Spack: depends_on("zlib-api")' in shown
    facts: dict[str, Any] = json.loads(user.pkgjail("audit", "show", "--json", record).stdout)
    assert facts["wanted"][0]["paths"][0]["path"] == "/usr/include/zlib.h"
    assert (
        "| zlib1g-dev:amd64 | /usr/include/zlib.h |"
        in user.pkgjail("audit", "show", "--format", "markdown", record).stdout
    )
    assert user.pkgjail("audit", "show", "--fail-on", "wanted", record).returncode == 1
    asked = user.pkgjail("audit", "why", record, "/usr/include/zlib.h", "zlib1g-dev").stdout
    assert "1 by probe < dash" in asked
    assert user.pkgjail("audit", "why", record, "/usr/include/no.h").returncode == 1
    (user.home / "old.jsonl").write_bytes(Path(record).read_bytes())
    assert user.pkgjail("audit", "diff", "old.jsonl", record).returncode == 0
    auditor("sh", "-c", "true")
    differs = user.pkgjail("audit", "diff", "old.jsonl", record)
    assert differs.returncode == 1
    assert "- wanted /usr/include/zlib.h (zlib1g-dev:amd64)" in differs.stdout
