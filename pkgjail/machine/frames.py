"""The messages between a guest's agent and this side, over one channel.

A message is a header of three little-endian numbers (the size of the content in 32 bits, the session and the
type in 16 bits each) and the content. A session is a command; session 0 is the guest itself. The content has
numbers of 32 or 64 bits, texts with their sizes before them, and lists of texts with their lengths. Streams
have windows: at most `WINDOW` bytes are under way until the reader says that it took some. So a stream that
nobody reads keeps nothing else waiting.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pkgjail.machine.model import MachineError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence

VERSION = 1
"""The version of the agent that these messages are for."""
WINDOW = 256 << 10
"""The bytes of a stream that may be under way."""

_HEADER = struct.Struct("<IHH")
_NUMBER = struct.Struct("<I")
_LONG = struct.Struct("<Q")
_MOST = 64 << 20  # bytes of a message, as in the agent
_BLOCK = 1 << 18
_ENOUGH = 4 << 20  # bytes that wait: more than an honest reader ever leaves
_MOST_ERROR, _MOST_STATUS = 4095, 0xFFFF


class Type(IntEnum):
    """The types of messages, as in the agent (`assets/agent/agent.h`)."""

    ROOT = 1
    DIRECTORY = 2
    CONTENT = 3
    SYMLINK = 4
    MOUNT = 5
    SEAL = 6
    CHANGES = 7
    SHUTDOWN = 8
    KEEP = 9
    HIDE = 10
    NO_NAMESPACES = 11
    SCRATCH = 12
    EXEC = 32
    INPUT = 33
    INPUT_END = 34
    SIGNAL = 35
    RESIZE = 36
    TAKEN = 37
    CLOSED = 38
    READY = 64
    DONE = 65
    FAILED = 66
    CHANGE = 67
    CHANGE_CONTENT = 68
    STARTED = 96
    NOT_STARTED = 97
    OUTPUT = 98
    ERRORS = 99
    OUTPUT_END = 100
    ERRORS_END = 101
    INPUT_TAKEN = 102
    STOPPED = 103
    ENDED = 104


class Message(NamedTuple):
    """A message: its session, its type (a `Type`, unless the sender is another program), and its content."""

    session: int
    type: int
    content: bytes = b""


class Fields:
    """The content of a message, read field by field."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            MachineError: the content has not so many; as for the other fields.

        """
        found = self._content[self._at : self._at + size]
        if len(found) < size:
            raise MachineError("the guest sent a message that is too short")
        self._at += size
        return found

    def number(self) -> int:
        """Return the next number of 32 bits."""
        return int(_NUMBER.unpack(self.take(_NUMBER.size))[0])

    def error(self) -> int:
        """Return the next number of 32 bits, which is one of errno(3)."""
        return self._at_most(_MOST_ERROR, "an error that there is not")

    def status(self) -> int:
        """Return the next number of 32 bits, which is a status of wait(2)."""
        return self._at_most(_MOST_STATUS, "a status that there is not")

    def _at_most(self, most: int, otherwise: str) -> int:
        found = self.number()
        if found > most:
            raise MachineError(f"the guest sent {otherwise}")
        return found

    def long(self) -> int:
        """Return the next number of 64 bits."""
        return int(_LONG.unpack(self.take(_LONG.size))[0])

    def text(self) -> bytes:
        """Return the next text."""
        return self.take(self.number())


def number(value: int) -> bytes:
    """Return the bytes of a number of 32 bits."""
    return _NUMBER.pack(value)


def text(value: bytes) -> bytes:
    """Return the bytes of a text."""
    return _NUMBER.pack(len(value)) + value


def texts(values: Iterable[bytes]) -> bytes:
    """Return the bytes of a list of texts."""
    found = [text(value) for value in values]
    return _NUMBER.pack(len(found)) + b"".join(found)


class Channel:
    """One end of a channel: a connected socket, which is not blocked.

    What cannot be sent at once waits in memory; `wants_to_write` is whether there is something.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.is_closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    @property
    def has_room(self) -> bool:
        """Return whether more may be sent; if not, the other end does not read."""
        return len(self._outgoing) < _ENOUGH

    @property
    def wants_to_write(self) -> bool:
        """Return whether messages wait."""
        return bool(self._outgoing) and not self.is_closed

    def close(self) -> None:
        """Close the socket."""
        self.is_closed = True
        self._socket.close()

    def send(self, session: int, kind: int, content: bytes = b"") -> None:
        """Send a message, or have it wait. Nothing is sent to a closed channel."""
        if not self.is_closed:
            self._outgoing += _HEADER.pack(len(content), session, kind) + content
            self.write()

    def write(self) -> None:
        """Send what waits, as far as that is possible now."""
        try:
            while self.wants_to_write:
                sent = self._socket.send(memoryview(self._outgoing)[:_BLOCK])
                del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone: reading tells
            self._outgoing.clear()

    def read(self) -> Iterator[Message]:
        """Yield the messages that are complete; at the end of the channel, set `is_closed`.

        Raises:
            MachineError: the other end sends something else.

        """
        try:
            block = self._socket.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if not block:
            self.is_closed = True
        self._incoming += block
        at = 0
        try:
            while len(self._incoming) - at >= _HEADER.size:
                size, session, kind = _HEADER.unpack_from(self._incoming, at)
                if size > _MOST:
                    raise MachineError("the guest sent a message that is too long")
                end = at + _HEADER.size + size
                if len(self._incoming) < end:
                    break
                content = bytes(memoryview(self._incoming)[at + _HEADER.size : end])
                at = end
                yield Message(session, kind, content)
        finally:
            del self._incoming[:at]


class Link(Protocol):
    """What a session talks over: a channel to a guest, and what else must be read meanwhile."""

    @property
    def channel(self) -> Channel:
        """Return the channel."""
        ...

    def others(self) -> Sequence[int]:
        """Return descriptors to read from besides the channel's, such as a console."""
        ...

    def attend(self, descriptor: int) -> None:
        """Read from one of them."""
        ...

    def hear(self, message: Message) -> None:
        """Receive a message that belongs to no session."""
        ...

    def lost(self) -> MachineError:
        """Return the error for the end of the channel."""
        ...
