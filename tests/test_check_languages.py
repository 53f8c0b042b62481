"""`check` proves the languages of a set: each starts, and loads its standard library."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.model import FileEntry
from pkgjail.core.paths import Names
from pkgjail.core.programs import ProgramOutput
from pkgjail.review.check import languages
from pkgjail.review.check.attribution import Attribution
from pkgjail.review.check.languages import language_gaps
from tests.manifest_cases import sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Programs:
    """A runner whose programs give one answer each, by name; it remembers the commands and inputs."""

    def __init__(self, answers: dict[str, ProgramOutput]) -> None:
        self._answers = answers
        self.commands: list[tuple[list[str], bytes]] = []
        self.last_program = b""

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """As `check.runner.Runner`."""
        self.commands.append((list(argv), stdin))
        name = argv[4] if argv[0] == "/bin/sh" else argv[0]
        return self._answers.get(os.path.basename(name), ProgramOutput(0, b"", b""))

    def read(self, place: bytes) -> bytes:
        """As `check.runner.Runner`."""
        del place
        return b""


def file_set(*paths: str, links: dict[str, str] | None = None) -> Names:
    """Return executable files and links, with the directories above them."""
    every = [*paths, *(links or {})]
    above = {path[:at] for path in every for at in range(1, len(path)) if path[at] == "/"}
    return Names(
        [
            *(FileEntry(path=path.encode(), kind="directory", mode=0o755) for path in above),
            *(FileEntry(path=path.encode(), kind="regular", mode=0o755) for path in paths),
            *(
                FileEntry(path=path.encode(), kind="symlink", mode=0o777, target=target.encode())
                for path, target in (links or {}).items()
            ),
        ]
    )


# A program -> (its answer, the part that fails, the paths that would help, a part of the cause).
_ANSWERS: dict[str, tuple[str, ProgramOutput, bytes, list[bytes], str]] = {
    "R": (
        "Rscript",
        ProgramOutput(0, b"fail\tstats\tunable to load shared object '/usr/lib/R/stats.so'\n", b""),
        b"stats",
        [b"/usr/lib/R/stats.so"],
        "loading stats fails: unable to load",
    ),
    "GHC": (
        "ghc",
        ProgramOutput(1, b"", b"ghc: cannot satisfy -package-id base-4.15.1.0\n"),
        b"",
        [],
        "it ends with status 1: ghc: cannot satisfy",
    ),
    "TeX": (
        "pdflatex",
        ProgramOutput(0, b"fail\tits format\tI can't find the format file `pdflatex.fmt'!\n", b""),
        b"its format",
        [],
        "I can't find the format file",
    ),
    "Java": (
        "java",
        ProgramOutput(1, b"", b"Error: missing /lib/modules"),
        b"",
        [b"/lib/modules"],
        "missing",
    ),
    "PHP": (
        "php",
        ProgramOutput(
            0, b"", b"PHP Warning:  PHP Startup: Unable to load dynamic library 'xml' (no xml.so)\n"
        ),
        b"",
        [],
        "Unable to load dynamic library 'xml'",
    ),
    "PHP's own compiler": (
        "php",
        ProgramOutput(
            0,
            b"",
            b"Failed loading Zend extension 'opcache.so' (tried: /usr/lib/php/1/opcache.so (no such file))\n",
        ),
        b"",
        [b"/usr/lib/php/1/opcache.so"],
        "Failed loading Zend extension 'opcache.so'",
    ),
    "OCaml": (
        "ocaml",
        ProgramOutput(0, b"Cannot find file str.cma.\n", b""),
        b"",
        [],
        "Cannot find file str.cma",
    ),
    "a signal": ("lua5.4", ProgramOutput(139, b"", b""), b"", [], "it ends with status 139"),
}


@pytest.mark.parametrize(("program", "answer", "wanted", "lacking", "cause"), _ANSWERS.values(), ids=_ANSWERS)
def test_a_part_that_fails(
    program: str, answer: ProgramOutput, wanted: bytes, lacking: list[bytes], cause: str
) -> None:
    """Protects the proof: what a language says that it cannot load makes one gap, with what it names."""
    names = file_set(f"/usr/bin/{program}")
    assert list(language_gaps(names, Programs({}))) == []
    (gap,) = language_gaps(names, Programs({program: answer}))
    assert (gap.path, gap.kind, gap.wanted) == (f"/usr/bin/{program}".encode(), "module", wanted)
    assert (list(gap.candidates), cause in gap.cause, gap.optional) == (lacking, True, False)


def test_a_path_that_the_set_has_is_not_lacking() -> None:
    """Protects the fix: it names what the set lacks, and not another path of the same error."""
    names = file_set("/usr/bin/Rscript", "/usr/lib/R/there")
    answer = ProgramOutput(0, b"fail\tx\t/usr/lib/R/there: no /usr/lib/R/lacking\n", b"")
    (gap,) = language_gaps(names, Programs({"Rscript": answer}))
    assert gap.candidates == (b"/usr/lib/R/lacking",)


def test_the_fix_of_a_part_that_the_host_has() -> None:
    """Protects from "the host has no stats either" if the same loads with all files of the host."""
    (gap,) = language_gaps(
        file_set("/usr/bin/Rscript"),
        Programs({"Rscript": ProgramOutput(0, b"fail\tstats\tnot found\n", b"")}),
    )
    attribution = Attribution(sample(), b"/nowhere", None, [gap])
    assert attribution.finding(gap).fix.startswith("take back what a blacklist dropped of it, or add what")
    note = replace(gap, optional=True)
    assert attribution.finding(note).fix.startswith("the host has no stats either")


def test_each_program_runs_once() -> None:
    """Protects the time: other names of a program are left out, unless the name chooses what it does."""
    links = {"/usr/bin/latex": "pdftex", "/usr/bin/pdflatex": "pdftex", "/usr/bin/php": "php8.2"}
    names = file_set("/usr/bin/pdftex", "/usr/bin/php8.2", "/usr/bin/lua5.3", "/usr/bin/lua5.4", links=links)
    runner = Programs({})
    assert list(language_gaps(names, runner)) == []
    started = [argv[4] if argv[0] == "/bin/sh" else argv[0] for argv, _ in runner.commands]
    assert started == [
        "/usr/bin/latex",
        "/usr/bin/pdflatex",
        "/usr/bin/pdftex",
        "/usr/bin/php",
        "/usr/bin/lua5.3",
        "/usr/bin/lua5.4",
    ]


def test_a_language_is_asked_for_what_the_set_has() -> None:
    """Protects from findings for packages of GHC and libraries of OCaml that the set does not have."""
    conf = "/var/lib/ghc/package.conf.d"
    names = file_set("/usr/bin/ghc", f"{conf}/base-4.15.1.0.conf", f"{conf}/package.cache")
    runner = Programs({})
    assert list(language_gaps(names, runner)) == []
    ((ghc, _),) = runner.commands
    assert [word for word in ghc if word[0] not in "/-"][:1] == ["base-4.15.1.0"]


# The files of OCaml in a set -> the phrases of `ocaml`, and the words of `ocamlopt` after its name.
_OCAML = {
    "4": (
        ["ocaml/unix.cma", "ocaml/unix.cmi", "ocaml/threads/threads.cmxa", "ocaml/threads/thread.cmi"],
        ['#directory "+threads"', '#load "unix.cma"', '#load "threads.cma"'],
        ["-I", "+threads", "unix.cmxa", "threads.cmxa"],
    ),
    "5": (
        ["x86_64-linux-gnu/ocaml/5.3.0/unix/unix.cma", "x86_64-linux-gnu/ocaml/5.3.0/str/str.cma"],
        ['#directory "+unix"', '#directory "+str"', '#load "unix.cma"', '#load "str.cma"'],
        ["-I", "+unix", "-I", "+str", "unix.cmxa", "str.cmxa"],
    ),
    "a part is lacking": (["ocaml/str.cmi"], ['#load "str.cma"'], ["str.cmxa"]),
    "nothing": (["ocaml/stdlib.cma"], [], []),
}


@pytest.mark.parametrize(("files", "phrases", "words"), _OCAML.values(), ids=_OCAML)
def test_ocaml_is_asked_for_its_own_libraries(files: list[str], phrases: list[str], words: list[str]) -> None:
    """Protects Debian 13, which has them elsewhere, and a library of which only a part is in the set."""
    runner = Programs({})
    names = file_set("/usr/bin/ocaml", "/usr/bin/ocamlopt", *(f"/usr/lib/{name}" for name in files))
    assert list(language_gaps(names, runner)) == []
    (_, given), (compiler, _) = runner.commands
    assert re.findall("#.*(?=;;)", given.decode()) == phrases
    assert compiler[4:] == ["/usr/bin/ocamlopt", "-linkall", *words]


def test_a_long_error_is_shown_from_both_ends() -> None:
    """Protects Java's errors, which begin with what is wrong, and those of others, which end with it."""
    error = b"Exception: it\n" + b"\tat somewhere\n" * 50 + b"last"
    (gap,) = language_gaps(file_set("/usr/bin/java"), Programs({"java": ProgramOutput(1, b"", error)}))
    assert gap.cause.startswith("it ends with status 1: Exception: it at somewhere")
    assert gap.cause.endswith("at somewhere last")


def test_the_script_for_tex(tmp_path: Path) -> None:
    """Protects the line that a failing TeX makes, whatever it prints."""
    program = tmp_path / "tex"
    for status, expected in ((0, ""), (1, "fail\tits format\tno format 50%\n")):
        program.write_text(f"#!/bin/sh\nprintf 'no \\n format 50%%'\nexit {status}\n")
        program.chmod(0o755)
        ran = subprocess.run(
            ["/bin/sh", "-c", languages._TEX, "sh", str(program), "x"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert ran.stdout == expected
