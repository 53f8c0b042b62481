"""The messages between a client and the service: one JSON object in each packet of a Unix socket.

The service greets a new connection with its protocol version and a random word. The client answers with one
request, which repeats that word, and passes its descriptors with it. Then both send further messages until
the service closes the connection. A packet has a bounded size. What is larger is passed as a file in memory,
sealed against any change, so that what was checked is what is used later. See unix(7), memfd_create(2) and
fcntl(2) on F_ADD_SEALS.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.untrusted import PARSE_INT, is_nested, parsing
from pkgjail.helper.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

VERSION = 1
"""The version of the protocol. A client and a service of other versions refuse each other."""
SOCKET = "/run/pkgjaild/socket"
MOST_BYTES = 16 << 10
"""The most bytes of a packet."""
DESCRIPTORS = 4
"""The descriptors of a request to run: standard input, output and error, and the file in memory."""

# fcntl has their names, but not in Python 3.9.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE
_PASS_CREDENTIALS = getattr(socket, "SO_PASSCRED", 16)
_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
_UCRED = struct.Struct("iII")
_PIECE = 1 << 20


class Sender(NamedTuple):
    """The process that sent a packet, as the kernel says."""

    pid: int
    uid: int
    gid: int


class Packet(NamedTuple):
    """A message with the descriptors that came with it; `sender` is known if the socket asks for it."""

    message: Mapping[str, Any]
    descriptors: tuple[int, ...]
    sender: Sender | None


def make_socket() -> socket.socket:
    """Return a new socket of the protocol's kind."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def ask_for_senders(connection: socket.socket) -> None:
    """Let each packet of a socket, and of those that it accepts, say who sent it."""
    connection.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 1)


def send(
    connection: socket.socket,
    message: Mapping[str, Any],
    descriptors: Sequence[int] = (),
    *,
    flags: int = 0,
) -> None:
    """Send a message, which must be small, with descriptors. Raises `OSError`."""
    data = encoded(message)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
    connection.sendmsg([data], ancillary if descriptors else [], flags | socket.MSG_NOSIGNAL)


def send_large(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a message of any size: a sealed file has what does not fit in a packet. Raises `OSError`."""
    data = encoded(message)
    if len(data) <= MOST_BYTES:
        connection.sendmsg([data], [], socket.MSG_NOSIGNAL)
        return
    file = sealed((data,))
    try:
        send(connection, {"attached": len(data)}, (file,))
    finally:
        os.close(file)


def encoded(message: Mapping[str, Any]) -> bytes:
    """Return a message as bytes."""
    return json.dumps(message, separators=(",", ":")).encode("ascii")


def receive(connection: socket.socket, descriptors: int = 0) -> Packet | None:
    """Receive one packet with at most so many descriptors; None at the end of the connection.

    Raises:
        RequestError: it is too large, has more descriptors, or is no JSON object; all of its descriptors
            are closed.
        OSError: the connection failed.

    """
    room = socket.CMSG_SPACE(4 * descriptors) if descriptors else 0
    room += socket.CMSG_SPACE(_UCRED.size)
    data, ancillary, flags, _ = connection.recvmsg(MOST_BYTES + 1, room, socket.MSG_CMSG_CLOEXEC)
    passed, sender = _ancillary(ancillary)
    if not data and not passed:
        return None
    try:
        is_cut = bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
        _refuse_excess(is_cut or len(data) > MOST_BYTES or len(passed) > descriptors)
        return Packet(decoded(data), passed, sender)
    except RequestError:
        close(passed)
        raise


def _refuse_excess(is_too_much: bool) -> None:  # noqa: FBT001
    if is_too_much:
        raise RequestError("the message is too large, or has too many descriptors")


def receive_large(connection: socket.socket, descriptors: int = 1) -> Packet | None:
    """Receive a message as `send_large` sends it. For clients: what the service attaches is believed."""
    packet = receive(connection, descriptors)
    if packet is None or "attached" not in packet.message:
        return packet
    try:
        size = os.fstat(packet.descriptors[0]).st_size
        return Packet(decoded(read(packet.descriptors[0], 0, size)), (), packet.sender)
    finally:
        close(packet.descriptors)


def decoded(data: bytes) -> dict[str, Any]:
    """Return the JSON object of some bytes. Raises `RequestError` if they are none."""
    with parsing(lambda why: RequestError(f"it is no JSON object: {why}")):
        text = data.decode("utf-8", "surrogatepass")
        if is_nested(text):
            raise RequestError("it is nested too deeply")
        value = json.loads(text, parse_int=PARSE_INT, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise RequestError("it is no JSON object")
    return value


def close(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def sealed(pieces: Sequence[bytes]) -> int:
    """Return a descriptor of a new file in memory with this content, which nobody can change."""
    file = os.memfd_create("pkgjail", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(file, rest) :]
        fcntl.fcntl(file, _ADD_SEALS, _SEALS)
    except BaseException:
        os.close(file)
        raise
    return file


def sealed_size(descriptor: int, most: int) -> int:
    """Return the size of a sealed file in memory.

    Its seals come first: other file systems do not have them, so that nothing is asked of one that a user
    made (FUSE).

    Raises:
        RequestError: it is none, it is not sealed, or it has more than `most` bytes.

    """
    try:
        seals = fcntl.fcntl(descriptor, _GET_SEALS)
    except OSError:
        raise RequestError("the manifest is not in a file in memory (memfd)") from None
    if seals & _SEALS != _SEALS:
        raise RequestError("the file in memory is not sealed: its content could change")
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise RequestError("the file in memory cannot be read")
    size = os.fstat(descriptor).st_size
    if size > most:
        raise RequestError(f"the request has {size:,} bytes; this host allows {most:,}")
    return size


def read(descriptor: int, start: int, size: int) -> bytes:
    """Read from a file in memory. The descriptor's own position is not used: its other owners can move it."""
    pieces = []
    while size:
        piece = os.pread(descriptor, min(size, _PIECE), start)
        if not piece:
            raise RequestError("the file in memory is shorter than the request says")
        pieces.append(piece)
        start, size = start + len(piece), size - len(piece)
    return b"".join(pieces)


def _ancillary(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[tuple[int, ...], Sender | None]:
    passed: list[int] = []
    sender = None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(data) // 4
            passed += struct.unpack(f"{count}i", data[: 4 * count])
        elif (level, kind) == (socket.SOL_SOCKET, _CREDENTIALS) and len(data) >= _UCRED.size:
            sender = Sender(*_UCRED.unpack(data[: _UCRED.size]))
    return tuple(passed), sender


def _no_constant(word: str) -> None:
    raise ValueError(f"the number {word}")
