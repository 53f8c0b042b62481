"""The namespace stage: run one command in the jail that a program describes, without root.

Three processes, each with one duty:

    caller ── clones ──> init      in new user, mount, PID, IPC, UTS (and network) namespaces: PID 1
                          |        builds the root, gives up every privilege, reaps
                          └──> the command

A caller with threads cannot clone safely, and with limits the first process must come under them: it
forks a keeper, which enters the namespaces, then the limits, and forks init. Caller and keeper relay
signals and the exit status; init gives them to the command's process group, and says when that was
stopped, for the caller to stop too. Each process dies with its parent (PR_SET_PDEATHSIG), and when init
ends the kernel kills whatever else runs in the jail.
See user_namespaces(7), pid_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import mmap
import os
import signal
import stat

from pkgjail.sandbox import seccomp
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.proc_links import refuse_links_of_proc
from pkgjail.sandbox.pseudo_filesystems import write_setting
from pkgjail.sandbox.rootfs import HostChangedError, enter_new_root
from pkgjail.sandbox.signals import RELAYED, follow_stops, relaying, reset_handlers, wait

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import NoReturn

    from pkgjail.sandbox.limits import EnforcedLimits, Limits
    from pkgjail.sandbox.rootfs import Change, Program
    from pkgjail.sandbox.signals import Relay

    # As `pkgjail.sandbox.steps.Command` has it: argv, working directory, environment, terminal.
    Command = tuple[tuple[str, ...], bytes, tuple[tuple[str, str], ...], bool]

# What env(1), timeout(1) and the container runtimes end with when the command cannot be started.
CANNOT_EXECUTE = 126
NOT_FOUND = 127
_STAGE_FAILED = 125
_KILLED = 128 + 9
_REPORT_SIZE = 16 << 20  # bytes; enough for some 100,000 changed files, and used only if written to
_FIRST_OTHER = 3  # descriptor that the command does not get
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
# What Python ignores, and the command shall not.
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)


class StageError(Exception):
    """The jail could not be set up or the command not started.

    `doing` says what was tried: "unshare", "build", "execute", "limit" (`name` is why it cannot be)
    or "memory" (the jail was killed, having reached its limit). `errno` is 0 where no system call
    failed; `name` is the path or call at fault; `changes` are as of `HostChangedError`.
    """

    def __init__(self, doing: str, number: int, name: bytes, changes: list[Change]) -> None:
        super().__init__(doing, number, name, changes)
        self.doing = doing
        self.errno = number
        self.name = name
        self.changes = changes

    def __str__(self) -> str:
        name = self.name.decode("utf-8", "backslashreplace")
        return f"{self.doing} {name}: {os.strerror(self.errno) if self.errno else 'failed'}"


def run(
    program: Program,
    command: Command,
    *,
    limits: Limits | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Run `command` in the jail that `program` describes and wait for its end.

    Args:
        program: the plan, as `pkgjail.sandbox.steps.assemble` gives it.
        command: what to run.
        limits: what the jail may use at most: memory in bytes, processors, processes and threads, each
            None for as much as there is.
        meanwhile: done by the caller while the jail is being built. The command starts when it has
            returned; if it raises, the command does not start and the error goes to the caller.

    Returns:
        The command's exit status, or 128 + n when signal n ended it.

    Raises:
        StageError: the jail could not be set up, the command not be started, or the limits not be
            held, or the jail reached that of memory; nothing of the jail is left.
        KeyboardInterrupt: a second SIGINT came, and the jail was killed.

    """
    _refuse_directories()
    if limits is None:
        return _run(_Job(program, command), meanwhile)
    from pkgjail.sandbox.limits import LimitError, enforced  # only where they are asked for: 3 ms

    try:
        with enforced(limits) as enforcement:
            status = _run(_Job(program, command, enforcement), meanwhile)
            if status == _KILLED and enforcement.ran_out_of_memory():
                raise StageError("memory", 0, b"", [])
            return status
    except LimitError as error:
        raise StageError("limit", 0, str(error).encode("utf-8", "surrogateescape"), []) from None


def _run(job: _Job, meanwhile: Callable[[], None] | None) -> int:
    with job:
        child = _begin(job)
        job.left_behind()
        with relaying(child, job.mask, insistent=True) as relay:
            try:
                if meanwhile is not None:
                    meanwhile()
                job.let_go()
                job.relay_terminal(relay)
                if relay.active:
                    follow_stops(child, job.stops, relay)
            except BaseException:
                job.hold()
                raise
            finally:
                status = wait(child)
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the jail")
        job.raise_failure()
    return status


class _Job:
    """What the forked processes work from, and the ways between them.

    `report` is memory that all of them share: no descriptor that the command could see at init. Init
    reads a byte from `go` before it starts the command; its other end is open as long as the caller lives.
    Init tells by `stops` which signal stopped the command.
    """

    def __init__(self, program: Program, command: Command, limits: EnforcedLimits | None = None) -> None:
        self.program = program
        self.argv, self.cwd, self.environment, self.terminal = command
        self.limits = limits
        self.network = program[2]
        self.channel: socket.socket | None = None

    def __enter__(self) -> _Job:  # noqa: PYI034 - typing is slow to import
        self.report = mmap.mmap(-1, _REPORT_SIZE)
        self.go, self._go_write = _pipe()
        self.stops, self.stops_write = _pipe()
        self._ours: socket.socket | None = None
        if self.terminal:
            import socket

            # Now, for the jail's processes have no modules to import from later.
            from pkgjail.sandbox import terminal

            self.relay = terminal.relay
            self.open_terminal = terminal.open_terminal
            self.adopt = terminal.adopt
            self._ours, self.channel = socket.socketpair()
        # Signals wait until somebody is there to relay them.
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
        return self

    def __exit__(self, *_: object) -> None:
        self.hold()
        self.report.close()
        os.close(self.stops)
        if self._ours is not None:
            self._ours.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def left_behind(self) -> None:
        """The caller closes what is the jail's."""
        os.close(self.go)
        os.close(self.stops_write)
        if self.channel is not None:
            self.channel.close()

    def let_go(self) -> None:
        """The caller: the command may start."""
        with _unless_gone():
            os.write(self._go_write, b".")

    def hold(self) -> None:
        """The caller: the command may not start, if it has not."""
        if self._go_write >= 0:
            os.close(self._go_write)
            self._go_write = -1

    def wait_for_go(self) -> bool:
        """Init: whether the command may start."""
        self.hold()  # or this end would keep the pipe open
        return bool(os.read(self.go, 1)) and _is_open_elsewhere(self.go)

    def take_stops(self) -> None:
        """Init: have the way to tell of stops as standard input, which nobody else needs any more.

        So root's command, which may list init's descriptors, though not use them, sees no further one.
        """
        os.dup2(self.stops_write, 0)
        os.set_blocking(0, False)  # a caller that is stopped reads nothing

    def tell_stop(self, number: int) -> None:
        """Init: the command was stopped by this signal."""
        with _unless_gone():
            os.write(0, bytes([number]))

    def relay_terminal(self, relay: Relay) -> None:
        """The caller: copy between its terminal and the jail's, where there is one, to its end."""
        if self._ours is not None:
            self.relay(self._ours, self.stops, relay)

    def raise_failure(self) -> None:
        """The caller: raise what a process of the jail reported, if one did."""
        if self.report[0]:
            raise StageError(*marshal.loads(self.report))  # noqa: S302 - written by `_tell`


class _unless_gone:  # noqa: N801 - used as contextlib.suppress is
    """Nobody reads the pipe any more, since its reader failed, which raises its own error; or it is full."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind in (BrokenPipeError, BlockingIOError)


def _pipe() -> tuple[int, int]:
    """As os.pipe(), but never one of the descriptors that the command gets, were they closed."""
    reading, writing = os.pipe()
    if reading >= _FIRST_OTHER and writing >= _FIRST_OTHER:
        return reading, writing
    import fcntl

    ends = (reading, writing)
    lifted = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_OTHER) for end in ends]
    for end in ends:
        os.close(end)
    return lifted[0], lifted[1]


def _refuse_directories() -> None:
    """The command inherits descriptors 0 to 2; from a directory it could walk '..' out of the jail."""
    for number in range(3):
        try:
            found = os.fstat(number)
        except OSError:  # closed
            continue
        if stat.S_ISDIR(found.st_mode):
            raise StageError("inherit", errno.EISDIR, b"descriptor %d" % number, [])


def _fork(job: _Job, doing: str, duty: Callable[[], int]) -> int:
    """Fork a child that does `duty` and ends with its status; a failure is written to the report."""
    child = os.fork()
    if child == 0:
        _guarded(job.report, doing, duty)
    return child


def _begin(job: _Job) -> int:
    """Start what becomes the jail; returns the process to wait for.

    A child of a process with threads may wait for ever for a lock that one of them held (fork(2),
    NOTES), which os.fork() takes care of and clone(2) does not. Nor do all containers let clone3(2)
    through. With limits, a keeper comes under them before init is there.
    """
    if job.limits is not None or len(os.listdir("/proc/self/task")) > 1:
        return _fork(job, "unshare", lambda: _keeper(job))
    user, group = os.geteuid(), os.getegid()
    try:
        child = sc.clone(_namespaces(job))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return _fork(job, "unshare", lambda: _keeper(job))
        raise StageError("unshare", error.errno or 0, b"clone3", []) from None
    if child == 0:
        _guarded(job.report, "unshare", lambda: _become_init(job, user, group))
    return child


def _namespaces(job: _Job) -> int:
    flags = sc.CLONE_NEWUSER | sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
    return flags | (0 if job.network else sc.CLONE_NEWNET)


def _become_init(job: _Job, user: int, group: int) -> NoReturn:
    """The caller's child, in new namespaces already. Whether the caller lives is seen in `wait_for_go`."""
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    _map_ids(user, group)
    _guarded(job.report, "build", lambda: _init(job))


def _map_ids(user: int, group: int) -> None:
    """Have one user and one group in this user namespace, the same as outside; user_namespaces(7)."""
    write_setting(b"/proc/self/setgroups", b"deny")
    write_setting(b"/proc/self/uid_map", b"%d %d 1" % (user, user))
    write_setting(b"/proc/self/gid_map", b"%d %d 1" % (group, group))
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def _keeper(job: _Job) -> int:
    """Enter new namespaces, start init in them, and end as it ends."""
    parent = os.getppid()
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return _STAGE_FAILED
    job.hold()
    os.setsid()  # as in _init
    user, group = os.geteuid(), os.getegid()
    sc.unshare(_namespaces(job))
    _map_ids(user, group)
    if job.limits is not None:
        _come_under(job.limits)
    alive_read, alive_write = _pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        _guarded(job.report, "build", lambda: _init_of_keeper(job, alive_read))
    _only_standard_descriptors(alive_write)
    with relaying(init, job.mask):
        return wait(init)


def _come_under(limits: EnforcedLimits) -> None:
    try:
        limits.enter()
    except OSError as error:
        why = b"%s: %s" % (os.fsencode(error.filename or b""), os.strerror(error.errno or 0).encode())
        raise StageError("limit", 0, why, []) from None


def _init_of_keeper(job: _Job, alive: int) -> int:
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not _is_open_elsewhere(alive):  # the keeper died before the line above
        return _STAGE_FAILED
    return _init(job)


def _is_open_elsewhere(pipe: int) -> bool:
    """Whether anybody has the other end of this empty pipe; see pipe(7)."""
    os.set_blocking(pipe, False)
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return True


def _init(job: _Job) -> int:
    """PID 1 of the jail: build the root, give up all privilege, start the command, reap."""
    os.setsid()  # signals from the terminal reach the caller alone, which relays them
    _hide_command_line()
    reset_handlers()
    os.umask(0o022)
    sc.sethostname(job.program[3].encode())
    if not job.network:
        _bring_loopback_up()
    enter_new_root(job.program)
    sc.join_new_session_keyring()
    _give_up_privileges()
    seccomp.install(network=job.network)
    if not job.wait_for_go():
        return _STAGE_FAILED
    child = _start(job)
    job.take_stops()
    _only_standard_descriptors()
    with relaying(child, job.mask, to_group=True):
        return wait(child, reap_all=True, stopped=job.tell_stop)


def _hide_command_line() -> None:
    """Overwrite this process's arguments, which the jail can read in /proc/1/cmdline.

    proc_pid_stat(5): arg_start and arg_end are fields 48 and 49, of which the first two are the
    process id and a name in parentheses that may hold anything. The last byte stays 0: else the kernel
    shows what lies behind it, which is the first of the caller's variables (fs/proc/base.c).
    """
    with open("/proc/self/stat", "rb") as record:
        fields = record.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    size = max(end - start, 0)
    sc.overwrite(start, b"pkgjail-init"[: max(size - 1, 0)].ljust(size, b"\0"))


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


def _start(job: _Job) -> int:
    """Start the command, as the leader of a process group, with nothing inherited but descriptors 0 to 2.

    The session is init's. The caller's terminal is not its controlling terminal, so no TIOCSTI into that,
    and the command, which does not lead the session, cannot make it so. Yet init can continue
    what is stopped, so the group is no orphan, which could not be stopped by keys (setpgid(2)).
    With a terminal of the jail's it takes a child that comes to its foreground; else posix_spawn(3) does
    all at once.
    """
    try:
        _change_directory(job.cwd)
        if job.channel is not None:
            return _start_at(job, job.open_terminal(job.channel))
        _only_standard_descriptors(job.stops_write)
        return _along_path(job, lambda place: _spawn(job, place))
    except OSError as error:
        raise StageError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
    except ValueError as error:  # NUL in a word, say
        raise StageError("execute", 0, repr(error).encode(), []) from None


def _change_directory(path: bytes) -> None:
    """As chdir(2), but not by the links of proc(5), which lead to whatever a process holds open."""
    directory = sc.openat2(sc.AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, sc.RESOLVE_NO_MAGICLINKS)
    os.fchdir(directory)
    os.close(directory)


def _along_path(job: _Job, start: Callable[[str], int]) -> int:
    """Return what `start` gives at the first place where it works, along the PATH of the environment inside.

    Raises:
        OSError: with the name that could not be executed.

    """
    name = job.argv[0]
    path = [""] if "/" in name else dict(job.environment).get("PATH", os.defpath).split(":")
    why: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    for place in path:
        try:
            refuse_links_of_proc(os.path.join(place, name))  # before a process is made, which costs more
            return start(os.path.join(place, name))
        except OSError as failure:  # noqa: PERF203 - few places
            if why.errno in _ABSENT:
                why = failure
    raise why


def _spawn(job: _Job, place: str) -> int:
    return os.posix_spawn(
        place, job.argv, dict(job.environment), setpgroup=0, setsigmask=job.mask, setsigdef=_PYTHONS_OWN
    )


def _start_at(job: _Job, terminal: int) -> int:
    sc.close_range(_FIRST_OTHER, cloexec=True)
    child = _fork(job, "execute", lambda: _execute_at(job, terminal))
    with contextlib.suppress(PermissionError):  # EACCES: the child has done it, and executed
        os.setpgid(child, child)
    return child


def _execute_at(job: _Job, terminal: int) -> NoReturn:
    """Become the command, in the foreground of a terminal of the jail's own."""
    job.adopt(terminal)
    for ignored in _PYTHONS_OWN:
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, job.mask)
    environment = dict(job.environment)
    _along_path(job, lambda place: os.execve(place, job.argv, environment))
    raise AssertionError  # not reached: it executes, or raises


def _guarded(report: mmap.mmap, doing: str, duty: Callable[[], int]) -> NoReturn:
    """Do a child's duty and end the process with its status; a failure is written to `report`."""
    status = _STAGE_FAILED
    try:
        status = duty()
    except StageError as failure:
        _tell(report, failure.doing, failure.errno, failure.name, failure.changes)
    except HostChangedError as changed:
        _tell(report, doing, 0, b"", changed.changes)
    except OSError as error:
        name = error.filename if error.filename is not None else b""
        _tell(report, doing, error.errno or 0, os.fsencode(name), [])
    except BaseException as error:  # noqa: BLE001 - nothing may fall through into the caller's code
        _tell(report, doing, 0, repr(error).encode(), [])
    finally:
        os._exit(status)


def _tell(report: mmap.mmap, doing: str, number: int, name: bytes, changes: list[Change]) -> None:
    data = marshal.dumps((doing, number, name, changes))
    while len(data) > len(report):
        changes = changes[: len(changes) // 2]
        data = marshal.dumps((doing, number, name, changes))
    report[: len(data)] = data


def _only_standard_descriptors(kept: int = 2) -> None:
    """Close all descriptors but 0 to 2, and `kept`.

    Not up to RLIMIT_NOFILE, as os.closerange() would be told to: what was opened before the limit was
    lowered lies above it.
    """
    if kept > _FIRST_OTHER:
        sc.close_range(_FIRST_OTHER, kept - 1)
    sc.close_range(max(kept + 1, _FIRST_OTHER))


def _bring_loopback_up() -> None:
    """Set IFF_UP on `lo`, which a new network namespace has down; netdevice(7)."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    import fcntl  # these only where the network is off
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(anything, siocgifflags, request))[1]
        fcntl.ioctl(anything, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))
