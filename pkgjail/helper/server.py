"""The daemon: accepts and counts connections, and forks a keeper for each. It reads nothing from clients."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import os_error_text
from pkgjail.helper import keeper, protocol
from pkgjail.helper.errors import ServiceError
from pkgjail.helper.log import log
from pkgjail.helper.peers import uid_of
from pkgjail.helper.places import make_state
from pkgjail.helper.worker import tidy
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from pkgjail.helper.policy import Policy

_BACKLOG = 4096
_FIRST_PASSED = 3  # sd_listen_fds(3)
_ENDING = (signal.SIGTERM, signal.SIGINT)


class Service(NamedTuple):
    """What the daemon and its keepers know: the policy, and the directory of the users' caches."""

    policy: Policy
    state: str


def serve(policy: Policy, path: str, state: str) -> None:
    """Serve until SIGTERM or SIGINT. The process must be root's, and have one thread.

    Args:
        policy: what the administrator allows.
        path: the socket to listen on, unless systemd passed one.
        state: the directory of the users' caches.

    Raises:
        ServiceError: it cannot start.

    """
    if os.geteuid() != 0:
        raise ServiceError("cannot start: pkgjaild must be started by root")
    make_state(state)
    for user in os.listdir(state):  # a daemon that was killed may have left something
        found = os.lstat(f"{state}/{user}")
        if found.st_uid != os.geteuid():  # root's only for a moment, when it is new
            tidy(state, found.st_uid, found.st_gid)
    with _listening(policy, path) as listener:
        protocol.ask_for_senders(listener)
        log("started", socket=path, state=state)
        _Daemon(Service(policy, state), listener).run()
        log("ended")


class _Daemon:
    """The loop of the daemon. `_keepers` has the user of each keeper, by process id."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        self._service = service
        self._listener = listener
        self._keepers: dict[int, int] = {}
        self._ends = False

    def run(self) -> None:
        """Accept connections until a signal ends this, and end all keepers."""
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, self._handle) for number in (signal.SIGCHLD, *_ENDING)}
        try:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(woken, select.POLLIN)
            while not self._ends:
                ready = dict(poll.poll())
                if woken in ready:
                    os.read(woken, 4096)
                    self._reap()
                if self._listener.fileno() in ready:
                    self._accept((woken, wakes))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
            protocol.close((woken, wakes))
            self._end_keepers()

    def _handle(self, number: int, _frame: object) -> None:
        self._ends = self._ends or number in _ENDING

    def _reap(self) -> None:
        while self._keepers:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended:
                return
            self._keepers.pop(ended, None)

    def _end_keepers(self) -> None:
        """End all keepers; their workers and jails end with them."""
        for process in self._keepers:
            os.kill(process, signal.SIGKILL)
        for process in self._keepers:
            os.waitpid(process, 0)

    def _accept(self, own: tuple[int, ...]) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client has gone, or there are no descriptors left
            return
        with connection:
            uid = uid_of(connection)
            if why := self._excess(uid):
                log("refused", uid=uid, why=why)
                _refuse(connection, why)
                return
            try:
                child = os.fork()
            except OSError as error:
                log("refused", uid=uid, why=error.strerror)
                _refuse(connection, "pkgjaild cannot start another process")
                return
            if child == 0:
                self._become_keeper(connection, own)
            self._keepers[child] = uid

    def _excess(self, uid: int) -> str:
        """Return which limit another connection of this user would exceed; "" if none."""
        limits = self._service.policy.limits
        if len(self._keepers) >= limits["connections"]:
            return (
                f"all users have {limits['connections']} connections at once, the most that this host allows"
            )
        if list(self._keepers.values()).count(uid) >= limits["per_user"]:
            return f"you have {limits['per_user']} connections, the most that this host allows"
        return ""

    def _become_keeper(self, connection: socket.socket, own: tuple[int, ...]) -> NoReturn:
        try:
            parent = os.getppid()
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, *_ENDING):
                signal.signal(number, signal.SIG_DFL)
            protocol.close(own)
            self._listener.close()
            if os.getppid() == parent:
                keeper.keep(connection, self._service.policy, self._service.state)
        except BaseException as error:  # noqa: BLE001 - a keeper must never go on in the daemon's code
            log("failed", why=repr(error))
        finally:
            os._exit(0)


def _refuse(connection: socket.socket, why: str) -> None:
    """Refuse a connection. A client that does not read what it gets is not waited for."""
    with contextlib.suppress(OSError):
        protocol.send(connection, {"refused": why}, flags=socket.MSG_DONTWAIT)


@contextlib.contextmanager
def _listening(policy: Policy, path: str) -> Iterator[socket.socket]:
    """Listen on the socket that systemd passed, or on a new one, which is removed at the end."""
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()) and os.environ.pop("LISTEN_FDS", "") == "1":
        os.set_inheritable(_FIRST_PASSED, False)
        with socket.socket(fileno=_FIRST_PASSED) as listener:
            if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_SEQPACKET:
                raise ServiceError("cannot start: the socket that was passed is none of SOCK_SEQPACKET")
            yield listener
        return
    with _locked(path), protocol.make_socket() as listener:
        try:
            _remove_stale(path)
            _bind(listener, path, policy)
        except OSError as error:
            raise ServiceError(f"cannot start: {os_error_text(error, path)}") from None
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Make the socket's directory, and let no second daemon use the same socket."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServiceError(f"cannot start: {os_error_text(error, path)}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(f"cannot start: another pkgjaild listens on {path}") from None
        yield
    finally:
        os.close(lock)


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that was killed; nothing else."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def _bind(listener: socket.socket, path: str, policy: Policy) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    if policy.socket_group >= 0:
        os.chown(path, 0, policy.socket_group)
    os.chmod(path, 0o666 if policy.socket_group < 0 else 0o660)
    listener.listen(_BACKLOG)
