"""What the processes of one run share: the data, the channels between them, and the report of a failure."""

from __future__ import annotations

import _thread
import marshal
import mmap
import os
import signal

from pkgjail.sandbox import seccomp
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.id_calls import answer_calls
from pkgjail.sandbox.id_maps import IdMaps
from pkgjail.sandbox.rootfs import HostChangedError
from pkgjail.sandbox.signals import RELAYED

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Literal, NoReturn, Protocol

    from pkgjail.sandbox.executables import Fault
    from pkgjail.sandbox.id_calls import Ids
    from pkgjail.sandbox.limits import EnforcedLimits
    from pkgjail.sandbox.observation import Observation
    from pkgjail.sandbox.rootfs import Change, Program
    from pkgjail.sandbox.signals import Relay
    from pkgjail.sandbox.terminal import Terminal

    # What failed; "memory" is the limit that a jail reached, "audit" the process that sees its calls.
    Doing = Literal["inherit", "unshare", "build", "execute", "limit", "memory", "audit"]
    # The fields of `pkgjail.sandbox.steps.Command`: argv, working directory, environment, terminal.
    Command = tuple[tuple[str, ...], bytes, tuple[tuple[str, str], ...], Terminal]

    class Streams(Protocol):
        """What the command gets as descriptors 0 to 2, and who serves the other ends of pipes among them."""

        standard: tuple[int, int, int]
        """The descriptors; each is above 2."""

        def begin(self, child: int, *, monitored: bool) -> None:
            """In the caller: the command starts when this returns.

            `child` is init, or if `monitored`, the monitor, whose only child is init.
            """

        def end(self) -> None:
            """In the caller, after `begin`: all processes of the jail have ended."""


SETUP_FAILED = 125
FIRST_UNINHERITED = 3  # the command inherits the descriptors below
_REPORT_SIZE = 16 << 20  # bytes: some 100,000 changed files; memory is used only as far as it is written to


class SetupError(Exception):
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


class Job:
    """The data of one run, shared by the forked processes, and the channels between them.

    - `report`: shared memory, in which a process of the jail writes why it failed. It is no descriptor, which
      the command could see in init.
    - `start`: a pipe. Init reads a byte before it starts the command. The caller has the other end open as
      long as it lives.
    - `stops`: a pipe on which init reports the signals that stopped the command.
    - `listener`: a descriptor of init's, on which it answers calls with ids that the jail does not have.
    - `channel`: a socket on which init sends its terminal, if the command gets one.
    - `maps`: the ids of its user namespace; None if it has none of its own.
    - `observation`: if there is one, its process gets the listener, and answers calls with ids too.
    - `streams`: what the command gets as descriptors 0 to 2; None for the caller's.
    - `monitored`: in the caller, whether a monitor is between it and init.
    """

    def __init__(
        self,
        program: Program,
        command: Command,
        observation: Observation | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.program = program
        self.streams = streams
        self.observation = observation
        self.argv, self.cwd, self.environment, self.terminal = command
        self.limits: EnforcedLimits | None = None
        self.network = program[2]
        self.as_root = program[1][:1] == (("MapRoot",),)
        self.user_namespace = program[1][:1] != (("NoUserNamespace",),)
        self.maps = IdMaps(as_root=self.as_root) if self.user_namespace else None
        self.monitored = False
        self.listener = -1
        self._has_thread = False
        self._may_answer = _thread.allocate_lock()
        self._may_answer.acquire()
        self.namespaces: tuple[int, ...] = ()
        self.channel: socket.socket | None = None

    def __enter__(self) -> Job:  # noqa: PYI034 - typing is slow to import
        self.report = mmap.mmap(-1, _REPORT_SIZE)
        self.start, self._start_write = make_pipe()
        self.stops, self.stops_write = make_pipe()
        self._own_channel: socket.socket | None = None
        if self.terminal:
            import socket

            # Import now: the jail's processes have no modules to import later.
            from pkgjail.sandbox import terminal

            self.relay = terminal.relay if self.terminal is True else self.terminal
            self.open_terminal = terminal.open_terminal
            self.enter_foreground = terminal.enter_foreground
            self._own_channel, self.channel = socket.socketpair()
        # Signals wait until `relaying` handles them.
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
        if self.observation is not None:
            self.observation.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.forbid_start()
        self.report.close()
        os.close(self.stops)
        if self._own_channel is not None:
            self._own_channel.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    @property
    def ids(self) -> Ids | None:
        """Return the ids that the jail has; None if these are all that the caller has."""
        return None if self.maps is None else self.maps.ids

    def take_streams(self) -> None:
        """In the first process of the jail: make the command's streams descriptors 0 to 2."""
        if self.streams is not None:
            for number, stream in enumerate(self.streams.standard):
                os.dup2(stream, number)

    def close_init_ends(self) -> None:
        """In the caller: close the descriptors that belong to the jail."""
        os.close(self.start)
        os.close(self.stops_write)
        if self.channel is not None:
            self.channel.close()
        if self.observation is not None:
            self.observation.close_inside()

    def allow_start(self) -> None:
        """In the caller: let init start the command."""
        with ignore_closed_pipe():
            os.write(self._start_write, b".")

    def forbid_start(self) -> None:
        """Close the writing end of `start`, so that the command does not start if it has not yet."""
        if self._start_write >= 0:
            os.close(self._start_write)
            self._start_write = -1

    def wait_for_start(self) -> bool:
        """In init: wait for the caller, and return whether the command may start."""
        self.forbid_start()  # otherwise init itself would have the other end open
        return bool(os.read(self.start, 1)) and has_other_end(self.start)

    def move_stops_pipe(self) -> None:
        """In init: move `stops` to descriptor 0, which init no longer needs.

        A command of root's may list init's descriptors, though not use them. It sees no other than 0 to 2.
        """
        os.dup2(self.stops_write, 0)
        os.set_blocking(0, False)  # a stopped caller does not read

    def install_filter(self) -> None:
        """In init: install the filter of system calls."""
        if self.observation is None:
            listener = seccomp.install(network=self.network, ids=self.ids, nested=self.user_namespace)
            self.listener = _moved_up(listener)
            self.namespaces = (os.stat("/proc/self/ns/user").st_ino,)
            return
        self.observation.prepare()
        try:
            listener = seccomp.install_audited(network=self.network, ids=self.ids, nested=self.user_namespace)
        except OSError as error:
            raise SetupError("audit", error.errno or 0, b"seccomp", []) from None
        self.observation.hand_over(listener, self.ids)

    def add_namespace(self, inode: int) -> None:
        """In init: add a user namespace of the jail, in which calls with ids are answered."""
        self.namespaces += (inode,)
        if self.observation is not None:
            self.observation.add_namespace(inode)

    def start_thread(self) -> None:
        """In init: start the thread that answers calls with ids that the jail does not have, if none runs.

        The signals that have handlers are blocked, so that the main thread gets them.
        """
        if self.listener >= 0 and not self._has_thread:
            self._has_thread = True
            _thread.start_new_thread(self._answer_calls, ())

    def answer_calls(self) -> None:
        """In init: let the thread answer, on descriptor 1, which init no longer needs."""
        self.start_thread()
        if self._has_thread:
            os.dup2(self.listener, 1)
            self._may_answer.release()

    def _answer_calls(self) -> None:
        with self._may_answer:
            answer_calls(1, self.namespaces)

    def report_stop(self, number: int) -> None:
        """In init: report that this signal stopped the command."""
        with ignore_closed_pipe():
            os.write(0, bytes([number]))

    def relay_terminal(self, relay: Relay) -> None:
        """In the caller: copy between its terminal and the jail's until that ends, if it has one."""
        if self._own_channel is not None:
            self.relay(self._own_channel, self.stops, relay)

    def raise_failure(self) -> None:
        """In the caller: raise the failure that a process of the jail reported, if any."""
        if self.report[0]:
            raise SetupError(*marshal.loads(self.report))  # noqa: S302 - written by `_write_report`


class ignore_closed_pipe:  # noqa: N801 - used as contextlib.suppress is
    """Ignore that a pipe is full or has no reader. A reader that failed reports that itself."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> bool:
        return kind in (BrokenPipeError, BlockingIOError)


def make_pipe() -> tuple[int, int]:
    """Make a pipe that does not have descriptors 0 to 2, which the command gets, even if they were closed."""
    reading, writing = os.pipe()
    return _moved_up(reading), _moved_up(writing)


def _moved_up(descriptor: int) -> int:
    """Return a descriptor of the same file that is not 0 to 2, and close the given one if it is."""
    if not 0 <= descriptor < FIRST_UNINHERITED:
        return descriptor
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_UNINHERITED)
    os.close(descriptor)
    return moved


def has_other_end(pipe: int) -> bool:
    """Check whether any process has the other end of this empty pipe open; see pipe(7)."""
    os.set_blocking(pipe, False)
    try:
        return bool(os.read(pipe, 1))
    except BlockingIOError:
        return True


def fork(job: Job, doing: Doing, duty: Callable[[], int]) -> int:
    """Fork a child that calls `duty` and exits with its result. A failure is written to the report."""
    try:
        child = os.fork()
    except OSError as error:  # EAGAIN: RLIMIT_NPROC
        raise SetupError(doing, error.errno or 0, b"fork", []) from None
    if child == 0:
        run_child(job.report, doing, duty)
    return child


def run_child(report: mmap.mmap, doing: Doing, duty: Callable[[], int]) -> NoReturn:
    """In a child: call `duty` and exit with its result. A failure is written to `report`."""
    status = SETUP_FAILED
    try:
        status = duty()
    except SetupError as failure:
        _write_report(report, failure)
    except HostChangedError as changed:
        _write_report(report, SetupError(doing, 0, b"", changed.changes))
    except OSError as error:
        name = error.filename if error.filename is not None else b""
        _write_report(report, SetupError(doing, error.errno or 0, os.fsencode(name), []))
    except BaseException as error:  # noqa: BLE001 - the child must never go on in the caller's code
        _write_report(report, SetupError(doing, 0, repr(error).encode(), []))
    finally:
        os._exit(status)


def _write_report(report: mmap.mmap, failure: SetupError) -> None:
    """Write the fields of a failure, with as many of its changes as there is room for."""
    changes = failure.changes
    while True:
        data = marshal.dumps((failure.doing, failure.errno, failure.name, changes, failure.fault))
        if len(data) <= len(report):
            break
        changes = changes[: len(changes) // 2]
    report[: len(data)] = data


def close_descriptors(*spared: int) -> None:
    """Close all descriptors except 0 to 2 and `spared`.

    RLIMIT_NOFILE is no bound: descriptors opened before the limit was lowered can be above it.
    """
    first = FIRST_UNINHERITED
    for number in sorted(spared):
        if number > first:
            sc.close_range(first, number - 1)
        first = max(number + 1, first)
    sc.close_range(first)
