"""Run one command in the jail that a program describes, without root.

Three processes take part:

    caller ── clones ──> init      PID 1 of new user, mount, PID, IPC, UTS (and network) namespaces:
                          |        builds the root, gives up every privilege, reaps processes
                          └──> the command

A caller with threads cannot clone safely, and limits must be in force before init starts. In these cases
the caller forks a monitor, which enters the namespaces and the limits and forks init.

The caller and the monitor relay signals and the exit status. Init passes signals to the command's process
group and reports when the command is stopped, so that the caller stops too. Each process dies with its
parent (PR_SET_PDEATHSIG), and when init ends, the kernel kills all other processes of the jail.
See user_namespaces(7), pid_namespaces(7), capabilities(7).
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import marshal
import mmap
import os
import signal
import stat

from pkgjail.sandbox import seccomp
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.executables import find_fault
from pkgjail.sandbox.id_calls import answer_calls
from pkgjail.sandbox.id_maps import IdMaps
from pkgjail.sandbox.proc_links import refuse_links_of_proc
from pkgjail.sandbox.pseudo_filesystems import write_setting
from pkgjail.sandbox.rootfs import HostChangedError, enter_new_root
from pkgjail.sandbox.signals import RELAYED, follow_stops, relaying, reset_handlers, wait

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Literal, NoReturn

    from pkgjail.sandbox.executables import Fault
    from pkgjail.sandbox.limits import EnforcedLimits, Limits
    from pkgjail.sandbox.rootfs import Change, Program
    from pkgjail.sandbox.signals import Relay

    # What failed; "memory" is the limit that a jail reached.
    Doing = Literal["inherit", "unshare", "build", "execute", "limit", "memory"]
    # The fields of `pkgjail.sandbox.steps.Command`: argv, working directory, environment, terminal.
    Command = tuple[tuple[str, ...], bytes, tuple[tuple[str, str], ...], bool]

_SETUP_FAILED = 125
_KILLED = 128 + 9
_REPORT_SIZE = 16 << 20  # bytes: some 100,000 changed files; memory is used only as far as it is written to
_FIRST_UNINHERITED = 3  # the command inherits the descriptors below
# What root in a jail may do in its own user namespace: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
# CAP_KILL, CAP_SETGID and CAP_SETUID; see capabilities(7). None of them reaches a mount.
_ROOT_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7
_NOT_FOUND_ERRORS = (errno.ENOENT, errno.ENOTDIR)
# A file is missing, or cannot be executed.
_FAULTS_OF_FILES = (*_NOT_FOUND_ERRORS, errno.EACCES, errno.ENOEXEC, errno.ELIBBAD, errno.EISDIR)
# Python ignores these signals; the command must not.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class StageError(Exception):
    """The jail could not be set up, or the command could not be started.

    `doing` is what failed, or "memory" if the jail reached its limit and was killed. `errno` is 0 if no
    system call failed; `name` is the path or call at fault, for "limit" the reason; `changes` are those of
    `HostChangedError`; `fault` is what `find_fault` returns for a command.
    """

    def __init__(
        self,
        doing: Doing,
        number: int,
        name: bytes,
        changes: list[Change],
        fault: tuple[Fault, bytes] = ("", b""),
    ) -> None:
        super().__init__(doing, number, name, changes, fault)
        self.doing: Doing = doing
        self.errno = number
        self.name = name
        self.changes = changes
        self.fault: tuple[Fault, bytes] = fault

    def __str__(self) -> str:
        name = self.name.decode("utf-8", "backslashreplace")
        return f"{self.doing} {name}: {os.strerror(self.errno) if self.errno else 'failed'}"


def run(
    program: Program,
    command: Command,
    *,
    limits: Limits | None = None,
    during_setup: Callable[[], None] | None = None,
) -> int:
    """Run `command` in the jail that `program` describes and wait for its end.

    Args:
        program: the plan, as `pkgjail.sandbox.steps.assemble` returns it.
        command: the command.
        limits: what the jail may use at most: memory in bytes, processors, processes and threads; each
            is None for no limit.
        during_setup: called in this process while the jail is being built. The command starts after it
            returns. If it raises, the command does not start, and the error is raised to the caller.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        StageError: the jail could not be set up, the command could not be started, the limits could not be
            enforced, or the jail reached its memory limit. Nothing of the jail is left.
        KeyboardInterrupt: a second SIGINT came, and the jail was killed.

    """
    _refuse_directory_descriptors()
    if limits is None:
        return _run(_Job(program, command), during_setup)
    from pkgjail.sandbox.limits import LimitError, enforced  # imported only if needed: it takes 3 ms

    job = _Job(program, command)
    try:
        # Init has a second thread if it answers calls with ids.
        with enforced(limits, own_processes=2 if job.maps.ids is None else 3) as job.limits:
            enforcement = job.limits
            status = _run(job, during_setup)
            if status == _KILLED and enforcement.ran_out_of_memory():
                raise StageError("memory", 0, b"", [])
            return status
    except LimitError as error:
        raise StageError("limit", 0, str(error).encode("utf-8", "surrogateescape"), []) from None


def try_out(program: Program) -> None:
    """Set up the jail that `program` describes, up to the start of a command, and end it.

    Raises:
        StageError: as `run`.

    """
    with _Job(program, ((), b"/", (), False)) as job:
        child = _start_init(job)
        job.close_init_ends()
        job.forbid_start()
        with relaying(child, job.mask, insistent=True) as relay:
            wait(child)
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the jail")
        job.raise_failure()


def _run(job: _Job, during_setup: Callable[[], None] | None) -> int:
    with job:
        child = _start_init(job)
        job.close_init_ends()
        with relaying(child, job.mask, insistent=True) as relay:
            try:
                if during_setup is not None:
                    during_setup()
                job.allow_start()
                job.relay_terminal(relay)
                if relay.active:
                    follow_stops(child, job.stops, relay)
            except BaseException:
                job.forbid_start()
                raise
            finally:
                status = wait(child)
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the jail")
        job.raise_failure()
    return status


class _Job:
    """The data of one run, shared by the forked processes, and the channels between them.

    - `report`: shared memory, in which a process of the jail writes why it failed. It is no descriptor, which
      the command could see in init.
    - `start`: a pipe. Init reads a byte before it starts the command. The caller has the other end open as
      long as it lives.
    - `stops`: a pipe on which init reports the signals that stopped the command.
    - `listener`: a descriptor of init's, on which it answers calls with ids that the jail does not have.
    - `channel`: a socket on which init sends its terminal, if the command gets one.
    """

    def __init__(self, program: Program, command: Command) -> None:
        self.program = program
        self.argv, self.cwd, self.environment, self.terminal = command
        self.limits: EnforcedLimits | None = None
        self.network = program[2]
        self.as_root = program[1][:1] == (("MapRoot",),)
        self.maps = IdMaps(as_root=self.as_root)
        self.listener = -1
        self.namespaces: tuple[int, ...] = ()
        self.channel: socket.socket | None = None

    def __enter__(self) -> _Job:  # noqa: PYI034 - typing is slow to import
        self.report = mmap.mmap(-1, _REPORT_SIZE)
        self.start, self._start_write = _pipe()
        self.stops, self.stops_write = _pipe()
        self._own_channel: socket.socket | None = None
        if self.terminal:
            import socket

            # Import now: the jail's processes have no modules to import later.
            from pkgjail.sandbox import terminal

            self.relay = terminal.relay
            self.open_terminal = terminal.open_terminal
            self.enter_foreground = terminal.enter_foreground
            self._own_channel, self.channel = socket.socketpair()
        # Signals wait until `relaying` handles them.
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
        return self

    def __exit__(self, *_: object) -> None:
        self.forbid_start()
        self.report.close()
        os.close(self.stops)
        if self._own_channel is not None:
            self._own_channel.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def close_init_ends(self) -> None:
        """In the caller: close the descriptors that belong to the jail."""
        os.close(self.start)
        os.close(self.stops_write)
        if self.channel is not None:
            self.channel.close()

    def allow_start(self) -> None:
        """In the caller: let init start the command."""
        with _ignore_closed_pipe():
            os.write(self._start_write, b".")

    def forbid_start(self) -> None:
        """Close the writing end of `start`, so that the command does not start if it has not yet."""
        if self._start_write >= 0:
            os.close(self._start_write)
            self._start_write = -1

    def wait_for_start(self) -> bool:
        """In init: wait for the caller, and return whether the command may start."""
        self.forbid_start()  # otherwise init itself would have the other end open
        return bool(os.read(self.start, 1)) and _has_other_end(self.start)

    def move_stops_pipe(self) -> None:
        """In init: move `stops` to descriptor 0, which init no longer needs.

        A command of root's may list init's descriptors, though not use them. It sees no other than 0 to 2.
        """
        os.dup2(self.stops_write, 0)
        os.set_blocking(0, False)  # a stopped caller does not read

    def install_filter(self) -> None:
        """In init: install the filter of system calls."""
        self.listener = _moved_up(seccomp.install(network=self.network, ids=self.maps.ids))
        self.namespaces = (os.stat("/proc/self/ns/user").st_ino,)

    def answer_calls(self) -> None:
        """In init: answer calls with ids that the jail does not have, from another thread.

        The signals that have handlers are blocked, so that the main thread gets them. The descriptor becomes
        descriptor 1, which init no longer needs.
        """
        if self.listener >= 0:
            os.dup2(self.listener, 1)
            _thread.start_new_thread(answer_calls, (1, self.namespaces))

    def report_stop(self, number: int) -> None:
        """In init: report that this signal stopped the command."""
        with _ignore_closed_pipe():
            os.write(0, bytes([number]))

    def relay_terminal(self, relay: Relay) -> None:
        """In the caller: copy between its terminal and the jail's until that ends, if it has one."""
        if self._own_channel is not None:
            self.relay(self._own_channel, self.stops, relay)

    def raise_failure(self) -> None:
        """In the caller: raise the failure that a process of the jail reported, if any."""
        if self.report[0]:
            raise StageError(*marshal.loads(self.report))  # noqa: S302 - written by `_write_report`


class _ignore_closed_pipe:  # noqa: N801 - used as contextlib.suppress is
    """Ignore that a pipe is full or has no reader. A reader that failed reports that itself."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind in (BrokenPipeError, BlockingIOError)


def _pipe() -> tuple[int, int]:
    """Make a pipe that does not have descriptors 0 to 2, which the command gets, even if they were closed."""
    reading, writing = os.pipe()
    return _moved_up(reading), _moved_up(writing)


def _moved_up(descriptor: int) -> int:
    """Return a descriptor of the same file that is not 0 to 2, and close the given one if it is."""
    if not 0 <= descriptor < _FIRST_UNINHERITED:
        return descriptor
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_UNINHERITED)
    os.close(descriptor)
    return moved


def _refuse_directory_descriptors() -> None:
    """Refuse a directory as descriptor 0, 1 or 2: by `..` the command could leave the jail from there."""
    for number in range(3):
        try:
            found = os.fstat(number)
        except OSError:  # closed
            continue
        if stat.S_ISDIR(found.st_mode):
            raise StageError("inherit", errno.EISDIR, b"descriptor %d" % number, [])


def _fork(job: _Job, doing: Doing, duty: Callable[[], int]) -> int:
    """Fork a child that calls `duty` and exits with its result. A failure is written to the report."""
    try:
        child = os.fork()
    except OSError as error:  # EAGAIN: RLIMIT_NPROC
        raise StageError(doing, error.errno or 0, b"fork", []) from None
    if child == 0:
        _run_child(job.report, doing, duty)
    return child


def _start_init(job: _Job) -> int:
    """Start init, or a monitor that starts it, and return the process to wait for.

    In a process with threads, a child can wait forever for a lock that another thread holds (fork(2),
    NOTES). os.fork() takes care of this, clone(2) does not. Some containers also forbid clone3(2). Limits
    need a monitor, because they must be in force before init starts.
    """
    mapping = _Mapping(job.maps) if job.maps.outside else None
    child = _start_namespaces(job, mapping)
    if mapping is not None:
        try:
            mapping.write(child)
        except OSError as error:
            wait(child)
            name = os.fsencode(error.filename or b"")
            raise StageError("unshare", error.errno or 0, name, []) from None
    return child


def _start_namespaces(job: _Job, mapping: _Mapping | None) -> int:
    if job.limits is not None or len(os.listdir("/proc/self/task")) > 1:
        return _fork(job, "unshare", lambda: _monitor(job, mapping))
    try:
        child = sc.clone(_namespaces(job))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return _fork(job, "unshare", lambda: _monitor(job, mapping))
        raise StageError("unshare", error.errno or 0, b"clone3", []) from None
    if child == 0:
        _run_child(job.report, "unshare", lambda: _become_init(job, mapping))
    return child


class _Mapping:
    """Two pipes for maps that a process outside writes: the child asks when it is in its new namespace."""

    def __init__(self, maps: IdMaps) -> None:
        self._maps = maps
        self._request, self._answer = _pipe(), _pipe()

    def write(self, child: int) -> None:
        """Outside: write the maps of `child` when it asks. Raises `OSError`; then the child ends."""
        os.close(self._request[1])
        os.close(self._answer[0])
        try:
            if os.read(self._request[0], 1):
                answer = self._write_maps(child)
                with _ignore_closed_pipe():
                    os.write(self._answer[1], answer)
        finally:
            os.close(self._request[0])
            os.close(self._answer[1])

    def _write_maps(self, child: int) -> bytes:
        try:
            self._maps.write_outside(child)
        except OSError:
            if self._maps.as_root:
                raise
            return b"-"
        return b"+"

    def wait(self) -> None:
        """In the child: ask for the maps, and wait until they are written."""
        os.close(self._request[0])
        os.close(self._answer[1])
        os.write(self._request[1], b"?")
        answer = os.read(self._answer[0], 1)
        if not answer:
            os._exit(_SETUP_FAILED)
        if answer == b"-":
            self._maps.fall_back()
        os.close(self._request[1])
        os.close(self._answer[0])


def _namespaces(job: _Job) -> int:
    flags = sc.CLONE_NEWUSER | sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWUTS
    share_ipc = job.program[4]
    return flags | (0 if share_ipc else sc.CLONE_NEWIPC) | (0 if job.network else sc.CLONE_NEWNET)


def _become_init(job: _Job, mapping: _Mapping | None) -> NoReturn:
    """In the cloned child, which is in new namespaces: become init.

    `wait_for_start` notices if the caller died before PR_SET_PDEATHSIG was set.
    """
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    _map_ids(job, mapping)
    _run_child(job.report, "build", lambda: _init(job))


def _map_ids(job: _Job, mapping: _Mapping | None) -> None:
    """Map ids into this new user namespace (`pkgjail.sandbox.id_maps`)."""
    if mapping is not None:
        mapping.wait()
    job.maps.write_inside()
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def _monitor(job: _Job, mapping: _Mapping | None) -> int:
    """In the monitor: enter new namespaces and the limits, start init, and return its exit status."""
    parent = os.getppid()
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return _SETUP_FAILED
    job.forbid_start()
    os.setsid()  # as in _init
    sc.unshare(_namespaces(job))
    _map_ids(job, mapping)
    if job.limits is not None:
        _enter_limits(job.limits)
    alive_read, alive_write = _pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        _run_child(job.report, "build", lambda: _init_of_monitor(job, alive_read))
    _close_descriptors(alive_write)
    with relaying(init, job.mask):
        return wait(init)


def _enter_limits(limits: EnforcedLimits) -> None:
    try:
        limits.enter()
    except OSError as error:
        why = b"%s: %s" % (os.fsencode(error.filename or b""), os.strerror(error.errno or 0).encode())
        raise StageError("limit", 0, why, []) from None


def _init_of_monitor(job: _Job, alive: int) -> int:
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not _has_other_end(alive):  # the monitor died before the line above
        return _SETUP_FAILED
    return _init(job)


def _has_other_end(pipe: int) -> bool:
    """Check whether any process has the other end of this empty pipe open; see pipe(7)."""
    os.set_blocking(pipe, False)
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return True


def _init(job: _Job) -> int:
    """In init, PID 1 of the jail: build the root, give up every privilege, start the command, reap."""
    os.setsid()  # the terminal then sends signals only to the caller, which relays them
    _hide_command_line()
    reset_handlers()
    callers_umask = os.umask(0o022)  # for what the jail itself makes
    _set_host_name(os.fsencode(job.program[3]))
    if not job.network:
        _bring_loopback_up()
    if job.program[4]:
        _give_own_process_id()
    enter_new_root(job.program)
    sc.join_new_session_keyring()
    if job.as_root:
        from_root = _RootCommand(job, callers_umask)
        _give_up_privileges()
        if not job.wait_for_start():
            return _SETUP_FAILED
        child = from_root.start()
    else:
        _give_up_privileges()
        job.install_filter()
        if not job.wait_for_start():
            return _SETUP_FAILED
        os.umask(callers_umask)
        child = _start_command(job)
    job.move_stops_pipe()
    job.answer_calls()
    _close_descriptors()
    with relaying(child, job.mask, to_group=True):
        return wait(child, reap_all=True, stopped=job.report_stop)


def _set_host_name(name: bytes) -> None:
    """Set the host name, unless it is that already: a container's seccomp filter may forbid the call.

    There, a prepared jail with the container's former name fails here, and is prepared anew.
    """
    if name != os.fsencode(os.uname().nodename):
        sc.sethostname(name)


def _give_own_process_id() -> None:
    """Give the next process, which is the command, the process id that this one has outside of the jail.

    Programs that share memory tell each other apart by their process ids (Open MPI's opal_shmem). In PID
    namespaces of their own, all commands would have the same one. See ns_last_pid in proc_sys_kernel(5); a
    kernel without it (CONFIG_CHECKPOINT_RESTORE) chooses as always.
    """
    last = int(os.readlink("/proc/self")) - 1  # this /proc is still the host's
    with contextlib.suppress(OSError):
        write_setting(b"/proc/sys/kernel/ns_last_pid", b"%d" % last)


def _hide_command_line() -> None:
    """Overwrite this process's arguments, which the jail can read in /proc/1/cmdline.

    In proc_pid_stat(5), arg_start and arg_end are fields 48 and 49. The first two fields are the process id
    and a name in parentheses that may contain any characters. The last byte must stay 0: otherwise the kernel
    also shows what follows, which is the first of the caller's variables (fs/proc/base.c).
    """
    with open("/proc/self/stat", "rb") as record:
        fields = record.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    size = max(end - start, 0)
    sc.overwrite(start, b"pkgjail-init"[: max(size - 1, 0)].ljust(size, b"\0"))


def _give_up_privileges() -> None:
    """Give up all capabilities: with one, a process could unmount a layer and see what is below."""
    sc.prctl(sc.PR_SET_SECUREBITS, sc.SECUREBITS_LOCKED_DOWN)
    sc.prctl(sc.PR_CAP_AMBIENT, sc.PR_CAP_AMBIENT_CLEAR_ALL)
    _drop_from_bounding_set()
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    sc.capset()
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def _drop_from_bounding_set(spared: int = 0) -> None:
    """Drop all capabilities, except those whose bits are set, from what executed programs can get."""
    capability = 0
    try:
        while True:
            if not spared >> capability & 1:
                sc.prctl(sc.PR_CAPBSET_DROP, capability)
            capability += 1
    except OSError as error:
        if error.errno != errno.EINVAL or capability == 0:  # EINVAL: past the last capability
            raise


def _start_command(job: _Job) -> int:
    """Start the command as the leader of a process group. It inherits only descriptors 0 to 2.

    It is in init's session, which the caller's terminal does not control, so it cannot push input into that
    terminal (TIOCSTI). It does not lead the session, so it cannot make that terminal the controlling one.
    Since init is in the same session, the process group is not orphaned, and keys can stop it (setpgid(2)).

    With a terminal of the jail's own, the command needs a forked child that enters the foreground. Otherwise
    posix_spawn(3) does everything.
    """
    try:
        _change_directory(job.cwd)
        if job.channel is not None:
            return _start_on_terminal(job, job.open_terminal(job.channel))
        _close_descriptors(job.stops_write, job.listener)
        return _search_path(job, lambda path: _spawn(job, path))
    except OSError as error:
        raise StageError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
    except ValueError as error:  # for example, an argument contains NUL
        raise StageError("execute", 0, repr(error).encode(), []) from None


class _RootCommand:
    """The process of a command that is root in the jail, which has a user namespace of its own in init's.

    There it has the capabilities that it takes to change owners and users. It has none in init's namespace,
    to which the mounts, processes and names of the jail belong. Init must map the ids before it gives up its
    privileges, so the process is started before, and waits.
    """

    def __init__(self, job: _Job, umask: int) -> None:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
        job.install_filter()
        terminal = -1 if job.channel is None else job.open_terminal(job.channel)
        sc.close_range(_FIRST_UNINHERITED, cloexec=True)
        ready, ready_write = _pipe()
        go, self._go = _pipe()
        self._child = _fork(job, "build", lambda: self._wait(job, umask, terminal, ready_write, go))
        os.close(ready_write)
        os.close(go)
        if not os.read(ready, 1):  # it has reported why
            os._exit(_SETUP_FAILED)
        os.close(ready)
        job.namespaces += (os.stat(f"/proc/{self._child}/ns/user").st_ino,)
        job.maps.write_nested(self._child)

    def start(self) -> int:
        """In init: let the process become the command, and return it."""
        with contextlib.suppress(PermissionError):  # EACCES: it has executed the command
            os.setpgid(self._child, self._child)
        os.write(self._go, b".")
        return self._child

    def _wait(self, job: _Job, umask: int, terminal: int, ready: int, go: int) -> NoReturn:
        """In the process: enter the namespace, wait for init, keep few capabilities, become the command."""
        os.close(self._go)
        sc.unshare(sc.CLONE_NEWUSER)
        sc.prctl(sc.PR_SET_DUMPABLE, 1)  # so that init, and not only the host's root, may write the maps
        os.write(ready, b".")
        if not os.read(go, 1):
            os._exit(_SETUP_FAILED)
        sc.prctl(sc.PR_SET_DUMPABLE, 0)
        _keep_capabilities()
        os.umask(umask)
        try:
            _change_directory(job.cwd)
            _execute(job, terminal)
        except OSError as error:
            raise StageError("execute", error.errno or 0, os.fsencode(error.filename or b""), []) from None
        except ValueError as error:  # for example, an argument contains NUL
            raise StageError("execute", 0, repr(error).encode(), []) from None


def _keep_capabilities() -> None:
    """Give up all capabilities but those of `_ROOT_CAPABILITIES`, also for programs that it executes."""
    _drop_from_bounding_set(_ROOT_CAPABILITIES)
    sc.capset(_ROOT_CAPABILITIES)


def _change_directory(path: bytes) -> None:
    """Change the directory as chdir(2), but refuse links of proc(5): they lead to open files of a process."""
    directory = sc.openat2(sc.AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, sc.RESOLVE_NO_MAGICLINKS)
    os.fchdir(directory)
    os.close(directory)


def _search_path(job: _Job, start: Callable[[str], int]) -> int:
    """Call `start` with each path of the command along the PATH inside, until one can be executed.

    Returns:
        What `start` returned.

    Raises:
        StageError: none could be executed; it has the path, and what is wrong with the file.

    """
    name = job.argv[0]
    path = [""] if "/" in name else dict(job.environment).get("PATH", os.defpath).split(":")
    error: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    is_there = False  # ENOENT may be for an interpreter
    for file in (os.path.join(directory, name) for directory in path):
        try:
            refuse_links_of_proc(file)  # before making a process, which costs more
            return start(file)
        except OSError as failure:  # noqa: PERF203 - few directories
            if not is_there:
                error = failure
            is_there = is_there or failure.errno not in _NOT_FOUND_ERRORS or os.path.lexists(file)
    found = os.fsencode(error.filename or b"")
    fault = find_fault(found, error.errno) if error.errno in _FAULTS_OF_FILES else ("", b"")
    raise StageError("execute", error.errno or 0, found, [], fault)


def _spawn(job: _Job, path: str) -> int:
    return os.posix_spawn(
        path, job.argv, dict(job.environment), setpgroup=0, setsigmask=job.mask, setsigdef=_IGNORED_BY_PYTHON
    )


def _start_on_terminal(job: _Job, terminal: int) -> int:
    sc.close_range(_FIRST_UNINHERITED, cloexec=True)
    child = _fork(job, "execute", lambda: _execute(job, terminal))
    with contextlib.suppress(PermissionError):  # EACCES: the child did it, and has executed the command
        os.setpgid(child, child)
    return child


def _execute(job: _Job, terminal: int) -> NoReturn:
    """In the forked child: become the command, in the foreground of a terminal of the jail's own if any."""
    if terminal < 0:
        os.setpgid(0, 0)
    else:
        job.enter_foreground(terminal)
    for ignored in _IGNORED_BY_PYTHON:
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, job.mask)
    environment = dict(job.environment)
    _search_path(job, lambda path: os.execve(path, job.argv, environment))
    raise AssertionError  # not reached: execve(2) does not return


def _run_child(report: mmap.mmap, doing: Doing, duty: Callable[[], int]) -> NoReturn:
    """In a child: call `duty` and exit with its result. A failure is written to `report`."""
    status = _SETUP_FAILED
    try:
        status = duty()
    except StageError as failure:
        _write_report(report, failure.doing, failure.errno, failure.name, failure.changes, failure.fault)
    except HostChangedError as changed:
        _write_report(report, doing, 0, b"", changed.changes)
    except OSError as error:
        name = error.filename if error.filename is not None else b""
        _write_report(report, doing, error.errno or 0, os.fsencode(name), [])
    except BaseException as error:  # noqa: BLE001 - the child must never go on in the caller's code
        _write_report(report, doing, 0, repr(error).encode(), [])
    finally:
        os._exit(status)


def _write_report(  # noqa: PLR0913, PLR0917 - the fields of `StageError`
    report: mmap.mmap,
    doing: Doing,
    number: int,
    name: bytes,
    changes: list[Change],
    fault: tuple[Fault, bytes] = ("", b""),
) -> None:
    data = marshal.dumps((doing, number, name, changes, fault))
    while len(data) > len(report):
        changes = changes[: len(changes) // 2]
        data = marshal.dumps((doing, number, name, changes, fault))
    report[: len(data)] = data


def _close_descriptors(*spared: int) -> None:
    """Close all descriptors except 0 to 2 and `spared`.

    RLIMIT_NOFILE is no bound: descriptors opened before the limit was lowered can be above it.
    """
    first = _FIRST_UNINHERITED
    for number in sorted(spared):
        if number > first:
            sc.close_range(first, number - 1)
        first = max(number + 1, first)
    sc.close_range(first)


def _bring_loopback_up() -> None:
    """Set IFF_UP on `lo`, which is down in a new network namespace; netdevice(7)."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    import fcntl  # imported only if the network is off
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, siocgifflags, request))[1]
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))
