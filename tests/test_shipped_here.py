"""The shipped whitelists on this host: what they name is installed by the Makefile, and runs in a jail."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.core.model import Policy
from pkgjail.policy import load_policy
from tests.conftest import TOP, Caller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.gate

# A project as a source repository has it, before anybody has run autoreconf.
_PROJECT = {
    "configure.ac": """\
AC_INIT([sum], [1.0])
AM_INIT_AUTOMAKE([foreign subdir-objects])
LT_INIT
AC_PROG_CC
AC_PROG_CXX
AC_PROG_YACC
AC_PROG_LEX([noyywrap])
PKG_PROG_PKG_CONFIG([0.20])
AC_CONFIG_MACRO_DIRS([m4])
AC_CONFIG_FILES([Makefile])
AC_OUTPUT
""",
    "Makefile.am": """\
ACLOCAL_AMFLAGS = -I m4
lib_LTLIBRARIES = libsum.la
libsum_la_SOURCES = scan.l parse.y
AM_YFLAGS = -d
BUILT_SOURCES = parse.h
bin_PROGRAMS = sum
sum_SOURCES = main.cc
sum_LDADD = libsum.la
""",
    "scan.l": """\
%{
#include <stdlib.h>
#include "parse.h"
%}
%option noyywrap nounput noinput
%%
[0-9]+  { yylval = atoi(yytext); return NUMBER; }
"+"     { return '+'; }
.|\\n    ;
%%
""",
    "parse.y": """\
%{
int yylex(void);
void yyerror(const char *text) { (void) text; }
int sum;
%}
%token NUMBER
%%
all: terms { sum = $1; } ;
terms: NUMBER | terms '+' NUMBER { $$ = $1 + $3; } ;
""",
    "main.cc": """\
#include <iostream>
extern "C" { int yyparse(); extern int sum; }
int main() { int failed = yyparse(); std::cout << sum << std::endl; return failed; }
""",
}


def makefile(variable: str) -> list[str]:
    """The words of a variable of the Makefile, by make itself."""
    command = ["make", "--no-print-directory", "--eval", f"shown: ; @echo $({variable})", "shown"]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("variable", "whitelists"), [("DEMO_PACKAGES", ["base", "spack"]), ("TEST_PACKAGES", ["build"])]
)
def test_the_makefile_installs_what_the_lists_name(variable: str, whitelists: Sequence[str]) -> None:
    """Protects a fresh machine: all but what every Debian has is installed by name."""
    database = open_database()
    always = resolve_closure(database, Policy(whitelists=(), blacklists=(), packages=())).packages
    listed = {*makefile(variable), *(package.name for package in always)}
    lacking = []
    for requirement in load_policy(whitelists, database=database).packages:
        (group,) = requirement.groups
        found = [database.candidates(one, database.architecture) for one in group.alternatives]
        names = {one.name for one in group.alternatives} | {one.name for each in found for one in each}
        if not names & listed:
            lacking.append(f"{requirement.origin}: {requirement.text}")
    assert lacking == []


class Build(NamedTuple):
    """The whitelist `build` on this host, resolved once, and who enters it (with one cache for all)."""

    caller: Caller
    manifest: Path


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Build:
    place = tmp_path_factory.mktemp("build")
    caller = Caller(os.geteuid(), place, library, library / f"cache-{os.geteuid()}")
    made = caller.pkgjail("resolve", "build", "--no-hash", "-o", "build.manifest.jsonl")
    assert made.returncode == 0, made.stderr
    return Build(caller, place / "build.manifest.jsonl")


@pytest.mark.parametrize(
    "program",
    "gcc g++ make patch pkg-config m4 autoconf automake libtoolize bison flex msgfmt".split(),  # noqa: SIM905
)
def test_the_programs_of_build_run(build: Build, program: str) -> None:
    """Each names itself, so all that it loads at its start is there."""
    ran = build.caller.pkgjail("run", build.manifest, "--", program, "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_a_project_of_autotools_builds_from_its_repository(build: Build, tmp_path: Path) -> None:
    """From configure.ac to a program that links a library of its own: all tools of `build` together."""
    for name, text in _PROJECT.items():
        (tmp_path / name).write_text(text)
    script = (
        "mkdir m4; autoreconf --install >&2 && ./configure --quiet >&2 && make >&2 && echo 1+2+39 | ./sum"
    )
    ran = build.caller.pkgjail("run", "--cwd", build.manifest, "--", "sh", "-c", script, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "42\n"), ran.stderr
