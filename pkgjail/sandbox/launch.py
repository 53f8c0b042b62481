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

import contextlib
import errno
import os
import signal
import stat

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.init import run_init
from pkgjail.sandbox.job import (
    SETUP_FAILED,
    Job,
    SetupError,
    close_descriptors,
    fork,
    has_other_end,
    ignore_closed_pipe,
    make_pipe,
    run_child,
)
from pkgjail.sandbox.signals import follow_stops, relaying, wait

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn

    from pkgjail.sandbox.id_maps import IdMaps
    from pkgjail.sandbox.job import Command, Streams
    from pkgjail.sandbox.limits import EnforcedLimits, Limits
    from pkgjail.sandbox.observation import Observation
    from pkgjail.sandbox.rootfs import Program

_KILLED = 128 + 9


def run(  # noqa: PLR0913 - all but two by keyword
    program: Program,
    command: Command,
    *,
    limits: Limits | None = None,
    during_setup: Callable[[], None] | None = None,
    observation: Observation | None = None,
    streams: Streams | None = None,
) -> int:
    """Run `command` in the jail that `program` describes and wait for its end.

    Args:
        program: the plan, as `pkgjail.sandbox.steps.assemble` returns it.
        command: the command.
        limits: what the jail may use at most: memory in bytes, processors, processes and threads; each
            is None for no limit.
        during_setup: called in this process while the jail is being built. The command starts after it
            returns. If it raises, the command does not start, and the error is raised to the caller.
        observation: a process that sees the calls of the jail's processes; its result is then there
            (`Observation.result`).
        streams: descriptors 0 to 2 of the command; None for this process's own.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        SetupError: the jail could not be set up, the command could not be started, the limits could not be
            enforced, or the jail reached its memory limit. Nothing of the jail is left.
        KeyboardInterrupt: a second SIGINT came, and the jail was killed.

    """
    _refuse_directory_descriptors(range(3) if streams is None else streams.standard)
    job = Job(program, command, observation, streams)
    if limits is None:
        return _run(job, during_setup)
    from pkgjail.sandbox.limits import LimitError, enforced  # imported only if needed: it takes 3 ms

    try:
        # Init has a second thread if it answers calls with ids.
        has_thread = observation is None and job.ids is not None
        with enforced(limits, own_processes=3 if has_thread else 2) as job.limits:
            enforcement = job.limits
            status = _run(job, during_setup)
            if status == _KILLED and enforcement.ran_out_of_memory():
                raise SetupError("memory", 0, b"", [])
            return status
    except LimitError as error:
        raise SetupError("limit", 0, str(error).encode("utf-8", "surrogateescape"), []) from None


def try_out(program: Program) -> None:
    """Set up the jail that `program` describes, up to the start of a command, and end it.

    Raises:
        SetupError: as `run`.

    """
    with Job(program, ((), b"/", (), False)) as job:
        child = _start_init(job)
        job.close_init_ends()
        job.forbid_start()
        with relaying(child, job.mask, insistent=True) as relay:
            wait(child)
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the jail")
        job.raise_failure()


def _run(job: Job, during_setup: Callable[[], None] | None) -> int:
    with job:
        with _observing(job) as watch, contextlib.ExitStack() as serving:
            child = _start_init(job)
            job.close_init_ends()
            watch(child)
            with relaying(child, job.mask, insistent=True) as relay:
                try:
                    if during_setup is not None:
                        during_setup()
                    serving.enter_context(_served(job, child))
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


@contextlib.contextmanager
def _served(job: Job, child: int) -> Iterator[None]:
    """Serve the streams of a command, if they are not the caller's, from its start to the end of the jail."""
    if job.streams is None:
        yield
        return
    job.streams.begin(child, monitored=job.monitored)
    try:
        yield
    finally:
        job.streams.end()


@contextlib.contextmanager
def _observing(job: Job) -> Iterator[Callable[[int], None]]:
    """Finish the observation of a jail, if it has one, when the jail has ended.

    The function that it gives starts the watch over it.
    """
    observation = job.observation
    if observation is None:
        yield lambda _: None
        return
    try:
        yield observation.watch
    finally:
        fault = observation.finish()
        if fault:
            raise SetupError("audit", 0, fault.encode("utf-8", "surrogateescape"), [])


def _refuse_directory_descriptors(descriptors: Iterable[int]) -> None:
    """Refuse a directory as descriptor 0, 1 or 2: by `..` the command could leave the jail from there."""
    for number in descriptors:
        try:
            found = os.fstat(number)
        except OSError:  # closed
            continue
        if stat.S_ISDIR(found.st_mode):
            raise SetupError("inherit", errno.EISDIR, b"descriptor %d" % number, [])


def _start_init(job: Job) -> int:
    """Start init, or a monitor that starts it, and return the process to wait for.

    In a process with threads, a child can wait forever for a lock that another thread holds (fork(2),
    NOTES). os.fork() takes care of this, clone(2) does not. Some containers also forbid clone3(2). Limits
    need a monitor, because they must be in force before init starts.
    """
    mapping = None if job.maps is None or not job.maps.outside else _Mapping(job.maps)
    child = _start_namespaces(job, mapping)
    if mapping is not None:
        try:
            mapping.write(child)
        except OSError as error:
            wait(child)
            name = os.fsencode(error.filename or b"")
            raise SetupError("unshare", error.errno or 0, name, []) from None
    return child


def _start_namespaces(job: Job, mapping: _Mapping | None) -> int:
    if job.limits is not None or len(os.listdir("/proc/self/task")) > 1:
        return _fork_monitor(job, mapping)
    try:
        child = sc.clone(_namespaces(job))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return _fork_monitor(job, mapping)
        raise SetupError("unshare", error.errno or 0, b"clone3", []) from None
    if child == 0:
        run_child(job.report, "unshare", lambda: _become_init(job, mapping))
    return child


def _fork_monitor(job: Job, mapping: _Mapping | None) -> int:
    job.monitored = True
    return fork(job, "unshare", lambda: _monitor(job, mapping))


class _Mapping:
    """Two pipes for maps that a process outside writes: the child asks when it is in its new namespace."""

    def __init__(self, maps: IdMaps) -> None:
        self._maps = maps
        self._request, self._answer = make_pipe(), make_pipe()

    def write(self, child: int) -> None:
        """Outside: write the maps of `child` when it asks. Raises `OSError`; then the child ends."""
        os.close(self._request[1])
        os.close(self._answer[0])
        try:
            if os.read(self._request[0], 1):
                answer = self._write_maps(child)
                with ignore_closed_pipe():
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
            os._exit(SETUP_FAILED)
        if answer == b"-":
            self._maps.fall_back()
        os.close(self._request[1])
        os.close(self._answer[0])


def _namespaces(job: Job) -> int:
    flags = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWUTS
    flags |= sc.CLONE_NEWUSER if job.user_namespace else 0
    share_ipc = job.program[4]
    return flags | (0 if share_ipc else sc.CLONE_NEWIPC) | (0 if job.network else sc.CLONE_NEWNET)


def _become_init(job: Job, mapping: _Mapping | None) -> NoReturn:
    """In the cloned child, which is in new namespaces: become init.

    `wait_for_start` notices if the caller died before PR_SET_PDEATHSIG was set.
    """
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    job.take_streams()
    _map_ids(job, mapping)
    run_child(job.report, "build", lambda: run_init(job))


def _map_ids(job: Job, mapping: _Mapping | None) -> None:
    """Map ids into this new user namespace (`pkgjail.sandbox.id_maps`), if it is one."""
    if mapping is not None:
        mapping.wait()
    if job.maps is not None:
        job.maps.write_inside()
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def _monitor(job: Job, mapping: _Mapping | None) -> int:
    """In the monitor: enter new namespaces and the limits, start init, and return its exit status."""
    parent = os.getppid()
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return SETUP_FAILED
    job.forbid_start()
    job.take_streams()
    os.setsid()  # as in run_init
    sc.unshare(_namespaces(job))
    _map_ids(job, mapping)
    if job.limits is not None:
        _enter_limits(job.limits)
    alive_read, alive_write = make_pipe()
    init = os.fork()
    if init == 0:
        os.close(alive_write)
        run_child(job.report, "build", lambda: _init_of_monitor(job, alive_read))
    close_descriptors(alive_write)
    with relaying(init, job.mask):
        return wait(init)


def _enter_limits(limits: EnforcedLimits) -> None:
    try:
        limits.enter()
    except OSError as error:
        why = b"%s: %s" % (os.fsencode(error.filename or b""), os.strerror(error.errno or 0).encode())
        raise SetupError("limit", 0, why, []) from None


def _init_of_monitor(job: Job, alive: int) -> int:
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not has_other_end(alive):  # the monitor died before the line above
        return SETUP_FAILED
    return run_init(job)
