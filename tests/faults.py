"""Fault injection: pkgjail is stopped, or a system call fails, at any of its system calls.

strace(1) does it (`--inject`), attached to a process that has everything imported (forking.py).
A run that is not disturbed tells which calls there are.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conftest import TOP
from tests.test_layout import unmeasured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

# As strace writes a call: who, which.
_CALL = re.compile(rb"^(\d+) +(\w+)\(")
# A call that ends the process cannot fail, nor is anything left to be stopped; the worker waits in readv.
_LEFT_OUT = frozenset({"exit", "exit_group", "readv"})
_WRITING = (
    "openat|open|creat|mkdir.*|p?write.*|rename.*|(sym|un)?link.*|mknod.*|f?truncate|fallocate|fsync"
    "|fdatasync|syncfs|[fl]?setxattr|f?chmod.*|[fl]?chown.*|utimensat|copy_file_range|ioctl|sendfile"
    # No room for one more: user.max_user_namespaces and the like, fs.mount-max.
    "|unshare|mount|move_mount|open_tree"
)
_READING = "p?readv?(64)?|getdents64|readlink.*|(f|l|newf)?stat(at|x)?"
_STARTING = "v?fork|execve"  # and not clone3: mksquashfs waits for ever if it cannot start a thread
_WAITING = "openat|open|p?(read|write)v?(64)?|flock|wait4|waitid|fsync|fdatasync|ftruncate|fallocate"
# The calls that can fail so.
_FAILING = {
    "error=ENOSPC": re.compile(_WRITING),
    "error=EIO": re.compile(f"{_WRITING}|{_READING}"),
    "error=ENOMEM": re.compile(f"{_WRITING}|{_READING}|{_STARTING}"),
    "error=EINTR": re.compile(_WAITING),
}


class Fault(NamedTuple):
    """`what` ("signal=SIGKILL", "error=ENOSPC") at the `when`th `call` of any of the processes."""

    call: str
    when: int
    what: str


class Done(NamedTuple):
    """How work ended: its exit status, or minus a signal, what it wrote, and whether it `met` its fault."""

    status: int
    out: bytes
    err: str
    met: bool = False


class Worker:
    """A process of `module`, which does work again and again, each time in a new process (forking.py)."""

    def __init__(
        self, place: Path, module: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._out, self._err = place / "output", place / "errors"
        self._log = place / "trace"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=TOP,
            env={**unmeasured(), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, request: Any, tracer: Sequence[str] = ()) -> Done:
        """Let it do the work of a request, perhaps with strace and its options attached.

        Returns when all processes have ended that strace followed: none is left behind.
        """
        self._say(json.dumps([request, str(self._out), str(self._err)]))
        child = self._answer()
        if tracer:
            command = ["strace", "-f", "-o", str(self._log), *tracer, "-p", str(child)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracing:
                assert tracing.stderr is not None
                assert "attached" in tracing.stderr.readline()
                self._say("")
                status = self._answer()
                tracing.communicate(timeout=60)
        else:
            self._say("")
            status = self._answer()
        return Done(status, self._out.read_bytes(), self._err.read_text())

    def calls(self, request: Any) -> dict[str, int]:
        """The system calls of work that is not disturbed: how many of each one process makes at most."""
        self.run(request, ["-e", "signal=none"])
        counts: dict[bytes, Counter[str]] = {}
        for line in self._log.read_bytes().splitlines():
            if match := _CALL.match(line):
                counts.setdefault(match[1], Counter())[match[2].decode()] += 1
        most = {
            call: max(each[call] for each in counts.values()) for each in counts.values() for call in each
        }
        return {call: number for call, number in most.items() if call not in _LEFT_OUT}

    def disturbed(self, request: Any, fault: Fault) -> Done:
        """Work that meets a fault, unless it makes fewer calls than when they were counted."""
        inject = f"inject={fault.call}:{fault.what}:when={fault.when}"
        done = self.run(request, ["-e", f"trace={fault.call}", "-e", inject])
        signs = rb"\(INJECTED\)|(---|killed by) " + fault.what.partition("=")[2].encode()
        return done._replace(met=re.search(signs, self._log.read_bytes()) is not None)

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def faults(calls: Mapping[str, int], *, what: str, every: bool) -> list[Fault]:
    """The faults of a walk: at `every` call, or at the first and the last of each kind.

    An error is met by the calls that can fail with it, and by no others.
    """
    found = []
    for call, number in sorted(calls.items()):
        if what not in _FAILING or _FAILING[what].fullmatch(call):
            places = range(1, number + 1) if every else sorted({1, number})
            found += [Fault(call, place, what) for place in places]
    return found


def state_of(root: Path) -> list[str]:
    """All that stands below `root`, with modes, times and content: to be the same before and after."""
    lines = []
    for place, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = os.path.join(place, name)
            found = os.lstat(path)
            content = ""
            if os.path.islink(path):
                content = os.readlink(path)
            elif name in names and found.st_size < 1 << 20:
                with open(path, "rb") as file:
                    content = repr(file.read())
            lines.append(f"{path} {found.st_mode:o} {found.st_size} {found.st_mtime_ns} {content}")
    return sorted(lines)


def mounts_below(directory: Path) -> list[str]:
    """Return the mounts below a directory, in this mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [line for line in table if f" {directory}/" in line]
