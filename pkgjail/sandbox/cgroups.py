"""Control groups: find the caller's own, and keep a jail in a child of it.

Version 2 alone; see cgroups(7) and the kernel's admin-guide/cgroup-v2. A group that has controllers
to give to its children may hold no process itself ("no internal processes"), the root group
excepted. So a caller that is alone in its group is moved to a leaf beside the jail meanwhile.

    own group ── pkgjail-caller     the caller, while there are jails
             └── pkgjail-jail-…     one a jail, removed with it

Whoever changes these holds a lock on the own group, and each jail's caller one on the jail's. What
a killed caller leaves behind has no lock and no process, and the next jail's caller removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import time

from pkgjail.sandbox.pseudo_filesystems import write_setting

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CALLER = b"pkgjail-caller"
_JAIL = b"pkgjail-jail-"
_PATIENCE = 5000  # milliseconds that killed processes get to be gone
# Seconds that a lock is waited for, and how often it is asked for.
_LONGEST_WAIT = 5
_STEP = 0.05
# How the kernel writes white space and backslashes in mountinfo.
_OCTAL = re.compile(rb"\\([0-7]{3})")


class NoGroupError(Exception):
    """The caller has no group of its own that jails can be made in; the text says why."""


class Own:
    """The group that jails are made in, and the controllers (`memory`) that it can give to them."""

    def __init__(self, path: bytes, controllers: frozenset[str]) -> None:
        self.path = path
        self.controllers = controllers


class Jail:
    """The group of one jail. `entrance` is a descriptor by which a process enters it."""

    def __init__(self, path: bytes, entrance: int) -> None:
        self.path = path
        self.entrance = entrance

    def set(self, name: str, content: bytes) -> None:
        """Write one of the group's settings. Raises `OSError` with the file's name."""
        write_setting(self.path + b"/" + name.encode(), content)

    def can_limit_swap(self) -> bool:
        """Whether the kernel counts swap by groups."""
        return os.path.exists(self.path + b"/memory.swap.max")

    def enter(self) -> None:
        """Move the calling process into the group; its further children are born there.

        Raises `OSError` with the file's name.
        """
        try:
            os.write(self.entrance, b"0")
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path + b"/cgroup.procs") from None

    def reached_memory_limit(self) -> bool:
        """Whether the kernel killed processes of this group because the group had reached its limit.

        `oom` counts this group's own limit, `oom_kill` what was killed for whatever reason.
        """
        events = dict(line.split() for line in _read(self.path + b"/memory.events").splitlines())
        return int(events[b"oom"]) > 0 and int(events[b"oom_kill"]) > 0


def own(proc: bytes = b"/proc/self") -> Own:
    """The caller's own group; changes nothing.

    Raises:
        NoGroupError: there is none, it is not the caller's to divide, or others are in it too.

    """
    path = _own_path(proc)
    base = os.path.dirname(path) if os.path.basename(path) == _CALLER else path
    shown = os.fsdecode(base)
    try:
        for name in (b"", b"/cgroup.procs", b"/cgroup.subtree_control"):
            if not os.access(base + name, os.W_OK, effective_ids=True):
                raise NoGroupError(f"this process's control group {shown} is not delegated to this user")
        if others := _others(base):
            raise NoGroupError(
                f"this process's control group {shown} holds other processes too (such as {others[0]})"
            )
        controllers = _read(base + b"/cgroup.controllers").decode().split()
    except OSError as error:
        raise NoGroupError(f"{shown}: {error.strerror}") from None
    return Own(base, frozenset(controllers))


@contextlib.contextmanager
def jail(group: Own, controllers: Iterable[str]) -> Iterator[Jail]:
    """A new group for a jail, which these controllers can limit; gone at the end.

    Raises:
        OSError: with the file's name.

    """
    path = b"%s/%s%d-%s" % (group.path, _JAIL, os.getpid(), os.urandom(4).hex().encode())
    with _locked(group.path):
        _sweep(group.path)
        try:
            _divide(group.path, controllers)
            os.mkdir(path, 0o755)
        except OSError:
            _undivide(group.path)
            raise
        held = _lock(path, fcntl.LOCK_EX)
    try:
        entrance = os.open(path + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield Jail(path, entrance)
        finally:
            os.close(entrance)
    finally:
        _remove(path)
        os.close(held)
        # Where somebody else holds it, the next jail's caller does that.
        with contextlib.suppress(BlockingIOError), _locked(group.path):
            _undivide(group.path)


def _own_path(proc: bytes) -> bytes:
    """Where the calling process's group is mounted, by cgroups(7) and proc_pid_mountinfo(5)."""
    lines = _read(proc + b"/cgroup").splitlines()
    name = next((line[3:] for line in lines if line.startswith(b"0::")), b"")
    for point, top in _mounted(proc):
        within = top.rstrip(b"/")
        if b".." in name.split(b"/"):  # above the root of this cgroup namespace
            continue
        if name == top or name.startswith(within + b"/"):
            return (point + name[len(within) :]).rstrip(b"/")
    raise NoGroupError("no control groups of version 2 are mounted here that this process is in")


def mount_points(proc: bytes = b"/proc/self") -> list[bytes]:
    """Where control groups of version 2 are mounted."""
    return [point for point, _ in _mounted(proc)]


def _mounted(proc: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each mount of a cgroup2 filesystem: the mount point, and which group of it is shown there."""
    for line in _read(proc + b"/mountinfo").splitlines():
        fields, _, kind = line.partition(b" - ")
        if kind.startswith(b"cgroup2 "):
            top, point = (
                _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
                for field in fields.split(b" ")[3:5]
            )
            yield point, top


def _others(base: bytes) -> list[int]:
    """The processes in `base` but for the calling one; the root group may hold any.

    0 stands for one of another PID namespace.
    """
    if not os.path.exists(base + b"/cgroup.type"):  # which the root group does not have
        return []
    return [number for number in map(int, _read(base + b"/cgroup.procs").split()) if number != os.getpid()]


def _divide(base: bytes, controllers: Iterable[str]) -> None:
    """Make `base` give these controllers to its children."""
    enabled = _read(base + b"/cgroup.subtree_control").decode().split()
    missing = [name for name in controllers if name not in enabled]
    inside = os.path.exists(base + b"/cgroup.type") and _read(base + b"/cgroup.procs").split()
    if inside:
        with contextlib.suppress(FileExistsError):
            os.mkdir(base + b"/" + _CALLER, 0o755)
        write_setting(base + b"/" + _CALLER + b"/cgroup.procs", b"0")
    if missing:
        write_setting(base + b"/cgroup.subtree_control", " ".join(f"+{name}" for name in missing).encode())


def _undivide(base: bytes) -> None:
    """After the last jail take the caller back from its leaf, if it was moved there."""
    leaf = base + b"/" + _CALLER
    if not os.path.isdir(leaf) or any(name.startswith(_JAIL) for name in os.listdir(base)):
        return
    with contextlib.suppress(OSError):  # others have made groups here meanwhile, say
        # A group that held a process had none enabled, so all of these came with the leaf.
        enabled = _read(base + b"/cgroup.subtree_control").split()
        if enabled:
            write_setting(base + b"/cgroup.subtree_control", b" ".join(b"-" + name for name in enabled))
        if str(os.getpid()).encode() in _read(leaf + b"/cgroup.procs").split():
            write_setting(base + b"/cgroup.procs", b"0")
        os.rmdir(leaf)


def _sweep(base: bytes) -> None:
    """Remove the groups of jails whose callers were killed."""
    for name in os.listdir(base):
        if name.startswith(_JAIL):
            with contextlib.suppress(OSError):  # in use
                held = _lock(base + b"/" + name, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    os.rmdir(base + b"/" + name)
                finally:
                    os.close(held)


def _remove(path: bytes) -> None:
    """Remove a jail's group, killing what is still in it. What cannot be is left for `_sweep`."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):  # before Linux 5.14, where they die with init
            write_setting(path + b"/cgroup.kill", b"1")
        _wait_until_empty(path)
        os.rmdir(path)


def _wait_until_empty(path: bytes) -> None:
    """Wait for `populated 0` in cgroup.events, whose changes poll(2) tells."""
    events = os.open(path + b"/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        change = select.poll()
        change.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events, 4096, 0) and change.poll(_PATIENCE):
            pass
    finally:
        os.close(events)


@contextlib.contextmanager
def _locked(path: bytes) -> Iterator[None]:
    held = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


def _lock(path: bytes, how: int) -> int:
    """A descriptor that holds a lock on a directory until it is closed; see flock(2).

    Anybody who sees a group may lock it, so the wait has an end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    end = time.monotonic() + _LONGEST_WAIT
    try:
        while not _has_locked(descriptor, how):
            if how & fcntl.LOCK_NB or time.monotonic() > end:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it", path)
            time.sleep(_STEP)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _has_locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
