"""Guests, and clients of a keeper, that say what they like: errors, and no more memory than was agreed."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pkgjail.machine import keeper
from pkgjail.machine.boot import Guest
from pkgjail.machine.frames import WINDOW, Channel, Message, Type, number, text, texts
from pkgjail.machine.model import MachineError
from pkgjail.machine.running import Console, failure
from pkgjail.machine.session import Command, NotStartedError, run_command, run_quietly
from pkgjail.machine.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = Command(argv=(b"true",), cwd=b"/", environment=(), uid=0, gid=0)
ENDED = number(0) + number(0)
SESSION = 1


class Link:
    """A link to a guest that is another thread, or another program."""

    def __init__(self, end: socket.socket) -> None:
        self.channel = Channel(end)

    def others(self) -> list[int]:
        """Return nothing: there is no console."""
        return []

    def attend(self, descriptor: int) -> None:
        """There is none."""

    def hear(self, message: Message) -> None:
        """Ignore it."""

    def lost(self) -> MachineError:
        """Return the error for the end."""
        return MachineError("the machine is gone")

    def shut_down(self) -> None:
        """End it."""
        self.channel.close()


@contextlib.contextmanager
def said(content: bytes) -> Iterator[Link]:
    """A guest that says this and ends, whatever it hears."""
    ours, theirs = socket.socketpair()

    def talk() -> None:
        with contextlib.suppress(OSError):
            theirs.sendall(content)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(1 << 16):
                pass

    thread = threading.Thread(target=talk)
    thread.start()
    link = Link(ours)
    try:
        yield link
    finally:
        link.channel.close()
        thread.join()
        theirs.close()


def frame(kind: int, content: bytes = b"", session: int = SESSION) -> bytes:
    """The bytes of a message."""
    return (
        len(content).to_bytes(4, "little")
        + session.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + content
    )


LIES = {
    "more output than the window": (frame(Type.OUTPUT, b"x" * WINDOW) * 9, "more output than it may"),
    "more errors than the window": (frame(Type.ERRORS, b"x" * (WINDOW + 1)), "more output than it may"),
    "input that was not sent": (frame(Type.INPUT_TAKEN, number(1)), "more input than it was sent"),
    "a huge message": (frame(Type.OUTPUT, b"")[4:].join([b"\xff" * 4, b""]), "too long"),
    "no content": (frame(Type.ENDED), "too short"),
    "an error": (frame(Type.NOT_STARTED, b"\xff" * 4 + text(b"x")), "an error that there is not"),
    "a status that there is not": (frame(Type.ENDED, b"\xff" * 8), "a status that there is not"),
    "nothing": (b"", "gone"),
}  # fmt: skip


@pytest.mark.usefixtures("silent_streams")
@pytest.mark.parametrize(("content", "words"), LIES.values(), ids=LIES)
def test_a_guest_that_lies(content: bytes, words: str) -> None:
    """Whatever is not agreed ends the command with an error of pkgjail's, at once."""
    with said(content) as link, pytest.raises(MachineError, match=words):
        run_command(link, SESSION, COMMAND)


def test_the_words_of_a_guest_are_shown_as_words() -> None:
    """No control character of a guest's errors reaches the terminal; errors that there are not do no harm."""
    words = frame(Type.NOT_STARTED, number(2) + text(b"\x1b[2J")) + frame(Type.ENDED, ENDED)
    with said(words) as link, pytest.raises(NotStartedError) as refused:
        run_quietly(link, SESSION, COMMAND)
    assert "\x1b" not in str(refused.value)
    with pytest.raises(MachineError, match="an error that there is not"):
        failure(Message(0, Type.FAILED, b"\xff" * 4 + text(b"x")))


@pytest.fixture
def silent_streams() -> Iterator[None]:
    """Descriptors 0 to 2 that take everything and give nothing."""
    with quiet():
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Have descriptors 0 to 2 take everything and give nothing."""
    before = [os.dup(each) for each in range(3)]
    nothing = os.open(os.devnull, os.O_RDWR)
    for each in range(3):
        os.dup2(nothing, each)
    os.close(nothing)
    try:
        yield
    finally:
        for each, descriptor in enumerate(before):
            os.dup2(descriptor, each)
            os.close(descriptor)


def messages() -> st.SearchStrategy[bytes]:
    """Messages of a guest, right and wrong ones."""
    numbers = st.integers(0, 2**32 - 1).map(number) | st.integers(0, 200).map(number)
    content = st.binary(max_size=40) | st.lists(numbers, max_size=4).map(b"".join)
    return st.builds(
        frame, st.sampled_from(list(Type)) | st.integers(0, 0xFFFF), content, st.sampled_from([1, 0, 7])
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages(), max_size=12).map(b"".join) | st.binary(max_size=200))
def test_any_words_of_a_guest(content: bytes) -> None:
    """Whatever a guest says, the command ends, or there is an error of pkgjail's; never another exception."""
    for run in (run_command, run_quietly):
        with said(content) as link, quiet(), contextlib.suppress(MachineError):
            run(link, SESSION, COMMAND)


def test_a_guest_that_says_much_and_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this side answers does not grow without an end: it stops reading a guest that does not read."""
    ours, theirs = socket.socketpair()
    link = Link(ours)
    monkeypatch.setattr("pkgjail.machine.frames._ENOUGH", 1 << 12)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    theirs.settimeout(1)

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                theirs.sendall(frame(Type.OUTPUT, b"x"))

    def end() -> None:
        thread.join()
        theirs.close()

    thread = threading.Thread(target=talk)
    thread.start()
    ending = threading.Thread(target=end)
    ending.start()
    with quiet(), pytest.raises(MachineError, match="gone"):
        run_command(link, SESSION, COMMAND)
    ending.join()
    assert len(link.channel._outgoing) < 1 << 20
    link.channel.close()


def test_a_flooded_console() -> None:
    """Of a console without ends of lines, or with many, only the last is kept, and no control character."""
    reading, writing = os.pipe()
    console = Console(reading)
    for block in (b"x" * 60000, b"\x1b[2J\n" * 10000):
        for _ in range(20):
            os.write(writing, block)
            console.read()
    assert len(console._rest) <= 1 << 16
    assert len(console.last()) <= 13
    assert not any("\x1b" in line for line in console.last())
    os.close(reading)
    os.close(writing)


# --- clients of a keeper ------------------------------------------------------------------------------


class Kept:
    """A keeper whose guest is this test: `guest` is its end of the channel."""

    def __init__(self, place: Path) -> None:
        ours, theirs = socket.socketpair()
        self.guest = Channel(theirs)
        self._running = _Running(ours)
        self.listener = socket.socket(socket.AF_UNIX)
        self.address = str(place / "socket")
        self.listener.bind(self.address)
        self.listener.listen()
        self.listener.setblocking(False)
        shares = Shares(modules=(), shares=(), shown=())
        running: Any = self._running
        guest = Guest(
            running=running, shares=shares, architecture="amd64", kernel="6", accelerator="tcg", idle=30
        )
        self.keeper = keeper._Keeper(guest, self.listener, "key")
        self._thread = threading.Thread(target=self.keeper.serve)
        self._thread.start()

    def connect(self) -> Channel:
        """Return a client's channel."""
        plug = socket.socket(socket.AF_UNIX)
        plug.connect(self.address)
        return Channel(plug)

    def heard(self, kind: int, seconds: float = 10) -> Message:
        """Wait until the guest hears a message of this type."""
        return wait_for(self.guest, kind, seconds)

    def end(self) -> None:
        """Tell the keeper to end."""
        client = self.connect()
        client.send(0, Type.SHUTDOWN)
        self._thread.join(10)
        assert not self._thread.is_alive()
        for each in (client, *(left.channel for left in self.keeper._clients)):
            each.close()
        self.listener.close()
        self.guest.close()


class _Running(Link):
    """A machine without a console; one end of a pipe stands for it."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self._pipe = os.pipe()

    def others(self) -> list[int]:
        return [self._pipe[0]]

    def shut_down(self) -> None:
        super().shut_down()
        for each in self._pipe:
            os.close(each)


def wait_for(channel: Channel, kind: int, seconds: float = 10) -> Message:
    """Wait for a message of this type, and drop the others."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not channel.is_closed:
        if select.select([channel], [], [], 0.1)[0]:
            for message in channel.read():
                if message.type == kind:
                    return message
    raise AssertionError(f"no message {kind}")


def is_dropped(channel: Channel) -> bool:
    """Return whether the keeper closes the connection."""
    with contextlib.suppress(AssertionError):
        wait_for(channel, -1, 5)
    return channel.is_closed


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.end()


EXEC = b"".join((*(number(0),) * 3, *(number(0),) * 5, text(b"/"), texts([b"true"]), texts([])))
GARBAGE: dict[str, bytes] = {
    "a huge message": b"\xff" * 64,
    "a command cut short": frame(Type.EXEC, EXEC[:-3]),
    "a command with more words than bytes": frame(Type.EXEC, EXEC[:-4] + b"\xff" * 4),
    "a signal without a number": frame(Type.EXEC, EXEC) + frame(Type.SIGNAL),
    "two commands": frame(Type.EXEC, EXEC) * 2,
    "a message for the root": frame(Type.ROOT, EXEC),
    "a message that there is not": frame(Type.EXEC, EXEC) + frame(50),
    "a message of the guest's": frame(Type.ENDED, ENDED),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_client_that_sends_garbage(garbage: bytes, kept: Kept) -> None:
    """It is dropped, nothing of it reaches the agent, and other commands go on."""
    other = kept.connect()
    other.send(1, Type.EXEC, EXEC)
    session = kept.heard(Type.EXEC).session
    client = kept.connect()
    os.write(client.fileno(), garbage)
    assert is_dropped(client)
    kept.guest.send(session, Type.ENDED, ENDED)
    assert wait_for(other, Type.ENDED).content == ENDED
    other.close()
    client.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(messages(), max_size=8).map(b"".join) | st.binary(max_size=100))
def test_any_words_of_a_client(kept: Kept, content: bytes) -> None:
    """Whatever a client says, the keeper goes on, and the agent hears only what it can read."""
    client = kept.connect()
    with contextlib.suppress(OSError):
        os.write(client.fileno(), content.replace(b"\x08\0", b"\x09\0"))
    client.close()
    asking = kept.connect()
    asking.send(0, Type.READY)
    assert wait_for(asking, Type.READY)
    asking.close()


def test_a_client_that_leaves(kept: Kept) -> None:
    """Its command is killed, and its streams are closed: what nobody takes does not keep the session."""
    client = kept.connect()
    client.send(1, Type.EXEC, EXEC)
    session = kept.heard(Type.EXEC).session
    client.close()
    heard: list[Message] = []
    while len(heard) < 3 and select.select([kept.guest], [], [], 10)[0]:
        heard += kept.guest.read()
    expected = [(Type.SIGNAL, number(9)), (Type.CLOSED, number(0)), (Type.CLOSED, number(1))]
    assert heard == [Message(session, kind, content) for kind, content in expected]


def test_a_client_that_does_not_read(kept: Kept) -> None:
    """A guest that sends without an end fills no memory of the keeper for it: the client is dropped."""
    client = kept.connect()
    client.send(1, Type.EXEC, EXEC)
    session = kept.heard(Type.EXEC).session
    for _ in range(200):
        kept.guest.send(session, Type.OUTPUT, b"x" * (1 << 16))
    end = time.monotonic() + 20
    while kept.guest.wants_to_write and time.monotonic() < end:
        select.select([], [kept.guest], [], 0.1)
        kept.guest.write()
    assert kept.heard(Type.SIGNAL).session == session
    client.close()


def test_a_keeper_from_its_start_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says when it is ready, answers at its place while it lives, and leaves nothing there."""
    monkeypatch.setattr(keeper, "_leave_streams", lambda: None)
    ours, theirs = socket.socketpair()
    running: Any = _Running(ours)
    shares = Shares(modules=(), shares=(), shown=())
    guest = Guest(
        running=running, shares=shares, architecture="arm64", kernel="6", accelerator="tcg", idle=30
    )
    directory = os.open(tmp_path, os.O_RDONLY)
    reading, writing = os.pipe()
    arguments = (directory, "key", lambda: contextlib.nullcontext(guest), writing)
    thread = threading.Thread(target=keeper._keep, args=arguments)
    thread.start()
    with open(reading, "rb") as answer:
        assert answer.read() == pickle.dumps(None)
    found = keeper._asked(directory)
    assert found is not None
    assert (found.architecture, found.commands, found.key) == ("arm64", 0, "key")
    assert keeper._stop(directory)
    thread.join(10)
    assert not thread.is_alive()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]
    assert (keeper._asked(directory), keeper._stop(directory)) == (None, False)
    os.close(directory)
    theirs.close()
