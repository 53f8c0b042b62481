"""Fault injection: a program is stopped, or told that the disk is full, at any of its system calls.

strace(1) does it (`--inject`). A run that is not disturbed tells which calls there are; those up to
the first that names `marker` belong to the start of Python and are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# As strace writes a call: who, which.
_CALL = re.compile(rb"^(\d+) +(\w+)\(")
# A call that ends the process cannot fail, nor is anything left to be stopped.
_LAST = frozenset({"exit", "exit_group"})
_WRITING = re.compile(
    "openat|open|creat|mkdir.*|p?write.*|rename.*|link.*|symlink.*|mknod.*|f?truncate|fallocate|fsync"
    "|fdatasync|f?setxattr|f?chmod.*|utimensat|copy_file_range|ioctl|sendfile"
)


class Fault(NamedTuple):
    """`what` ("signal=SIGKILL", "error=ENOSPC") at the `when`th `call` of any of the processes."""

    call: str
    when: int
    what: str


def calls_of(
    command: Sequence[str | Path], environment: Mapping[str, str], *, log: Path, marker: str
) -> dict[str, tuple[int, int]]:
    """The system calls of a run: for each, the first number behind the marker, and the last."""
    traced = ["strace", "-f", "-qq", "-s", "4096", "-e", "signal=none", "-o", log, *command]
    subprocess.run(traced, env=environment, check=True, capture_output=True, timeout=120)
    counts: dict[bytes, Counter[str]] = {}
    before: Counter[str] = Counter()
    seen = False
    for line in log.read_bytes().splitlines():
        if not seen and marker.encode() in line and b"execve(" not in line:
            seen = True
            before = next(iter(counts.values()), Counter()).copy()
        if match := _CALL.match(line):
            counts.setdefault(match[1], Counter())[match[2].decode()] += 1
    assert seen, f"no call names {marker}"
    last = {call: max(each[call] for each in counts.values()) for each in counts.values() for call in each}
    return {call: (before[call] + 1, number) for call, number in last.items() if call not in _LAST}


def faults(calls: Mapping[str, tuple[int, int]], *, what: Sequence[str], every: bool) -> list[Fault]:
    """The faults of a walk: at `every` call, or for each kind at the first, with SIGKILL the last too.

    A full disk is met by calls that write, and by no others.
    """
    found = []
    for each in what:
        for call, (first, last) in sorted(calls.items()):
            if each.startswith("error=") and not _WRITING.fullmatch(call):
                continue
            some = sorted({first, last} if "KILL" in each else {first})
            numbers = range(first, last + 1) if every else some
            found += [Fault(call, number, each) for number in numbers if number >= first]
    return found


def disturbed(
    command: Sequence[str | Path], environment: Mapping[str, str], fault: Fault
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with a fault. Returns when all of its processes have ended: none is left behind."""
    inject = f"{fault.call}:{fault.what}:when={fault.when}"
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={fault.call}", "-e", f"inject={inject}"]
    return subprocess.run([*traced, *command], env=environment, check=False, capture_output=True, timeout=60)


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
    """What is mounted below a directory, in this mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [line for line in table if f" {directory}/" in line]
