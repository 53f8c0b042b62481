"""Control groups: find the caller's own group, and run each jail in a child group of it.

Only version 2 is used; see cgroups(7) and the kernel's admin-guide/cgroup-v2. A group whose controllers are
enabled for its children must not have processes itself ("no internal processes"), except for the root group.
So a caller that is alone in its group is moved to a leaf beside the jails while there are any:

    own group ── pkgjail-caller     the caller, while there are jails
             └── pkgjail-jail-…     one for each jail, removed with it

Changes need a lock on the caller's own group. Each jail's caller also locks the jail's group. The group of a
killed caller has no lock and no process, and the caller of the next jail removes it.
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
_KILL_TIMEOUT_MS = 5000  # until all killed processes have ended
# Seconds to wait for a lock, and between attempts.
_LOCK_TIMEOUT = 5
_LOCK_INTERVAL = 0.05
# The kernel's escapes of white space and backslashes in mountinfo.
_OCTAL = re.compile(rb"\\([0-7]{3})")


class NoGroupError(Exception):
    """The caller has no group of its own in which groups for jails can be made; the message says why."""


class OwnGroup:
    """The group that has the jails' groups, and the controllers (`memory`) that it can enable for them."""

    def __init__(self, path: bytes, controllers: frozenset[str]) -> None:
        self.path = path
        self.controllers = controllers


class JailGroup:
    """The group of one jail. `procs` is a descriptor of its cgroup.procs, by which a process enters it."""

    def __init__(self, path: bytes, procs: int) -> None:
        self.path = path
        self.procs = procs

    def write(self, name: str, content: bytes) -> None:
        """Write one of the group's settings. Raises `OSError` with the file's name."""
        write_setting(self.path + b"/" + name.encode(), content)

    def can_limit_swap(self) -> bool:
        """Check whether the kernel counts swap by groups."""
        return os.path.exists(self.path + b"/memory.swap.max")

    def enter(self) -> None:
        """Move the calling process into the group. Its later children start there.

        Raises `OSError` with the file's name.
        """
        try:
            os.write(self.procs, b"0")
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path + b"/cgroup.procs") from None

    def reached_memory_limit(self) -> bool:
        """Check whether the kernel killed processes of this group because it had reached its own limit.

        `oom` counts how often this group reached its limit, `oom_kill` the processes killed for any reason.
        """
        events = dict(line.split() for line in _read(self.path + b"/memory.events").splitlines())
        return int(events[b"oom"]) > 0 and int(events[b"oom_kill"]) > 0


def own_group(proc: bytes = b"/proc/self") -> OwnGroup:
    """Return the caller's own group. Nothing is changed.

    Raises:
        NoGroupError: there is none, it is not delegated to the caller, or other processes are in it.

    """
    path = _own_path(proc)
    base = os.path.dirname(path) if os.path.basename(path) == _CALLER else path
    shown = os.fsdecode(base)
    try:
        for name in (b"", b"/cgroup.procs", b"/cgroup.subtree_control"):
            if not os.access(base + name, os.W_OK, effective_ids=True):
                raise NoGroupError(f"this process's control group {shown} is not delegated to this user")
        if others := _other_processes(base):
            raise NoGroupError(
                f"this process's control group {shown} has other processes too (such as {others[0]})"
            )
        controllers = _read(base + b"/cgroup.controllers").decode().split()
    except OSError as error:
        raise NoGroupError(f"{shown}: {error.strerror}") from None
    return OwnGroup(base, frozenset(controllers))


@contextlib.contextmanager
def jail_group(group: OwnGroup, controllers: Iterable[str]) -> Iterator[JailGroup]:
    """Make a group for a jail, with these controllers, and remove it at the end.

    Raises:
        OSError: it has the file's name.

    """
    path = b"%s/%s%d-%s" % (group.path, _JAIL, os.getpid(), os.urandom(4).hex().encode())
    with _locked(group.path):
        _remove_abandoned(group.path)
        try:
            _enable_controllers(group.path, controllers)
            os.mkdir(path, 0o755)
        except OSError:
            _move_caller_back(group.path)
            raise
        lock = _lock(path, fcntl.LOCK_EX)
    try:
        procs = os.open(path + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield JailGroup(path, procs)
        finally:
            os.close(procs)
    finally:
        _remove(path)
        os.close(lock)
        # If another process has the lock, the caller of the next jail does this.
        with contextlib.suppress(BlockingIOError), _locked(group.path):
            _move_caller_back(group.path)


def _own_path(proc: bytes) -> bytes:
    """Return the path of the calling process's group; cgroups(7), proc_pid_mountinfo(5)."""
    lines = _read(proc + b"/cgroup").splitlines()
    name = next((line[3:] for line in lines if line.startswith(b"0::")), b"")
    for point, top in _mounts(proc):
        within = top.rstrip(b"/")
        if b".." in name.split(b"/"):  # above the root of this cgroup namespace
            continue
        if name == top or name.startswith(within + b"/"):
            return (point + name[len(within) :]).rstrip(b"/")
    raise NoGroupError("no control groups of version 2 are mounted here that this process is in")


def mount_points(proc: bytes = b"/proc/self") -> list[bytes]:
    """Return the mount points of control groups of version 2."""
    return [point for point, _ in _mounts(proc)]


def _mounts(proc: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each mount of a cgroup2 file system: the mount point, and the group that is shown there."""
    for line in _read(proc + b"/mountinfo").splitlines():
        fields, _, kind = line.partition(b" - ")
        if kind.startswith(b"cgroup2 "):
            top, point = (
                _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
                for field in fields.split(b" ")[3:5]
            )
            yield point, top


def _other_processes(base: bytes) -> list[int]:
    """Return the processes in `base` other than the calling one, and none for the root group.

    A process of another PID namespace has number 0.
    """
    if not os.path.exists(base + b"/cgroup.type"):  # the root group
        return []
    return [number for number in map(int, _read(base + b"/cgroup.procs").split()) if number != os.getpid()]


def _enable_controllers(base: bytes, controllers: Iterable[str]) -> None:
    """Enable these controllers for the children of `base`."""
    enabled = _read(base + b"/cgroup.subtree_control").decode().split()
    missing = [name for name in controllers if name not in enabled]
    has_processes = os.path.exists(base + b"/cgroup.type") and _read(base + b"/cgroup.procs").split()
    if has_processes:
        with contextlib.suppress(FileExistsError):
            os.mkdir(base + b"/" + _CALLER, 0o755)
        write_setting(base + b"/" + _CALLER + b"/cgroup.procs", b"0")
    if missing:
        write_setting(base + b"/cgroup.subtree_control", " ".join(f"+{name}" for name in missing).encode())


def _move_caller_back(base: bytes) -> None:
    """After the last jail, move the caller back from its leaf, if it was moved there."""
    leaf = base + b"/" + _CALLER
    if not os.path.isdir(leaf) or any(name.startswith(_JAIL) for name in os.listdir(base)):
        return
    with contextlib.suppress(OSError):  # for example, another program has made groups here
        # A group with processes had no controllers enabled, so all of these were enabled for jails.
        enabled = _read(base + b"/cgroup.subtree_control").split()
        if enabled:
            write_setting(base + b"/cgroup.subtree_control", b" ".join(b"-" + name for name in enabled))
        if str(os.getpid()).encode() in _read(leaf + b"/cgroup.procs").split():
            write_setting(base + b"/cgroup.procs", b"0")
        os.rmdir(leaf)


def _remove_abandoned(base: bytes) -> None:
    """Remove the groups of jails whose callers were killed."""
    for name in os.listdir(base):
        if name.startswith(_JAIL):
            with contextlib.suppress(OSError):  # in use
                lock = _lock(base + b"/" + name, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    os.rmdir(base + b"/" + name)
                finally:
                    os.close(lock)


def _remove(path: bytes) -> None:
    """Kill what is still in a jail's group and remove it. If that fails, `_remove_abandoned` tries again."""
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError):  # before Linux 5.14; the processes die with init
            write_setting(path + b"/cgroup.kill", b"1")
        _wait_until_empty(path)
        os.rmdir(path)


def _wait_until_empty(path: bytes) -> None:
    """Wait for `populated 0` in cgroup.events; poll(2) reports its changes."""
    events = os.open(path + b"/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        change = select.poll()
        change.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events, 4096, 0) and change.poll(_KILL_TIMEOUT_MS):
            pass
    finally:
        os.close(events)


@contextlib.contextmanager
def _locked(path: bytes) -> Iterator[None]:
    lock = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def _lock(path: bytes, how: int) -> int:
    """Lock a directory and return the descriptor; the lock lasts until it is closed. See flock(2).

    Every user who can see a group can lock it, so there is a time limit.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    end = time.monotonic() + _LOCK_TIMEOUT
    try:
        while not _try_lock(descriptor, how):
            if how & fcntl.LOCK_NB or time.monotonic() > end:
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it", path)
            time.sleep(_LOCK_INTERVAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
