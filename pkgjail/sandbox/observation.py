"""A process beside a jail that sees calls of the jail's processes before the kernel goes on with them.

It is forked by the caller, and gets the listener of the jail's filter from init; see seccomp_unotify(2).
It needs no privilege: the caller owns the jail's user namespace. It is no boundary, as a path can change
between its look and the kernel's. The jail dies with it: a build must not go on unseen.
"""

from __future__ import annotations

import contextlib
import marshal
import mmap
import os
import signal
import socket
import struct
import threading
from typing import Callable, NamedTuple

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.id_calls import IdRules

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import NoReturn

    from pkgjail.sandbox.id_calls import Ids

_END = signal.SIGALRM
_REPEAT_SECONDS = 0.05
_INTS = struct.Struct("=3i")
_INODE = struct.Struct("=Q")
_CREDENTIALS = struct.Struct("=3i")
_REPORT_SIZE = 1 << 16
_FAILED = 1


class Observed(NamedTuple):
    """A jail as the process that sees its calls has it.

    `listener` is where calls are received. When the jail has ended, waiting there is interrupted (EINTR), and
    `has_ended` returns true. `init` is the process id of the jail's first process. `root` is a descriptor of
    the jail's root directory, whose mounts last as long as this process. `ids` tells which calls with ids are
    refused.
    """

    listener: int
    init: int
    root: int
    ids: IdRules
    has_ended: Callable[[], bool]


Observe = Callable[[Observed], bytes]
"""Observes a jail until it has ended, and returns a result; see `Observation`."""


class Observation:
    """One jail's observation: `start` it, then start the jail and `watch` it, and `finish` after its end.

    `observe` is called in a process of its own, with an `Observed`. It answers every call until the jail has
    ended, and returns a result, which is then in `result`.
    """

    result = b""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._process = -1
        self._ended = False
        self._signals = 0
        self._jail = self._child = -1
        self._watcher: threading.Thread | None = None

    def start(self) -> None:
        """In the caller: start the process. Signals that the caller relays are blocked in it, too."""
        # If descriptors 0 to 2 are closed here, these may be among them; all are closed at exec.
        self._memory = os.memfd_create("pkgjail-audit")
        self._report = mmap.mmap(-1, _REPORT_SIZE)
        self._outside, self.inside = socket.socketpair()
        alive, self._alive = os.pipe()
        caller = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {_END})
        try:
            self._process = os.fork()
            if self._process == 0:
                self._run(caller)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(self._alive)
        self._outside.close()
        self._alive = alive

    def close_inside(self) -> None:
        """In the caller: close the end of the channel that belongs to init."""
        self.inside.close()

    def hand_over(self, listener: int, ids: Ids | None) -> None:
        """In init: hand over the listener, the root directory and the mount namespace.

        No call that the filter asks about may come before, since nobody would answer it. So the directory and
        the namespace must have been opened by `prepare`.
        """
        data = marshal.dumps((self._namespace, ids))
        rights = _INTS.pack(listener, *self._opened)
        self.inside.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        for descriptor in (listener, *self._opened):
            os.close(descriptor)

    def prepare(self) -> None:
        """In init, in its new root: open what `hand_over` passes on."""
        self._opened = (os.open("/", os.O_PATH | os.O_CLOEXEC), os.open("/proc/self/ns/mnt", os.O_RDONLY))
        self._namespace = os.stat("/proc/self/ns/user").st_ino

    def add_namespace(self, inode: int) -> None:
        """In init: tell of a further user namespace of the jail, before any process in it makes a call."""
        self.inside.send(_INODE.pack(inode))

    def watch(self, child: int) -> None:
        """In the caller: from now on, kill `child`, the jail, if the process ends before `finish`."""
        self._child = child
        with contextlib.suppress(OSError):  # a container's filter may forbid it
            self._jail = sc.pidfd_open(child)
        self._watcher = threading.Thread(target=self._wait_for_death, daemon=True)
        self._watcher.start()

    def finish(self) -> str:
        """In the caller, when the jail has ended: let the process finish, and take its result.

        Returns:
            Why there is no result: the process failed or was killed. Empty if there is one.

        """
        self._ended = True
        self.inside.close()
        status = self._wait()
        if self._watcher is not None:
            self._watcher.join()
        fault = self._report[:].rstrip(b"\0").decode("utf-8", "replace")
        if os.WIFSIGNALED(status):
            fault = f"ended by signal {os.WTERMSIG(status)}"
        elif not status:
            with open(os.dup(self._memory), "rb") as memory:
                memory.seek(0)
                self.result = memory.read()
        self._report.close()
        for descriptor in (self._alive, self._memory, self._jail):
            if descriptor >= 0:
                os.close(descriptor)
        return fault

    def _wait(self) -> int:
        """Wait for the process. The signal is repeated, as one that comes before a wait does not end that."""
        while True:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, _END)
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                return status
            self._poll(_REPEAT_SECONDS)

    def _poll(self, seconds: float) -> None:
        import select

        poll = select.poll()
        poll.register(self._alive, 0)  # POLLHUP
        poll.poll(int(seconds * 1000))

    def _wait_for_death(self) -> None:
        has_finished = os.read(self._alive, 1)  # nothing, if the other end is closed by its death
        if has_finished or self._ended:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._jail >= 0:
                signal.pidfd_send_signal(self._jail, signal.SIGKILL)
            else:
                os.kill(self._child, signal.SIGKILL)

    def _run(self, caller: int) -> NoReturn:
        """In the process: observe, and exit."""
        status = _FAILED
        try:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == caller:
                os.setsid()  # keys of the terminal are not for it
                self._leave_everything()
                _write_all(self._memory, self._observe_jail())
                os.write(self._alive, b".")  # it may see the jail's end before the caller does
                status = 0
        except BaseException as error:  # noqa: BLE001 - it must never go on in the caller's code
            import traceback

            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{error!r} at {os.path.basename(where.filename)}:{where.lineno}"
            with contextlib.suppress(Exception):
                data = text.encode("utf-8", "replace")[:_REPORT_SIZE]
                self._report[: len(data)] = data
        finally:
            os._exit(status)

    def _leave_everything(self) -> None:
        """Close all descriptors of the caller's: with them, others would wait for this process."""
        first = 0
        for number in sorted({self._outside.fileno(), self.inside.fileno(), self._alive, self._memory}):
            if number > first:
                sc.close_range(first, number - 1)
            first = number + 1
        sc.close_range(first)
        signal.signal(_END, self._count_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {_END})

    def _observe_jail(self) -> bytes:
        self._outside.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.inside.close()
        data, sent, _, _ = self._outside.recvmsg(1 << 20, 1 << 10)
        if not data:  # the jail could not be set up
            return b""
        namespace, ids = marshal.loads(data)  # noqa: S302 - from init, before it starts the command
        rights: dict[int, bytes] = {kind: value for _, kind, value in sent}
        listener, root, _ = _INTS.unpack(rights[socket.SCM_RIGHTS][: _INTS.size])
        init = _CREDENTIALS.unpack(rights[socket.SCM_CREDENTIALS])[0]
        rules = IdRules(ids, self._namespaces(namespace))
        return self._observe(Observed(listener, init, root, rules, self._has_ended))

    def _count_signal(self, _number: int, _frame: object) -> None:
        self._signals += 1

    def _has_ended(self) -> bool:
        return self._signals > 0

    def _namespaces(self, first: int) -> Callable[[], set[int]]:
        known = {first}

        def all_of_them() -> set[int]:
            """Return those that init has told of so far, all before a process in them makes a call."""
            with contextlib.suppress(BlockingIOError):
                while data := self._outside.recv(_INODE.size, socket.MSG_DONTWAIT):
                    known.add(_INODE.unpack(data)[0])
            return known

        return all_of_them


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
