"""Whether an audit is complete: strace(1) watches the same run in the jail, and both see the same paths.

strace is an oracle that shares no code with the audit: ptrace(2) shows it each call. It runs in the audited
jail, so both see one and the same run. Links on the way to a path are resolved by the host's own, of which
the jail has a part.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.record import read_audit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

_LINE = re.compile(rb"(\d+) +(\w+)\((.*)")
_PATH = re.compile(rb'(?:(?:AT_FDCWD|\d+)<((?:\\x..)*)>(?:\([^)]*\))?, )?"((?:\\x..)*)"')
_FORK = re.compile(rb"(\d+) +(?:<\.\.\. )?(?:clone3?|v?fork)\b.*= (\d+)\Z")
_TWO = ("rename", "renameat", "renameat2", "link", "linkat")
_WHITELIST = """
include = ["build"]
[packages]
debian = ["strace", "autoconf", "automake", "{program}"]
"""
# Builds of three kinds, each with the files that it begins with.
AUTOTOOLS = {
    "configure.ac": "AC_INIT([p], [1])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\nAC_CHECK_HEADERS([zlib.h])\n"
    "AC_SEARCH_LIBS([deflate], [z])\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    "Makefile.am": "bin_PROGRAMS = p\np_SOURCES = p.c\n",
    "p.c": "int main(void) { return 0; }\n",
}
CMAKE = {
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.18)\nproject(p C)\nfind_package(ZLIB)\n"
    "find_program(X xsltproc)\nadd_executable(p p.c)\n",
    "p.c": "int main(void) { return 0; }\n",
}
MAKE = {
    "Makefile": "all: sub\n\t$(CC) -o p p.c\n\t-python3 -c 'import yaml'\n\t-perl -MXML::Parser -e 1\n"
    "sub:\n\tmkdir -p sub; cd sub && ln -sf ../p.c q.c && cp q.c r.c && rm r.c\n",
    "p.c": "#include <stdio.h>\nint main(void) { return 0; }\n",
}
BUILDS = [
    pytest.param((AUTOTOOLS, "autoreconf -fi && ./configure && make"), id="autotools"),
    pytest.param((CMAKE, "cmake -S . -B b && cmake --build b"), id="CMake"),
    pytest.param((MAKE, "make"), id="make"),
]


def _text(hexadecimal: bytes) -> bytes:
    return bytes.fromhex(hexadecimal.replace(b"\\x", b"").decode())


def _asked(trace: Path, start: bytes) -> Counter[bytes]:
    """Return each absolute path that a call in a record of strace has, and how often it was asked for."""
    asked: Counter[bytes] = Counter()
    unfinished: dict[bytes, list[bytes]] = {}
    lines = trace.read_bytes().splitlines()
    # The lines of a child can come before the end of the call that made it.
    parents = {match[2]: match[1] for line in lines if (match := _FORK.match(line))}
    directories: dict[bytes, bytes] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:  # the rest of a call, or a signal
            if b"= ? ERESTART" in line:  # the kernel makes it again
                asked.subtract(unfinished.pop(line.partition(b" ")[0], []))
            continue
        process, call, rest = match[1], match[2].decode(), match[3]
        here = directories.setdefault(process, directories.get(parents.get(process, b""), start))
        if (
            call in {"getcwd", "clone", "clone3", "fork", "vfork", "exit_group", "wait4", "kill"}
            or b"AT_EMPTY_PATH" in rest
        ):
            continue
        if b"= ? ERESTART" in rest:
            continue
        unfinished[process] = paths = []
        found = list(_PATH.finditer(rest))
        if call in {"symlink", "symlinkat"}:
            found = found[1:]
        for each in found[: 2 if call in _TWO else 1]:
            if not each[2]:  # an open file (AT_EMPTY_PATH), of which another line may have the rest
                continue
            path = os.path.join(_text(each[1] or b"") or here, _text(each[2]))
            paths.append(path)
            if call == "chdir" and rest.endswith(b"= 0"):
                directories[process] = os.path.realpath(path)
        asked.update(paths)
    return asked


def _resolved(path: bytes) -> bytes:
    """Return a path with links on the way to it resolved."""
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in {b"", b".", b".."}:
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(directory or b"/"), name)


@pytest.mark.parametrize("build", BUILDS)
def test_strace_and_the_audit_see_the_same(build: tuple[dict[str, str], str], caller: Caller) -> None:
    """Every path that strace sees is in the record, by name or counted by directory; and the reverse."""
    files, script = build
    place = caller.home / "build"
    place.mkdir()
    for name, content in files.items():
        (place / name).write_text(content)
    program = script.partition(" ")[0].replace("autoreconf", "autoconf")
    (caller.home / "w.toml").write_text(_WHITELIST.format(program=program))
    assert caller.pkgjail("resolve", "./w.toml", "--no-hash", "-o", "m.jsonl").returncode == 0
    trace = place / "trace"
    strace = ["strace", "-f", "-y", "-xx", "-s", "5000", "-qq", "-e", "signal=none", "-o", str(trace)]
    calls = ["-e", "trace=%file,%process"]
    words = ["run", "--audit", "a.jsonl", "--bind", str(place), "m.jsonl", "--"]
    inside = ["sh", "-c", f"cd {place} && exec sh -c '{script}'"]
    ran = caller.pkgjail(*words, *strace, *calls, *inside)
    assert ran.returncode == 0, ran.stderr[-3000:]
    audit = read_audit(caller.home / "a.jsonl")
    named = {each.path: each for each in audit.look_ups}
    by_directory = {each.directory: each.asked for each in audit.nowhere}
    # Libraries that the host's loader has elsewhere are recorded there.
    libraries = {os.path.basename(path) for path, each in named.items() if each.clue == "library"}
    seen, counted = set(), Counter[bytes]()
    for path, count in _asked(trace, b"/").items():
        if path.startswith(b"/proc/"):  # the record has the process's own number
            continue
        resolved = _resolved(path)
        # A slash at the end follows a link, which is looked up, too.
        seen |= {resolved, _resolved(path.rstrip(b"/."))}
        if resolved not in named and os.path.basename(resolved) not in libraries:
            counted[os.path.dirname(resolved)] += count
    missing = {d: (n, by_directory.get(d, 0)) for d, n in counted.items() if by_directory.get(d, 0) < n}
    assert missing == {}
    # What strace does not see: links' targets, which one call asks for together with the link, the programs
    # that interpret scripts, the loaders, and strace itself.
    targets = {os.path.realpath(path) for path in seen}
    programs = {_resolved(each.path) for each in audit.programs}
    strace_itself = {each.number for each in audit.programs if each.path.endswith(b"/strace")}
    beyond = [
        path
        for path, each in named.items()
        if path not in seen | targets | programs
        and b"/ld-linux" not in path
        and not {number for number, _ in each.programs} <= strace_itself
    ]
    assert beyond == []
