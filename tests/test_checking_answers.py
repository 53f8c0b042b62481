"""What a program of the set says of itself, and what its files hold, where either is made to harm."""

from __future__ import annotations

import time

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry, Manifest
from pkgjail.core.paths import Names
from pkgjail.core.programs import Ran, UnansweredError
from pkgjail.review.check import in_jail
from pkgjail.review.check.attribution import Blame
from pkgjail.review.check.compiler import compiler_wants
from pkgjail.review.check.findings import Want
from pkgjail.review.check.in_jail import Inside, answered
from pkgjail.review.check.ld_search import Loader
from pkgjail.review.check.modules import perl_wants, python_wants
from pkgjail.review.check.scripts import script_wants
from tests.manifest_cases import sample

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MIB = 1 << 20


def names(*paths: bytes) -> Names:
    directories = {path[:at] for path in paths for at in range(1, len(path)) if path[at] == ord("/")}
    entries = [FileEntry(path=path, kind="directory", mode=0o755) for path in sorted(directories)]
    return Names([*entries, *(FileEntry(path=path, kind="regular", mode=0o755) for path in paths)])


class Says:
    """A jail in which every program says the same, and every file holds the same."""

    def __init__(self, out: bytes = b"", err: bytes = b"", content: bytes = b"") -> None:
        self._ran = Ran(0, out, err)
        self._content = content
        self.asked = b"/usr/bin/gcc"

    def run(self, argv: Sequence[str], given: bytes = b"") -> Ran:
        """As `running.Inside`."""
        del argv, given
        return self._ran

    def read(self, place: bytes) -> bytes:
        """As `running.Inside`."""
        del place
        return self._content


def compiled(says: Says) -> list[Want]:
    set_ = names(b"/usr/bin/gcc", b"/usr/lib/libc.so", b"/usr/include/a.h")
    return list(answered("compiler", compiler_wants(set_, says), says))


@pytest.mark.gate
def test_a_program_that_does_not_end_is_ended(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects a check from a compiler that waits for ever, and the disk from one that writes for ever."""
    inside = Inside(base_manifest, b"/")
    with pytest.raises(UnansweredError, match="writes more than 1024 KiB"):
        inside.run(["sh", "-c", "while :; do echo y; done"])
    with pytest.raises(UnansweredError, match="writes more than 1024 KiB"):
        inside.run(["sh", "-c", "truncate -s 1T /dev/stdout"])
    monkeypatch.setattr(in_jail, "_LONGEST", 0.2)
    with pytest.raises(UnansweredError, match="does not end"):
        inside.run(["sleep", "1000"])
    assert inside.asked == b"sleep"
    with pytest.raises(UnansweredError, match=r"what is asked of the set does not end within 0.2 s"):
        inside.run(["true"])
    monkeypatch.undo()
    assert inside.run(["sh", "-c", "cat; echo x >&2; exit 125"], b"given") == Ran(125, b"given", b"x\n")


@pytest.mark.gate
def test_what_cannot_be_had_makes_a_finding(base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from taking a program for sound that has not answered."""
    monkeypatch.setattr(in_jail, "_LONGEST", 0.2)
    inside = Inside(base_manifest, b"/")

    def asks() -> Iterator[Want]:
        inside.run(["sleep", "1000"])
        yield from ()

    (want,) = answered("compiler", asks(), inside)
    assert (want.path, want.cause[:39]) == (b"sleep", "asked what it wants, it does not end wi")


class _Broken:
    """A jail that cannot be entered."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, argv: Sequence[str]) -> int:
        """As `jail.Jail`."""
        del argv
        raise self._error


@pytest.mark.gate
@pytest.mark.parametrize(
    ("error", "said"), [(JailError("no namespaces"), "no namespaces"), (KeyError("x"), r"KeyError\('x'\)")]
)
def test_a_jail_that_cannot_be_entered(
    base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """Protects from taking the host's failure for a program's answer."""
    inside = Inside(base_manifest, b"/")
    monkeypatch.setattr(inside, "_jail", _Broken(error))
    with pytest.raises(JailError, match=said):
        inside.run(["true"])


def test_what_cannot_be_understood_makes_a_finding() -> None:
    """Protects from a traceback, and from taking a compiler for sound that nothing is known of."""
    (want,) = compiled(Says(err=b' "/usr/bin/as'))
    assert (want.path, want.kind, want.optional) == (b"/usr/bin/gcc", "compiler", False)
    assert want.cause == "asked what it wants, No closing quotation"
    python = names(b"/usr/bin/python3")
    (want,) = answered("module", python_wants(python, Says(out=b"none\tx\n")), Says())
    assert (want.kind, want.cause[:20]) == ("module", "asked what it wants,")


def test_an_answer_without_words() -> None:
    """Protects from lines that hold nothing."""
    assert [want.cause for want in compiled(Says(err=b" \n  \n"))] == []


def test_text_that_has_no_end_of_what_it_begins() -> None:
    """Protects from patterns that begin anew at each place: a megabyte of these took hours."""
    search = b"#include <...> search starts here:\n" * (_MIB // 40)
    commands = b' "/usr/bin/ld" "-L/usr/lib" "-lc"\n'
    for content in (b"/*/" * (_MIB // 3), b"\n" * _MIB, b"#" * _MIB, b"# include <" * (_MIB // 11)):
        says = Says(b"x.o: /usr/include/a.h no.h\n", commands + search, content)
        assert {want.wanted for want in compiled(says)} >= {b"no.h"}


_SEARCHED = b":".join(b"/%d" % number for number in range(_MIB // 16))


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
def test_a_compiler_that_says_much(out: bytes, err: bytes, content: bytes) -> None:
    """Protects from a megabyte of words, each looked for in a megabyte of directories."""
    started = time.process_time()
    wants = compiled(Says(out + b"\n", err + b"\n", content))
    assert time.process_time() - started < 30
    assert len(wants) <= 300
    assert max((len(want.places) for want in wants), default=0) <= 200


def test_places_are_no_more_than_anybody_has() -> None:
    """Protects memory from an interpreter that names a hundred thousand directories."""
    paths = b"".join(b"\t/%d" % number for number in range(100_000))
    lines = b"suffixes\t.py\t.so\npath" + paths + b"\n" + b"none\ta\tb\tsaid\n" * 10_000
    python = list(python_wants(names(b"/usr/bin/python3"), Says(lines)))
    assert (len(python), {len(want.places) for want in python}) == (1998, {100})
    lines = paths.replace(b"\t", b"\n") + b"\n! Can't locate x.pm in @INC\n" * 10_000
    perl = list(perl_wants(names(b"/usr/bin/perl", b"/0/a.pm"), Says(lines)))
    assert [len(want.places) for want in perl] in ([], [100])


def test_configurations_that_include_each_other() -> None:
    """Protects from ld.so.conf: ten files that each include all ten were read ten to the tenth times."""
    paths = [b"/etc/ld.so.conf", *(b"/etc/ld.so.conf.d/%d.conf" % number for number in range(10))]
    read: list[bytes] = []

    def content(path: bytes) -> bytes:
        read.append(path)
        return b"include /etc/ld.so.conf.d/*.conf\n" * 3 + b"/opt/" + path.rpartition(b"/")[2] + b"\n"

    found = Loader(names(*paths), {}, content).configured_directories
    assert sorted(read) == sorted(paths)
    assert sorted(found) == sorted(b"/opt/" + path.rpartition(b"/")[2] for path in paths)


def test_a_first_line_ends_at_a_nul() -> None:
    """Protects from a path that no system call takes: the kernel reads the line as far as that."""
    (want,) = script_wants(names(b"/bin/x"), {b"/bin/x": b"/bin/none\0/../x -e"})
    assert want.wanted == b"/bin/none"


def test_a_place_with_a_nul_is_nowhere() -> None:
    """Protects from a traceback where a program's answer has one."""
    want = Want(path=b"/bin/x", kind="compiler", wanted=b"a", cause="", places=(b"/a\0b", b"/none"))
    finding = Blame(sample(), b"/", None, [want]).finding(want)
    assert finding.fix.startswith("the host has no a either")
