"""The same builds in pkgjail's own stages: what a build gives does not depend on who made its jail.

Where the host forbids namespaces, one of the others takes the place of the default. So the supervised builds
run behind a filter that forbids them to the user.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import hello
from tests.no_namespaces import PREFIX
from tests.service import VARIABLE, running_service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.conftest import Caller

_CMAKE = """\
cmake_minimum_required(VERSION 3.10)
project(found C CXX)
find_package(ZLIB)
find_package(Threads REQUIRED)
include(CheckIncludeFile)
check_include_file(zlib.h HAVE_ZLIB_H)
add_library(part STATIC part.cc)
add_executable(found found.c)
target_link_libraries(found part Threads::Threads)
if(HAVE_ZLIB_H)
  target_compile_definitions(found PRIVATE ZLIB)
endif()
"""
_FILES = {
    "CMakeLists.txt": _CMAKE,
    "part.cc": '#include <string>\nextern "C" int part() { return (int)std::string("abc").size(); }\n',
    "found.c": '#include <stdio.h>\nint part(void);\nint main(void)\n{\n#ifdef ZLIB\n    puts("zlib");\n'
    '#else\n    puts("no zlib");\n#endif\n    return part();\n}\n',
}
_HELLO = ("sh", "-c", "sed -e 's|/srv|.|' build >here && exec sh ./here")
_CMAKE_BUILD = (
    "sh",
    "-c",
    "{ cmake -S . -B made && cmake --build made; } >log 2>&1 || exit; exec made/found",
)


class _Project(NamedTuple):
    """A build, the files that it makes, and what its program says."""

    command: tuple[str, ...]
    made: tuple[str, ...]
    said: str


_PROJECTS = {
    "GNU hello and hello-z": _Project(_HELLO, ("hello-2.10/hello", "hello-z"), "Hello, world!\nno zlib\n"),
    "CMake": _Project(_CMAKE_BUILD, ("made/found", "made/libpart.a"), "no zlib\n"),
}


class _Outcome(NamedTuple):
    status: int
    said: str
    digests: tuple[str, ...]


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="root makes the jail in two of the stages")
def test_the_same_builds_in_each_stage(
    user: Caller, sudo: str, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Statuses, outputs and the bytes of what is made agree. A table with times is printed."""
    source = hello.download()
    resolved = user.pkgjail("resolve", "spack", "--package", "cmake", "-o", "m.jsonl")
    assert resolved.returncode == 0, resolved.stderr
    pkgjail = ("/usr/bin/python3", "-m", "pkgjail", "run")
    ways: Mapping[str, Sequence[str]] = {
        "namespaces": pkgjail,
        "root": (sudo, *pkgjail, "--stage", "root"),
        "helper": (*pkgjail, "--stage", "helper"),  # it serves no confined process
        "supervised": (*PREFIX, *pkgjail, "--stage", "supervised"),
    }
    with running_service(library) as service:
        found = _build_in(ways, user, {VARIABLE: service.socket}, source, capsys)
    for (name, _), outcome in found.items():
        assert outcome == found[name, "namespaces"]
        assert (outcome.status, outcome.said) == (3, _PROJECTS[name].said)


def _build_in(
    ways: Mapping[str, Sequence[str]],
    user: Caller,
    variables: dict[str, str],
    source: bytes,
    capsys: pytest.CaptureFixture[str],
) -> dict[tuple[str, str], _Outcome]:
    found: dict[tuple[str, str], _Outcome] = {}
    lines = ["", "| build | stage | status | digests | s |", "|---|---|---|---|---|"]
    for name, project in _PROJECTS.items():
        for stage, words in ways.items():
            place = user.home / "work"
            _prepare(name, place, source)
            os.chown(place, user.uid, user.uid)
            began = time.monotonic()
            command = [*words, "--cwd", str(user.home / "m.jsonl"), "--", *project.command]
            done = user.run(command, environment=variables, cwd=place)
            seconds = time.monotonic() - began
            assert all((place / each).exists() for each in project.made), (stage, done.stderr)
            digests = tuple(hashlib.sha256((place / each).read_bytes()).hexdigest() for each in project.made)
            found[name, stage] = _Outcome(done.returncode, done.stdout, digests)
            short = " ".join(digest[:12] for digest in digests)
            lines.append(f"| {name} | {stage} | {done.returncode} | {short} | {seconds:.1f} |")
            shutil.rmtree(place)
    with capsys.disabled():
        sys.stdout.write("\n".join([*lines, ""]))
    return found


def _prepare(name: str, place: Path, source: bytes) -> None:
    if name != "CMake":
        hello.prepare(place, source)
        return
    place.mkdir()
    for file, content in _FILES.items():
        (place / file).write_text(content)
