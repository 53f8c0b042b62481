"""Limits of what a jail may use of the host: memory, processors, processes.

A control group limits all three (`cgroups`). Without one, RLIMIT_NPROC limits the processes of an
ordinary user's jail as well: in a user namespace of its own the jail's processes are counted for
themselves, those of namespaces further down with them, and no program inside may raise it; see
getrlimit(2). It binds nobody who is root on the host, and no kernel before about 5.14, so it is tried
first. No resource limit does the same for memory, RLIMIT_AS being each process's own, or for
processors, for sched_setaffinity(2) can be taken back.
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
    from typing import Optional

    # Of memory in bytes, of processors, and of processes and threads, each None where there is none.
    Limits = tuple[Optional[int], Optional[float], Optional[int]]

CONTROLLERS = ("memory", "cpu", "pids")  # in the order of `Limits`
_OWN_PROCESSES = 2  # the keeper and init, which are in the group too
_PERIOD = 100_000  # microseconds, over which processor time is measured out


class LimitError(Exception):
    """A limit that is asked for and cannot be held here; the text says which and why."""


class EnforcedLimits:
    """What holds a jail's limits, for the keeper to enter before it starts anything."""

    def __init__(self, group: cgroups.Jail | None, processes: int | None, *, watch: bool) -> None:
        self._group = group
        self._processes = processes
        self._watch = watch

    def enter(self) -> None:
        """Put the calling process, in the jail's user namespace, under the limits."""
        if self._group is not None:
            self._group.enter()
        if self._processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (self._processes, self._processes))

    def ran_out_of_memory(self) -> bool:
        """Whether processes of the jail were killed for reaching the limit of memory."""
        return self._watch and self._group is not None and self._group.reached_memory_limit()


def mechanisms(limits: Limits) -> dict[str, tuple[str, str]]:
    """How each limit that is asked for would be held here, by controller; changes nothing.

    ("cgroup", the group's path), ("rlimit", "RLIMIT_NPROC"), or ("", why it cannot be).
    """
    asked = [name for name, value in zip(CONTROLLERS, limits) if value is not None]
    group, why = _own_group()
    found = {}
    for name in asked:
        if group is not None and name in group.controllers:
            found[name] = ("cgroup", _name(group))
        elif name == "pids" and _resource_limit_counts_a_jail():
            found[name] = ("rlimit", "RLIMIT_NPROC")
        else:
            found[name] = ("", why or f"the control group {_name(group)} has no controller {name!r}")
    return found


@contextlib.contextmanager
def enforced(limits: Limits) -> Iterator[EnforcedLimits]:
    """Have these limits ready for a jail, until its end.

    Raises:
        LimitError: one of them cannot be held here.

    """
    found = mechanisms(limits)
    refused = {name: why for name, (way, why) in found.items() if not way}
    if refused:
        raise LimitError("; ".join(f"{name}: {why}" for name, why in refused.items()))
    processes = None if limits[2] is None else limits[2] + _OWN_PROCESSES
    grouped = [name for name, (way, _) in found.items() if way == "cgroup"]
    with contextlib.ExitStack() as stack:
        group = _limited_group(stack, grouped, limits) if grouped else None
        yield EnforcedLimits(group, None if "pids" in grouped else processes, watch="memory" in grouped)


def _limited_group(stack: contextlib.ExitStack, controllers: list[str], limits: Limits) -> cgroups.Jail:
    """A group with its limits set, which ends with `stack`."""
    try:
        group = stack.enter_context(cgroups.jail(cgroups.own(), controllers))
        if "memory" in controllers:
            _limit_swap(group)
        for name in controllers:
            for file, content in _settings(name, limits):
                group.set(file, content)
    except cgroups.NoGroupError as error:  # gone since it was looked at
        raise LimitError(str(error)) from None
    except OSError as error:
        raise LimitError(f"{os.fsdecode(error.filename or '')}: {error.strerror}") from None
    return group


def _own_group() -> tuple[cgroups.Own | None, str]:
    try:
        return cgroups.own(), ""
    except cgroups.NoGroupError as error:
        return None, str(error)


def _name(group: cgroups.Own | None) -> str:
    return "" if group is None else group.path.decode("utf-8", "backslashreplace")


def _limit_swap(group: cgroups.Jail) -> None:
    """No swap: it would be memory beyond the limit."""
    if group.can_limit_swap():
        group.set("memory.swap.max", b"0")
        return
    with open("/proc/swaps", "rb") as areas:
        if len(areas.readlines()) > 1:  # the first is a heading
            raise LimitError("memory: this kernel has swap, and does not count it by control groups")


def _settings(controller: str, limits: Limits) -> list[tuple[str, bytes]]:
    """The files of the group that hold a limit, and their content."""
    memory, cpus, pids = limits
    if controller == "memory":
        # All of the jail ends together: a build must not go on without a part of it.
        return [("memory.max", b"%d" % (memory or 0)), ("memory.oom.group", b"1")]
    if controller == "cpu":
        return [("cpu.max", b"%d %d" % (round((cpus or 0) * _PERIOD), _PERIOD))]
    return [("pids.max", b"%d" % ((pids or 0) + _OWN_PROCESSES))]


def _resource_limit_counts_a_jail() -> bool:
    """Whether RLIMIT_NPROC stops the second child, and not the first, in a new user namespace.

    That is so only where the namespace's processes are counted by themselves. Tried in a child.
    """
    child = os.fork()
    if child == 0:
        works = False
        try:
            works = _try_resource_limit()
        finally:
            os._exit(not works)
    return os.waitpid(child, 0)[1] == 0


def _try_resource_limit() -> bool:
    sc.unshare(sc.CLONE_NEWUSER)
    resource.setrlimit(resource.RLIMIT_NPROC, (2, 2))
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(writing)
        os.read(reading, 1)  # until the second was tried
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
