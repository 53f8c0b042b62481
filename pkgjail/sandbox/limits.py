"""Limit what a jail may use of the host: memory, processors, processes.

A control group limits all three (`cgroups`). Without one, RLIMIT_NPROC can limit the processes of an ordinary
user's jail: the kernel counts the processes of a user namespace, including those of nested namespaces,
separately, and no program inside may raise the limit; see getrlimit(2). This does not work for the host's
root, or before about Linux 5.14, so it is probed first. There is no such resource limit for memory, because
RLIMIT_AS counts each process separately, or for processors, because a program can undo sched_setaffinity(2).
"""

from __future__ import annotations

import contextlib
import os
import resource

from pkgjail.sandbox import cgroups
from pkgjail.sandbox import syscalls as sc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, Optional

    # Memory in bytes, processors, processes and threads; each is None for no limit.
    Limits = tuple[Optional[int], Optional[float], Optional[int]]
    # A control group, a resource limit, or nothing.
    Mechanism = Literal["cgroup", "rlimit", ""]

CONTROLLERS = ("memory", "cpu", "pids")  # in the order of `Limits`
_PERIOD = 100_000  # microseconds over which processor time is allotted


class LimitError(Exception):
    """A limit cannot be enforced here; the message says which one and why."""


class EnforcedLimits:
    """The limits of one jail, set up for the monitor to enter before it starts init."""

    def __init__(
        self, group: cgroups.JailGroup | None, processes: int | None, *, limits_memory: bool
    ) -> None:
        self._group = group
        self._processes = processes
        self._limits_memory = limits_memory

    def enter(self) -> None:
        """Put the calling process, which is in the jail's user namespace, under the limits."""
        if self._group is not None:
            self._group.enter()
        if self._processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (self._processes, self._processes))

    def ran_out_of_memory(self) -> bool:
        """Check whether processes of the jail were killed for reaching the memory limit."""
        return self._limits_memory and self._group is not None and self._group.reached_memory_limit()


def mechanisms(limits: Limits) -> dict[str, tuple[Mechanism, str]]:
    """Return how each limit would be enforced here, by controller. Nothing is changed.

    It is ("cgroup", the group's path), ("rlimit", "RLIMIT_NPROC"), or ("", why it cannot be enforced).
    """
    requested = [name for name, value in zip(CONTROLLERS, limits) if value is not None]
    group, why = _own_group()
    found: dict[str, tuple[Mechanism, str]] = {}
    for name in requested:
        if group is not None and name in group.controllers:
            found[name] = ("cgroup", _group_name(group))
        elif name == "pids" and _rlimit_counts_per_namespace():
            found[name] = ("rlimit", "RLIMIT_NPROC")
        else:
            found[name] = ("", why or f"the control group {_group_name(group)} has no controller {name!r}")
    return found


@contextlib.contextmanager
def enforced(limits: Limits, *, own_processes: int) -> Iterator[EnforcedLimits]:
    """Set up these limits for a jail, and remove its control group at the end.

    The limit of processes is raised by `own_processes`: the monitor's, and init's with its threads.

    Raises:
        LimitError: one of them cannot be enforced here.

    """
    found = mechanisms(limits)
    refused = {name: why for name, (mechanism, why) in found.items() if not mechanism}
    if refused:
        raise LimitError("; ".join(f"{name}: {why}" for name, why in refused.items()))
    memory, cpus, pids = limits
    limits = (memory, cpus, None if pids is None else pids + own_processes)
    grouped = [name for name, (mechanism, _) in found.items() if mechanism == "cgroup"]
    with contextlib.ExitStack() as stack:
        group = _limited_group(stack, grouped, limits) if grouped else None
        yield EnforcedLimits(
            group, None if "pids" in grouped else limits[2], limits_memory="memory" in grouped
        )


def _limited_group(stack: contextlib.ExitStack, controllers: list[str], limits: Limits) -> cgroups.JailGroup:
    """Make a control group with its limits set; it is removed when `stack` is closed."""
    try:
        group = stack.enter_context(cgroups.jail_group(cgroups.own_group(), controllers))
        if "memory" in controllers:
            _limit_swap(group)
        for name in controllers:
            for file, content in _settings(name, limits):
                group.write(file, content)
    except cgroups.NoGroupError as error:  # it has changed since `mechanisms` looked
        raise LimitError(str(error)) from None
    except OSError as error:
        raise LimitError(f"{os.fsdecode(error.filename or '')}: {error.strerror}") from None
    return group


def _own_group() -> tuple[cgroups.OwnGroup | None, str]:
    try:
        return cgroups.own_group(), ""
    except cgroups.NoGroupError as error:
        return None, str(error)


def _group_name(group: cgroups.OwnGroup | None) -> str:
    return "" if group is None else group.path.decode("utf-8", "backslashreplace")


def _limit_swap(group: cgroups.JailGroup) -> None:
    """Allow no swap: it would be memory beyond the limit."""
    if group.can_limit_swap():
        group.write("memory.swap.max", b"0")
        return
    with open("/proc/swaps", "rb") as areas:
        if len(areas.readlines()) > 1:  # the first is a heading
            raise LimitError("memory: this kernel has swap, and does not count it by control groups")


def _settings(controller: str, limits: Limits) -> list[tuple[str, bytes]]:
    """Return the files of the group that set a limit, with their content."""
    memory, cpus, pids = limits
    if controller == "memory":
        # Kill all of the jail together: a build must not go on without one of its processes.
        return [("memory.max", b"%d" % (memory or 0)), ("memory.oom.group", b"1")]
    if controller == "cpu":
        return [("cpu.max", b"%d %d" % (round((cpus or 0) * _PERIOD), _PERIOD))]
    return [("pids.max", b"%d" % (pids or 0))]


def _rlimit_counts_per_namespace() -> bool:
    """Check whether the kernel counts the processes of a user namespace separately for RLIMIT_NPROC.

    If so, a limit of 2 stops the second child, and not the first, in a new user namespace. A child tries it.
    """
    child = os.fork()
    if child == 0:
        works = False
        try:
            works = _probe_rlimit()
        finally:
            os._exit(not works)
    return os.waitpid(child, 0)[1] == 0


def _probe_rlimit() -> bool:
    sc.unshare(sc.CLONE_NEWUSER)
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has tried the second
        os._exit(0)
    try:
        second = os.fork()
    except BlockingIOError:
        return True
    finally:
        os.close(writing)
    if second == 0:
        os._exit(0)
    return False
