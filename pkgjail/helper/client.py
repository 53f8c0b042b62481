"""The client: a user's process that asks pkgjaild for a jail, and is to its caller as the jail itself.

It passes on signals to the service, stops when the command stops, and relays a terminal of the jail's own.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pkgjail.core.error_records import error_of
from pkgjail.core.errors import os_error_text
from pkgjail.core.reporter import SILENT
from pkgjail.core.untrusted import read_named
from pkgjail.helper import protocol
from pkgjail.helper.errors import HelperError, RequestError
from pkgjail.helper.peers import uid_of
from pkgjail.helper.signers import MOST_BYTES, SUFFIX
from pkgjail.helper.wishes import wish_record
from pkgjail.manifest import dump_manifest
from pkgjail.sandbox import terminal as terminals
from pkgjail.sandbox.job import make_pipe
from pkgjail.sandbox.signals import RELAYED, Relay, last_stop, relayed_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.helper.wishes import Wish

VARIABLE = "PKGJAIL_HELPER_SOCKET"
"""The variable that names another socket than the usual one. Whoever listens there must be root."""
_FAILED = 125
_SECONDS = 60  # until the service has answered
_STANDARD = (0, 1, 2)


def socket_path() -> str:
    """Return the path of the service's socket."""
    return os.environ.get(VARIABLE) or protocol.SOCKET


def ask_status() -> Mapping[str, Any]:
    """Return what the service allows the calling user.

    Raises:
        HelperError: it cannot be reached, or refuses this user.

    """
    with _connected() as (connection, word):
        protocol.send(connection, {"protocol": protocol.VERSION, "word": word, "ask": "status"})
        welcome = _answer(connection).get("welcome")
        if not isinstance(welcome, dict):
            raise HelperError("pkgjaild gave no answer")
        return welcome


def run_by_service(
    manifest: Manifest, wish: Wish, *, terminal: bool = False, reporter: Reporter = SILENT
) -> int:
    """Let the service run a command in a jail, and wait for its end.

    Args:
        manifest: what the jail has.
        wish: the command, the options and the source. Limits and `map_root` are ignored: refuse them before.
        terminal: whether the command gets a terminal of the jail's own, relayed to the caller's.
        reporter: receives progress and warnings.

    Returns:
        The command's exit status, or 128 + n if signal n ended it.

    Raises:
        HelperError: the service cannot be reached, refuses the request, or ended.
        KeyboardInterrupt: a second SIGINT came, and the jail was killed.
        PkgjailError: as `pkgjail.jails.run.run_in_jail`.

    """
    options = protocol.encoded(wish_record(wish))
    content, signature = dump_manifest(manifest), _signature(wish)
    request = {
        "protocol": protocol.VERSION,
        "ask": "run",
        "options": len(options),
        "manifest": len(content),
        "signature": len(signature),
        "terminal": terminal,
    }
    file = protocol.sealed((options, content, signature))
    mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, RELAYED)}
    try:
        with _connected() as (connection, word), _standard() as standard:
            try:
                protocol.send(connection, {**request, "word": word}, (*standard, file))
            except BrokenPipeError:
                _answer(connection)
            return _Run(connection, mask, reporter, terminal=terminal).follow()
    except (OSError, RequestError) as error:
        why = os_error_text(error, "the connection") if isinstance(error, OSError) else str(error)
        raise HelperError(f"pkgjaild cannot run the command: {why}") from error
    finally:
        os.close(file)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _RemoteRelay(Relay):
    """Relays signals to the command by way of the service."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(-1, to_group=False, insistent=True)
        self._connection = connection

    def send(self, number: int) -> None:
        """Send a signal to the service, which passes it on. It may have ended."""
        with suppress(OSError):
            protocol.send(self._connection, {"signal": int(number)})


class _Run:
    """One run: a thread takes the service's messages, and this one acts for the command."""

    def __init__(
        self, connection: socket.socket, mask: set[int], reporter: Reporter, *, terminal: bool
    ) -> None:
        self._connection = connection
        self._mask = mask
        self._reporter = reporter
        self._terminal = terminal
        self._status = _FAILED
        self._is_told = False  # whether the service has said why there is no status
        self._failure: BaseException | None = HelperError("pkgjaild has ended, and the command with it")
        self._stops, self._stops_write = make_pipe()
        self._channel, self._channel_write = socket.socketpair()

    def follow(self) -> int:
        """Return the command's exit status, or raise what the service reported."""
        relay = _RemoteRelay(self._connection)
        self._connection.settimeout(None)
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()  # with the relayed signals blocked, so that this thread gets them
        try:
            with relayed_by(relay, self._mask):
                if self._terminal:
                    terminals.relay(self._channel, self._stops, relay)
                while number := last_stop(self._stops):
                    relay.stop(number)
                    relay.resume()
            thread.join()
        finally:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # ends the thread, if this was interrupted
            thread.join()
            os.close(self._stops)
            self._channel.close()
        if relay.killed:
            raise KeyboardInterrupt("interrupted twice: killed the jail")
        if self._failure is not None:
            raise self._failure
        return self._status

    def _listen(self) -> None:
        """Take messages until the end of the connection."""
        try:
            while (packet := protocol.receive_large(self._connection)) is not None:
                self._take(packet)
        except (OSError, RequestError, ValueError, KeyError, TypeError) as error:
            self._failure = HelperError(f"pkgjaild sent something that is no answer: {error!r}")
        finally:
            os.close(self._stops_write)
            self._channel_write.close()

    def _take(self, packet: protocol.Packet) -> None:
        message = packet.message
        if "terminal" in message:
            socket.send_fds(self._channel_write, [b"t"], packet.descriptors)
        elif "stopped" in message:
            os.write(self._stops_write, bytes([int(message["stopped"])]))
        elif "warn" in message:
            self._reporter.warn(str(message["warn"]))
        elif "progress" in message:
            task, done, total = message["progress"]
            self._reporter.progress(str(task), int(done), int(total))
        elif "refused" in message:
            self._failure, self._is_told = _refusal(message), True
        elif "error" in message:
            self._failure, self._is_told = error_of(message["error"]), True
        elif "ended" in message:
            self._status = int(message["ended"])
            self._failure = self._failure if self._is_told else None
        protocol.close(packet.descriptors)


def _refusal(message: Mapping[str, Any]) -> HelperError:
    return HelperError(f"pkgjaild refuses: {message['refused']}")


@contextmanager
def _connected() -> Iterator[tuple[socket.socket, str]]:
    """Connect to the service, check that it is root's, and take its greeting; yields its word, too."""
    path = socket_path()
    with protocol.make_socket() as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(path)
        except OSError as error:
            raise HelperError(
                f"cannot reach pkgjaild: {os_error_text(error, path)}; the administrator can start it "
                "(docs/pkgjaild.md)"
            ) from error
        if (owner := uid_of(connection)) != 0:
            raise HelperError(f"cannot use {path}: user {owner} listens there, and not root")
        greeting = _answer(connection)
        if greeting.get("pkgjaild") != protocol.VERSION:
            raise HelperError(
                f"cannot use pkgjaild: it speaks version {greeting.get('pkgjaild')} of the protocol, and "
                f"this pkgjail version {protocol.VERSION}; use the same release for both"
            )
        yield connection, str(greeting.get("word"))


def _answer(connection: socket.socket) -> Mapping[str, Any]:
    """Return the next message of the service."""
    try:
        packet = protocol.receive_large(connection)
    except (OSError, RequestError) as error:
        raise HelperError(f"pkgjaild gave no answer: {error}") from error
    if packet is None:
        raise HelperError("pkgjaild closed the connection")
    if "refused" in packet.message:
        raise _refusal(packet.message)
    return packet.message


@contextmanager
def _standard() -> Iterator[tuple[int, ...]]:
    """Yield the standard descriptors, and /dev/null in the place of each that is closed."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield tuple(number if _is_open(number) else null for number in _STANDARD)
    finally:
        os.close(null)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _signature(wish: Wish) -> bytes:
    """Return the signature beside the manifest that the wish was made of; nothing if there is none."""
    for path in wish.options.inputs[:1]:
        with suppress(OSError):
            return read_named(os.fsdecode(path + SUFFIX), MOST_BYTES)
    return b""
