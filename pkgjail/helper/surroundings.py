"""What a jail takes over from the process that asks for it, so that nobody gets more by the service.

These are the control groups, the resource limits, the priority, the processors, the file creation mask, the
order in which the kernel ends processes when memory is short, the user id of the login (audit(7)), and the
signals that are ignored.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.helper.errors import RequestError
from pkgjail.helper.peers import refuse_ended, status_of
from pkgjail.sandbox.signals import RELAYED

if TYPE_CHECKING:
    from pkgjail.helper.peers import Peer

# The names of proc_pid_limits(5).
_RESOURCES = {
    "Max address space": resource.RLIMIT_AS,
    "Max core file size": resource.RLIMIT_CORE,
    "Max cpu time": resource.RLIMIT_CPU,
    "Max data size": resource.RLIMIT_DATA,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max processes": resource.RLIMIT_NPROC,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
    "Max realtime timeout": resource.RLIMIT_RTTIME,
    "Max resident set": resource.RLIMIT_RSS,
    "Max stack size": resource.RLIMIT_STACK,
}
_CGROUPS = b"/sys/fs/cgroup"
_UNSET = b"4294967295"


class Surroundings(NamedTuple):
    """What was read of a process. `groups` are the cgroup.procs of its control groups, by hierarchy."""

    limits: tuple[tuple[int, tuple[int, int]], ...]
    priority: int
    processors: frozenset[int]
    umask: int
    badness: bytes
    login: bytes
    groups: tuple[bytes, ...]
    ignored: tuple[int, ...]


def surroundings_of(peer: Peer) -> Surroundings:
    """Read the surroundings of the process that asks.

    Raises:
        RequestError: it has ended, or cannot be read.

    """
    process = f"/proc/{peer.pid}"
    try:
        status = status_of(peer.pid)
        ignored = int(status["SigIgn"], 16)
        found = Surroundings(
            limits=_limits(_read(f"{process}/limits").decode("ascii")),
            priority=os.getpriority(os.PRIO_PROCESS, peer.pid),
            processors=frozenset(os.sched_getaffinity(peer.pid)),
            umask=int(status["Umask"], 8),
            badness=_read(f"{process}/oom_score_adj"),
            login=_read(f"{process}/loginuid"),
            groups=_control_groups(_read(f"{process}/cgroup")),
            ignored=tuple(int(number) for number in RELAYED if ignored >> (number - 1) & 1),
        )
    except (OSError, KeyError, ValueError) as error:
        refuse_ended(peer)
        raise RequestError(f"cannot look at your process: {error}") from None
    refuse_ended(peer)
    return found


def take_over(found: Surroundings) -> None:
    """Give this process, root's, the surroundings of another one. It must be one that starts the user's jail.

    Raises:
        RequestError: it cannot have them.

    """
    own = _control_groups(_read("/proc/self/cgroup"))
    for procs in found.groups:
        if procs not in own:
            _write(procs, b"0")
    with suppress(OSError):  # no auditing in this kernel, or it was set when the daemon was started by hand
        if _read("/proc/self/loginuid").strip() == _UNSET:
            _write(b"/proc/self/loginuid", found.login)
    _write(b"/proc/self/oom_score_adj", found.badness)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, found.priority)
        os.sched_setaffinity(0, found.processors)
        for number, pair in found.limits:
            _set_limit(number, *pair)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot take over the limits of your process: {error}") from None
    os.umask(found.umask)


def _limits(table: str) -> tuple[tuple[int, tuple[int, int]], ...]:
    """Return the limits in proc_pid_limits(5): the number of each, the soft and the hard one."""
    found = []
    for line in table.splitlines()[1:]:
        name = line[:25].rstrip()
        if name in _RESOURCES:
            soft, hard, *_ = line[25:].split()
            found.append((_RESOURCES[name], (_number(soft), _number(hard))))
    return tuple(found)


def _number(text: str) -> int:
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)


def _set_limit(number: int, soft: int, hard: int) -> None:
    """Set a limit. Without CAP_SYS_RESOURCE, as in some containers, it stays at most this process's own."""
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError:
        own = resource.getrlimit(number)[1]
        resource.setrlimit(number, (own if soft == resource.RLIM_INFINITY else min(soft, own), own))


def _control_groups(table: bytes) -> tuple[bytes, ...]:
    """Return the cgroup.procs of each group in proc_pid_cgroup(5) that is mounted in the usual place."""
    found = []
    for line in table.splitlines():
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        names = [b"", b"/unified"] if not controllers else [b"/" + controllers.removeprefix(b"name=")]
        for name in names:
            procs = b"%s%s/%s/cgroup.procs" % (_CGROUPS, name, path.strip(b"/"))
            if b".." not in path.split(b"/") and os.path.exists(procs):
                found.append(procs)
                break
    return tuple(found)


def _read(path: str) -> bytes:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


def _write(path: bytes, content: bytes) -> None:
    if not content:
        return
    try:
        # Not to be made, if it is not there.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(content)
    except OSError as error:
        raise RequestError(f"cannot take over {os.fsdecode(path)}: {error.strerror}") from None
