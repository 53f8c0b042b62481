"""Machines that are kept running, so that a command need not wait for a start.

A keeper is a process that has a machine, and a socket on which commands ask for it. It ends, and the machine
with it, when it is told to, or when no command has run for a while. Each place has at most one keeper: it
holds a lock as long as it lives. A command's connection speaks the messages of `pkgjail.machine.frames`; the
keeper passes them on, under a session of the machine that no other command has. A command whose connection
ends is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import select
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.errors import PkgjailError, os_error_text
from pkgjail.core.model import record
from pkgjail.core.parallel import without_fork_warning
from pkgjail.core.text import text_path
from pkgjail.machine.frames import Channel, Message, Type, number
from pkgjail.machine.model import MachineError
from pkgjail.machine.session import check_command
from pkgjail.sandbox.job import close_descriptors
from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.own_files import open_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import NoReturn

    from pkgjail.machine.boot import Guest

_DIRECTORY, _SOCKET, _LOCK, _START = "machines", "socket", "lock", "start"
_KILL = 9
_LAST_SESSION = 0xFFFF
_MOST_WAITING = 100
_SIZES: dict[int, int] = {
    Type.INPUT_END: 0,
    Type.SIGNAL: 4,
    Type.RESIZE: 8,
    Type.TAKEN: 8,
    Type.CLOSED: 4,
}
"""The sizes of a command's messages that have one size."""
_SECONDS_TO_END = 30
_BLOCK = 1 << 20


@record
class KeptMachine:
    """A machine that is kept running, as its keeper describes it.

    `started` is in seconds since 1970, `commands` the number that runs now, `idle` the seconds without a
    command after which it ends, and `waited` those since the last one.
    """

    pid: int
    key: str
    architecture: str
    kernel: str
    accelerator: str
    started: float
    commands: int
    idle: float
    waited: float


class _Connection:
    """A command's connection with the keeper."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._error = ""

    def others(self) -> list[int]:
        """Return nothing: the keeper reads the console."""
        return []

    def attend(self, descriptor: int) -> None:
        """Nothing else is read."""

    def lost(self) -> MachineError:
        """Return the keeper's last word on the machine."""
        return MachineError(self._error or "the machine is gone, and so is the process that kept it running")

    def hear(self, message: Message) -> None:
        """Keep what the keeper says of the machine."""
        if message.type == Type.FAILED:
            self._error = message.content.decode("utf-8", "replace")


@contextlib.contextmanager
def kept_machine(
    place: bytes, key: str, start: Callable[[], AbstractContextManager[Guest]]
) -> Iterator[_Connection]:
    """Connect with the machine that is kept for `place`; start it first if there is none, or another one.

    Args:
        place: the directory that it is for.
        key: a digest of what it is made of.
        start: starts it.

    Raises:
        MachineError: it cannot be started, or commands run in another machine there.

    """
    with _opened_place(place) as directory:
        with _locked(directory, _START):
            found = _asked(directory)
            if found is not None and found.key != key:
                if found.commands:
                    raise MachineError(
                        f"cannot start a machine for {text_path(place)}: one that shows other files or "
                        f"directories runs {found.commands} commands there; wait for their end"
                    )
                _stop(directory)
                found = None
            if found is None:
                _start_keeper(directory, key, start)
            plug = _connect(directory)
        if plug is None:
            raise MachineError("the process that keeps the machine running is gone again")
    channel = Channel(plug)
    try:
        yield _Connection(channel)
    finally:
        channel.close()


def find_kept_machine(place: bytes) -> KeptMachine | None:
    """Return the machine that is kept for a directory, or None."""
    with _opened_place(place) as directory:
        return _asked(directory)


def stop_kept_machine(place: bytes) -> bool:
    """End the machine that is kept for a directory, with its commands; return whether there was one.

    Raises:
        MachineError: it does not end.

    """
    with _opened_place(place) as directory, _locked(directory, _START):
        return _stop(directory)


# --- places -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened_place(place: bytes) -> Iterator[int]:
    """Open the private directory with a keeper's socket and locks. A place that is renamed keeps its own."""
    path = text_path(place)
    try:
        found = os.stat(place)
        path = os.path.join(runtime_directory(), _DIRECTORY, f"{found.st_dev:x}-{found.st_ino:x}")
        descriptor = open_directory(path, make=True)
    except OSError as error:
        raise MachineError(f"cannot keep a machine: {os_error_text(error, path)}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: int, name: str) -> Iterator[None]:
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _connect(directory: int) -> socket.socket | None:
    plug = socket.socket(socket.AF_UNIX)
    try:
        plug.connect(_address(directory))
    except OSError:  # nobody listens: a keeper was killed
        plug.close()
        return None
    return plug


def _address(directory: int) -> str:
    """Return the socket's path; by the descriptor, as a path of a socket has at most 107 bytes."""
    return os.path.join("/proc/self/fd", str(directory), _SOCKET)


def _asked(directory: int) -> KeptMachine | None:
    """Ask the keeper what it keeps."""
    plug = _connect(directory)
    if plug is None:
        return None
    channel = Channel(plug)
    try:
        channel.send(0, Type.READY)
        for message in _answers(channel):
            if message.type == Type.READY:
                fields: dict[str, Any] = json.loads(message.content)
                return KeptMachine(**fields)
    finally:
        channel.close()
    return None


def _stop(directory: int) -> bool:
    plug = _connect(directory)
    if plug is None:
        return False
    channel = Channel(plug)
    try:
        channel.send(0, Type.SHUTDOWN)
        for _ in _answers(channel):
            pass
    finally:
        channel.close()
    with _locked(directory, _LOCK):  # the keeper's own, until it is gone
        return True


def _answers(channel: Channel) -> Iterator[Message]:
    """Yield messages until the channel ends, or nothing comes for a long time."""
    while not channel.is_closed:
        if not select.select([channel], [], [], _SECONDS_TO_END)[0]:
            raise MachineError("the process that keeps the machine running does not answer")
        yield from channel.read()


# --- the start ----------------------------------------------------------------------------------------


def _start_keeper(directory: int, key: str, start: Callable[[], AbstractContextManager[Guest]]) -> None:
    """Start a keeper, and wait until its machine is ready."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with without_fork_warning():
        child = os.fork()
    if not child:
        _detach(directory, key, start, writing)
    os.close(writing)
    with open(reading, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    if not said:
        raise MachineError("the process that starts the machine was killed")
    error = pickle.loads(said)  # noqa: S301 - this process's own child wrote it
    if error is not None:
        raise error


def _detach(
    directory: int, key: str, start: Callable[[], AbstractContextManager[Guest]], writing: int
) -> NoReturn:
    """In a child: become a process that belongs to no session, and keep a machine."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        close_descriptors(directory, writing)  # such as the caller's locks
        answer: object = None
        try:
            _keep(directory, key, start, writing)
        except PkgjailError as error:
            answer = error
        except BaseException as error:  # noqa: BLE001 - the command that started it says it
            answer = MachineError(f"cannot start a machine: {error!r}")
        _tell(writing, answer)
    finally:
        os._exit(0)


def _tell(writing: int, answer: object) -> None:
    with contextlib.suppress(OSError, pickle.PicklingError):
        view = memoryview(pickle.dumps(answer))
        while view:
            view = view[os.write(writing, view) :]


def _keep(directory: int, key: str, start: Callable[[], AbstractContextManager[Guest]], writing: int) -> None:
    with _locked(directory, _LOCK), start() as guest, socket.socket(socket.AF_UNIX) as listener:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SOCKET, dir_fd=directory)
        listener.bind(_address(directory))
        listener.listen(_MOST_WAITING)
        listener.setblocking(False)
        _tell(writing, None)
        os.close(writing)
        _leave_streams()
        try:
            _Keeper(guest, listener, key).serve()
        finally:
            os.unlink(_SOCKET, dir_fd=directory)


def _leave_streams() -> None:
    """Let go of what the starting command had: its terminal, pipes and directory."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    os.chdir("/")


# --- the keeper ---------------------------------------------------------------------------------------


class _Client(NamedTuple):
    channel: Channel
    session: int


class _Keeper:
    """The loop of a keeper."""

    def __init__(self, guest: Guest, listener: socket.socket, key: str) -> None:
        self._guest = guest
        self._running = guest.running
        self._listener = listener
        self._key = key
        self._clients: list[_Client] = []
        self._commands: dict[int, _Client] = {}
        self._last = 0
        self._started = time.time()
        self._used = time.monotonic()
        self._goes_on = True

    def serve(self) -> None:
        """Serve commands until the machine ends, is told to, or had none for a long time."""
        try:
            while self._goes_on:
                self._wait()
            self._running.shut_down()
        except MachineError as error:
            for client in self._clients:
                client.channel.send(0, Type.FAILED, str(error).encode("utf-8", "replace"))
                self._flush(client.channel)
        finally:
            for client in self._clients:
                client.channel.close()

    def _wait(self) -> None:
        running = self._running
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        for channel in (running.channel, *(client.channel for client in self._clients)):
            reads = select.POLLIN if channel is running.channel or running.channel.has_room else 0
            poll.register(channel, reads | (select.POLLOUT if channel.wants_to_write else 0))
        for other in running.others():
            poll.register(other, select.POLLIN)
        left = self._guest.idle - (time.monotonic() - self._used)
        ready = dict(poll.poll(None if self._commands else max(0, left) * 1000))
        if not ready and not self._commands and left <= 0:
            self._goes_on = False
        for other in running.others():
            if other in ready:
                running.attend(other)
        self._copy(running.channel, ready, self._from_guest)
        for client in list(self._clients):
            self._attend(client, ready)
        if self._listener.fileno() in ready:
            self._accept()
        if running.channel.is_closed or not running.others():
            raise running.lost()

    def _copy(self, channel: Channel, ready: dict[int, int], hear: Callable[[Message], None]) -> None:
        events = ready.get(channel.fileno(), 0)
        if events & select.POLLOUT:
            channel.write()
        if events & ~select.POLLOUT:
            for message in channel.read():
                hear(message)

    def _attend(self, client: _Client, ready: dict[int, int]) -> None:
        is_ours = True
        try:
            self._copy(client.channel, ready, partial(self._from_client, client))
        except MachineError:  # it is another program
            is_ours = False
        if not is_ours or client.channel.is_closed or not client.channel.has_room:
            self._leave(client)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            plug, _ = self._listener.accept()
            self._clients.append(_Client(Channel(plug), self._free_session()))

    def _free_session(self) -> int:
        while True:
            self._last = self._last % _LAST_SESSION + 1
            if all(client.session != self._last for client in self._clients):
                return self._last

    def _from_client(self, client: _Client, message: Message) -> None:
        if message.type == Type.READY:
            client.channel.send(0, Type.READY, json.dumps(self._described()).encode())
        elif message.type == Type.SHUTDOWN:
            self._goes_on = False
        else:
            _check(message, started=client.session in self._commands)
            if message.type == Type.EXEC:
                self._commands[client.session] = client
            self._running.channel.send(client.session, message.type, message.content)

    def _from_guest(self, message: Message) -> None:
        client = self._commands.get(message.session)
        if client is not None:
            client.channel.send(1, message.type, message.content)
        if message.type == Type.ENDED:
            self._commands.pop(message.session, None)
            self._used = time.monotonic()

    def _leave(self, client: _Client) -> None:
        self._clients.remove(client)
        client.channel.close()
        if client.session in self._commands:
            self._running.channel.send(client.session, Type.SIGNAL, number(_KILL))
            for stream in range(2):  # what nobody takes would be kept for ever, and the session with it
                self._running.channel.send(client.session, Type.CLOSED, number(stream))

    def _flush(self, channel: Channel) -> None:
        end = time.monotonic() + 1
        while channel.wants_to_write and time.monotonic() < end:
            select.select([], [channel], [], 1)
            channel.write()

    def _described(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "key": self._key,
            "architecture": self._guest.architecture,
            "kernel": self._guest.kernel,
            "accelerator": self._guest.accelerator,
            "started": self._started,
            "commands": len(self._commands),
            "idle": self._guest.idle,
            "waited": 0 if self._commands else time.monotonic() - self._used,
        }


def _check(message: Message, *, started: bool) -> None:
    """Refuse what the agent would take for the end of the machine.

    Raises:
        MachineError: it is not a message of a command.

    """
    if message.type == Type.EXEC and not started:
        check_command(message.content)
    elif message.type != Type.INPUT and _SIZES.get(message.type, -1) != len(message.content):
        raise MachineError("a command sent a message that there is not")
