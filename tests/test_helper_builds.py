"""Whole builds in jails of pkgjaild, by a user who can make no user namespace: as in the default jail."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import hello
from tests.conftest import SYSTEM_PYTHON
from tests.service import VARIABLE, running_service, without_namespaces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.geteuid() != 0, reason="only root can start pkgjaild")]

_WHITELIST = """\
include = ["build"]
[packages]
debian = ["cmake"]
"""
_CMAKE = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.18)
project(adder C)
enable_testing()
find_package(ZLIB)
add_library(adder SHARED adder.c)
add_executable(sum sum.c)
target_link_libraries(sum adder)
if(ZLIB_FOUND)
  target_compile_definitions(sum PRIVATE WITH_ZLIB)
endif()
add_test(NAME adds COMMAND sum 2 3)
set_tests_properties(adds PROPERTIES PASS_REGULAR_EXPRESSION "^5 without")
""",
    "adder.c": "int add(int a, int b) { return a + b; }\n",
    "sum.c": """\
#include <stdio.h>
#include <stdlib.h>
int add(int, int);
int main(int n, char **w)
{
#ifdef WITH_ZLIB
    const char *how = "with";
#else
    const char *how = "without";
#endif
    return printf("%d %s\\n", add(atoi(w[1]), atoi(w[2])), how) < 0;
}
""",
    "build": "cmake -S . -B b >log 2>&1 && cmake --build b >>log && (cd b && ctest >>../log) && b/sum 20 22",
}
_BUILT = ("hello-2.10/hello", "hello-z", "b/sum", "b/libadder.so")


def _digests(place: Path) -> dict[str, str]:
    found = (place / name for name in _BUILT)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.exists()}


def _build(user: Caller, place: Path, socket: str, *, helped: bool) -> tuple[int, str, dict[str, str]]:
    """Build in a directory of the user's; return the status, the output, and the digests of what was made."""
    subprocess.run(["chown", "--recursive", f"{user.uid}:{user.uid}", place], check=True)
    stage = ("--stage", "helper") if helped else ()
    words = [
        SYSTEM_PYTHON,
        "-m",
        "pkgjail",
        "run",
        "--cwd",
        *stage,
        str(user.home / "m.jsonl"),
        "--",
        "sh",
        "build",
    ]
    given = user.options({VARIABLE: socket}, cwd=place, stdin=subprocess.DEVNULL)
    if helped:
        words = without_namespaces(words, user.uid)
        for name in ("user", "group", "extra_groups"):
            given.pop(name)
    done = subprocess.run(words, check=False, **given)
    made = _digests(place)
    assert not done.stderr, done.stderr
    place.rename(f"{place}-{'helped' if helped else 'default'}")
    return done.returncode, done.stdout, made


def test_a_build_is_the_same_as_in_the_default_jail(user: Caller, library: Path) -> None:
    """hello-z and GNU hello (autotools), and a CMake project: status, output, and all bytes of programs."""
    (user.home / "w.toml").write_text(_WHITELIST)
    resolved = user.pkgjail("resolve", "./w.toml", "-o", "m.jsonl", "--no-hash")
    assert resolved.returncode == 0, resolved.stderr
    source = hello.download()
    with running_service(library) as service:
        refused = subprocess.run(
            without_namespaces(
                [SYSTEM_PYTHON, "-m", "pkgjail", "run", str(user.home / "m.jsonl"), "--", "true"], user.uid
            ),
            check=False,
            **{
                name: value
                for name, value in user.options().items()
                if name not in {"user", "group", "extra_groups"}
            },
        )
        assert "does not let ordinary users make user namespaces" in refused.stderr
        for name, status, said in (("hello", 3, "Hello, world!\nno zlib\n"), ("cmake", 0, "42 without\n")):
            results = []
            for helped in (False, True):
                place = user.home / name
                if name == "hello":
                    hello.prepare(place, source)
                    (place / "build").write_text((place / "build").read_text().replace("cd /srv && ", ""))
                else:
                    place.mkdir()
                    for file, text in _CMAKE.items():
                        (place / file).write_text(text)
                results.append(_build(user, place, service.socket, helped=helped))
            assert results[0] == results[1]
            assert results[0][:2] == (status, said)
            assert len(results[0][2]) == 2
