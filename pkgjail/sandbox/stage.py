"""The namespace stage: run one command in the jail that a plan describes, without root.

Four processes, each with one duty:

    caller ── forks ──> keeper      new user, mount, PID, IPC, UTS (and network) namespaces
                          └──> init      PID 1: builds the root, gives up every privilege, reaps
                                 └──> the command

The caller relays signals and the exit status. Each process dies with its parent
(PR_SET_PDEATHSIG), and when init ends the kernel kills whatever else runs in the jail.
See user_namespaces(7), pid_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pkgjail.sandbox import seccomp, terminal
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.build import HostChangedError, enter_new_root, write_setting
from pkgjail.sandbox.waiting import RELAYED, relaying, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.sandbox.steps import Command, Plan

# What env(1), timeout(1) and the container runtimes end with when the command cannot be started.
CANNOT_EXECUTE = 126
NOT_FOUND = 127
_STAGE_FAILED = 125


class _Job(NamedTuple):
    """What the three forked processes work from."""

    plan: Plan
    command: Command
    report: int
    channel: socket.socket | None
    mask: set[int]


class StageError(Exception):
    """The jail could not be set up or the command not started.

    `doing` says what was tried ("unshare", "build", "execute"); `errno` is 0 where no system call
    failed; `name` is the path or call at fault; `changes` are (path, what was found) pairs.
    """

    def __init__(self, doing: str, number: int, name: bytes, changes: list[tuple[bytes, str]]) -> None:
        super().__init__(doing, number, name, changes)
        self.doing = doing
        self.errno = number
        self.name = name
        self.changes = changes

    def __str__(self) -> str:
        name = self.name.decode("utf-8", "backslashreplace")
        return f"{self.doing} {name}: {os.strerror(self.errno) if self.errno else 'failed'}"


def run(plan: Plan, command: Command) -> int:
    """Run `command` in the jail that `plan` describes and wait for its end.

    Returns:
        The command's exit status, or 128 + n when signal n ended it.

    Raises:
        StageError: the jail could not be set up, or the command not be started; nothing of the
            jail is left.

    """
    _refuse_directories()
    report = os.memfd_create("pkgjail-report", os.MFD_CLOEXEC)  # unlike a pipe, never full
    ours, theirs = socket.socketpair() if command.terminal else (None, None)
    # Signals wait until somebody is there to relay them.
    mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
    job = _Job(plan, command, report, theirs, mask)
    keeper = os.fork()
    if keeper == 0:
        _guarded(report, "unshare", lambda: _keeper(job))
    if theirs is not None:
        theirs.close()
    try:
        with relaying(keeper, mask):
            if ours is not None:
                with ours:
                    terminal.relay(ours)
            status = wait(keeper)
        failure = os.pread(report, os.fstat(report).st_size, 0)
    finally:
        os.close(report)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if failure:
        raise _failure(failure)
    return status


def _refuse_directories() -> None:
    """The command inherits descriptors 0 to 2; from a directory it could walk '..' out of the jail."""
    for number in range(3):
        with contextlib.suppress(OSError):  # closed
            if stat.S_ISDIR(os.fstat(number).st_mode):
                raise StageError("inherit", errno.EISDIR, b"descriptor %d" % number, [])


def _keeper(job: _Job) -> int:
    """Enter new namespaces, start init in them, and end as it ends."""
    parent = os.getppid()
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return _STAGE_FAILED
    os.setsid()  # signals from the terminal reach the caller alone, which relays them
    user, group = os.geteuid(), os.getegid()
    flags = sc.CLONE_NEWUSER | sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
    sc.unshare(flags | (0 if job.plan.network else sc.CLONE_NEWNET))
    write_setting(b"/proc/self/setgroups", b"deny")
    write_setting(b"/proc/self/uid_map", b"%d %d 1" % (user, user))
    write_setting(b"/proc/self/gid_map", b"%d %d 1" % (group, group))
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    alive_read, alive_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        _guarded(job.report, "build", lambda: _init(job, alive_read))
    os.write(alive_write, b".")
    _only_standard_descriptors()
    with relaying(init, job.mask):
        return wait(init)


def _init(job: _Job, alive: int) -> int:
    """PID 1 of the jail: build the root, give up all privilege, start the command, reap."""
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not os.read(alive, 1):  # the keeper died before the line above
        return _STAGE_FAILED
    _hide_command_line()
    os.umask(0o022)
    sc.sethostname(job.plan.hostname.encode())
    if not job.plan.network:
        _bring_loopback_up()
    enter_new_root(job.plan)
    sc.join_new_session_keyring()
    _give_up_privileges()
    seccomp.install(network=job.plan.network)
    child = os.fork()
    if child == 0:
        _guarded(job.report, "execute", lambda: _execute(job))
    _only_standard_descriptors()
    with relaying(child, job.mask):
        return wait(child, reap_all=True)


def _hide_command_line() -> None:
    """Overwrite this process's arguments, which the jail can read in /proc/1/cmdline.

    proc_pid_stat(5): arg_start and arg_end are fields 48 and 49, of which the first two are the
    process id and a name in parentheses that may hold anything.
    """
    with open("/proc/self/stat", "rb") as record:
        fields = record.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    sc.overwrite(start, b"pkgjail-init".ljust(end - start, b"\0")[: end - start])


def _give_up_privileges() -> None:
    """Leave no way to a capability: with one, a process could unmount a layer and look beneath."""
    sc.prctl(sc.PR_SET_SECUREBITS, sc.SECUREBITS_LOCKED_DOWN)
    sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
    capability = 0
    try:
        while True:
            sc.prctl(sc.PR_CAPBSET_DROP, capability)
            capability += 1
    except OSError as error:
        if error.errno != errno.EINVAL or capability == 0:  # EINVAL: past the last capability
            raise
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.capset_none()
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def _execute(job: _Job) -> NoReturn:
    """Become the command, in a session of its own, with nothing inherited but descriptors 0 to 2."""
    os.setsid()  # no controlling terminal of the caller's, so no TIOCSTI into it
    if job.channel is not None:
        terminal.adopt(job.channel)
    os.chdir(job.command.cwd)
    sc.close_range_cloexec(3)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python's own doing
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, job.mask)
    os.execvpe(job.command.argv[0], job.command.argv, dict(job.command.environment))


def _guarded(report: int, doing: str, duty: Callable[[], int]) -> NoReturn:
    """Do a child's duty and end the process with its status; a failure is written to `report`."""
    status = _STAGE_FAILED
    try:
        status = duty()
    except HostChangedError as changed:
        _tell(report, doing, 0, b"", changed.changes)
    except OSError as error:
        name = error.filename if error.filename is not None else b""
        _tell(report, doing, error.errno or 0, os.fsencode(name), [])
    except BaseException as error:  # noqa: BLE001 - nothing may fall through into the caller's code
        _tell(report, doing, 0, repr(error).encode(), [])
    finally:
        os._exit(status)


def _tell(report: int, doing: str, number: int, name: bytes, changes: list[tuple[bytes, str]]) -> None:
    message = [doing, number, name.hex(), [(path.hex(), found) for path, found in changes]]
    data = json.dumps(message).encode()
    while data:
        data = data[os.write(report, data) :]


def _failure(message: bytes) -> StageError:
    doing, number, name, changes = json.loads(message)
    found = [(bytes.fromhex(path), what) for path, what in changes]
    return StageError(doing, number, bytes.fromhex(name), found)


def _only_standard_descriptors() -> None:
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _bring_loopback_up() -> None:
    """Set IFF_UP on `lo`, which a new network namespace has down; netdevice(7)."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    import fcntl  # only where the network is off

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(anything, siocgifflags, request))[1]
        fcntl.ioctl(anything, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))
