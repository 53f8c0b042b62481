"""`check` withstands hostile programs and files of the set: answers that are huge, odd, or never end."""

from __future__ import annotations

import time

import pytest

from pkgjail.cli.verbs.check import print_check
from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry, Manifest
from pkgjail.core.paths import Names
from pkgjail.core.programs import ProgramOutput, UnansweredError
from pkgjail.review.check import runner as runner_module
from pkgjail.review.check.attribution import Attribution
from pkgjail.review.check.compiler import compiler_gaps
from pkgjail.review.check.dynamic import catch_unanswered
from pkgjail.review.check.findings import Check, Finding, Gap
from pkgjail.review.check.ld_search import LdSearch
from pkgjail.review.check.modules import perl_gaps, python_gaps
from pkgjail.review.check.runner import JailRunner
from pkgjail.review.check.scripts import script_gaps
from tests.manifest_cases import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MIB = 1 << 20


def names(*paths: bytes) -> Names:
    directories = {path[:at] for path in paths for at in range(1, len(path)) if path[at] == ord("/")}
    entries = [FileEntry(path=path, kind="directory", mode=0o755) for path in sorted(directories)]
    return Names([*entries, *(FileEntry(path=path, kind="regular", mode=0o755) for path in paths)])


class SameAnswer:
    """A runner whose programs all give the same answer, and whose files all have the same content."""

    def __init__(self, out: bytes = b"", err: bytes = b"", content: bytes = b"") -> None:
        self._output = ProgramOutput(0, out, err)
        self._content = content
        self.last_program = b"/usr/bin/gcc"

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """As `check.runner.Runner`."""
        del argv, stdin
        return self._output

    def read(self, place: bytes) -> bytes:
        """As `check.runner.Runner`."""
        del place
        return self._content


def gaps_of_gcc(runner: SameAnswer) -> list[Gap]:
    file_set = names(b"/usr/bin/gcc", b"/usr/lib/libc.so", b"/usr/include/a.h")
    return list(catch_unanswered("compiler", compiler_gaps(file_set, runner), runner))


@pytest.mark.gate
def test_a_program_that_does_not_end_is_killed(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects a check from a program that never ends, and memory from one that writes for ever."""
    runner = JailRunner(base_manifest, b"/")
    with pytest.raises(UnansweredError, match="writes more than 1024 KiB"):
        runner.run(["sh", "-c", "while :; do echo y; done"])
    with pytest.raises(UnansweredError, match="writes more than 1024 KiB"):
        runner.run(["sh", "-c", "truncate -s 1T /dev/stdout"])
    monkeypatch.setattr(runner_module, "_LONGEST", 0.2)
    hurried = JailRunner(base_manifest, b"/")
    with pytest.raises(UnansweredError, match="it does not end"):
        hurried.run(["sleep", "1000"])
    assert hurried.last_program == b"sleep"
    with pytest.raises(UnansweredError, match=r"the programs that are run do not all end within 0.2 s"):
        hurried.run(["true"])
    monkeypatch.undo()
    assert runner.run(["sh", "-c", "cat; echo x >&2; exit 125"], b"stdin") == ProgramOutput(
        125, b"stdin", b"x\n"
    )


@pytest.mark.gate
def test_a_missing_answer_makes_a_finding(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from taking a program that gave no answer for sound."""
    monkeypatch.setattr(runner_module, "_LONGEST", 0.2)
    runner = JailRunner(base_manifest, b"/")

    def check() -> Iterator[Gap]:
        runner.run(["sleep", "1000"])
        yield from ()

    (gap,) = catch_unanswered("compiler", check(), runner)
    assert (gap.path, gap.cause[:46]) == (b"sleep", "what it needs is not known: it does not end wi")


class _Broken:
    """A jail that cannot be entered."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def enter(self, argv: Sequence[str]) -> int:
        """As `Jail`."""
        del argv
        raise self._error


@pytest.mark.gate
@pytest.mark.parametrize(
    ("error", "message"), [(JailError("no namespaces"), "no namespaces"), (KeyError("x"), r"KeyError\('x'\)")]
)
def test_a_jail_that_cannot_be_entered(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    """Protects from taking an error of the host for a program's answer."""
    runner = JailRunner(base_manifest, b"/")
    monkeypatch.setattr(runner, "_jail", _Broken(error))
    with pytest.raises(JailError, match=message):
        runner.run(["true"])


def test_an_answer_that_makes_no_sense_makes_a_finding() -> None:
    """Protects from a traceback, and from taking a compiler for sound if its answer is not understood."""
    (gap,) = gaps_of_gcc(SameAnswer(err=b' "/usr/bin/as'))
    assert (gap.path, gap.kind, gap.optional) == (b"/usr/bin/gcc", "compiler", False)
    assert gap.cause == "what it needs is not known: No closing quotation"
    python = names(b"/usr/bin/python3")
    (gap,) = catch_unanswered("module", python_gaps(python, SameAnswer(out=b"none\tx\n")), SameAnswer())
    assert (gap.kind, gap.cause[:27]) == ("module", "what it needs is not known:")


def test_an_answer_of_blank_lines() -> None:
    """Protects from a traceback for an empty command."""
    assert [gap.cause for gap in gaps_of_gcc(SameAnswer(err=b" \n  \n"))] == []


def test_unclosed_comments_and_lists() -> None:
    """Protects from patterns that start again at each place: a megabyte of these took hours."""
    search = b"#include <...> search starts here:\n" * (_MIB // 40)
    commands = b' "/usr/bin/ld" "-L/usr/lib" "-lc"\n'
    for content in (b"/*/" * (_MIB // 3), b"\n" * _MIB, b"#" * _MIB, b"# include <" * (_MIB // 11)):
        runner = SameAnswer(b"x.o: /usr/include/a.h no.h\n", commands + search, content)
        assert {gap.wanted for gap in gaps_of_gcc(runner)} >= {b"no.h"}


_SEARCHED = b":".join(b"/%d" % number for number in range(_MIB // 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "err", "content"),
    [
        pytest.param(b"", b' "/usr/bin/ld"' + b" -La" * 200_000 + b" -lb" * 200_000, b"", id="the same"),
        pytest.param(
            b"",
            b' "/usr/bin/ld"' + b"".join(b" -L/%d -l%d" % (n, n) for n in range(50_000)),
            b"",
            id="others",
        ),
        pytest.param(
            b"libraries: =" + _SEARCHED,
            b' "/usr/bin/ld"' + b"".join(b" %d.o" % n for n in range(100_000)),
            b"",
            id="objects",
        ),
        pytest.param(
            b"programs: =" + _SEARCHED, b"".join(b" %d\n" % n for n in range(100_000)), b"", id="programs"
        ),
        pytest.param(
            b"", b' "/usr/bin/ld" -L/usr/lib' + b" -lc" * 200_000, b" /x" * (_MIB // 3), id="linker scripts"
        ),
        pytest.param(
            b"x.o: " + b" ".join(b"%d.h" % n for n in range(100_000)),
            b"search starts here:\n"
            + b"".join(b" /%d\n" % n for n in range(100_000))
            + b"End of search list",
            b"",
            id="headers",
        ),
    ],
)
def test_a_long_answer_of_a_compiler(out: bytes, err: bytes, content: bytes) -> None:
    """Protects from a megabyte of names, each searched for in a megabyte of directories."""
    started = time.process_time()
    gaps = gaps_of_gcc(SameAnswer(out + b"\n", err + b"\n", content))
    assert time.process_time() - started < 30
    assert len(gaps) <= 300
    assert max((len(gap.candidates) for gap in gaps), default=0) <= 200


def test_candidates_are_limited() -> None:
    """Protects memory from an interpreter that names a hundred thousand directories."""
    paths = b"".join(b"\t/%d" % number for number in range(100_000))
    lines = b"suffixes\t.py\t.so\npath" + paths + b"\n" + b"none\ta\tb\tsaid\n" * 10_000
    python = list(python_gaps(names(b"/usr/bin/python3"), SameAnswer(lines)))
    assert (len(python), {len(gap.candidates) for gap in python}) == (1998, {100})
    lines = paths.replace(b"\t", b"\n") + b"\n! Can't locate x.pm in @INC\n" * 10_000
    perl = list(perl_gaps(names(b"/usr/bin/perl", b"/0/a.pm"), SameAnswer(lines)))
    assert [len(gap.candidates) for gap in perl] in ([], [100])


def test_configurations_that_include_each_other() -> None:
    """Protects from ld.so.conf files that include each other: ten were once read ten to the tenth times."""
    paths = [b"/etc/ld.so.conf", *(b"/etc/ld.so.conf.d/%d.conf" % number for number in range(10))]
    read: list[bytes] = []

    def content(path: bytes) -> bytes:
        read.append(path)
        return b"include /etc/ld.so.conf.d/*.conf\n" * 3 + b"/opt/" + path.rpartition(b"/")[2] + b"\n"

    found = LdSearch(names(*paths), {}, content).configured_directories
    assert sorted(read) == sorted(paths)
    assert sorted(found) == sorted(b"/opt/" + path.rpartition(b"/")[2] for path in paths)


def test_fixes_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A fix of several findings is said once more at the end, that of the most first."""
    fixes = ["once", "two", "three\x1b", "two", "three\x1b", "three\x1b"]
    findings = tuple(
        Finding(path=b"/x", kind="library", wanted=b"y", cause="z", owners=(), responsible="", fix=fix)
        for fix in fixes
    )
    print_check(Check(findings=findings, notes=findings, objects=1, scripts=0, links=0), 1)
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        r"three\x1b: settles 3 findings",
        "not closed: 6 findings in 1 ELF file, 0 scripts, 0 links",
    ]
    print_check(Check(findings=findings, notes=(), objects=1, scripts=0, links=0), None)
    settled = [line for line in capsys.readouterr().out.splitlines() if " settles " in line]
    assert settled == [r"three\x1b: settles 3 findings", "two: settles 2 findings"]


def test_a_first_line_ends_at_a_nul() -> None:
    """Protects from a path that no system call accepts: the kernel reads the line only up to a NUL."""
    (gap,) = script_gaps(names(b"/bin/x"), {b"/bin/x": b"/bin/none\0/../x -e"})
    assert gap.wanted == b"/bin/none"


def test_a_candidate_with_a_nul_is_nowhere() -> None:
    """Protects from a traceback if a program's answer has a NUL."""
    gap = Gap(path=b"/bin/x", kind="compiler", wanted=b"a", cause="", candidates=(b"/a\0b", b"/none"))
    finding = Attribution(sample(), b"/", None, [gap]).finding(gap)
    assert finding.fix.startswith("the host has no a either")
