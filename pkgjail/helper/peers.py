"""Who is at the other end of a connection, and where that process lives.

The kernel says who connected (SO_PEERCRED, SO_PEERGROUPS; unix(7)). Which process sent the request is
checked in an order in which no process can take another one's id: open a descriptor of the process
(pidfd_open(2)), let the process repeat a word that was chosen after that, take the process id that the
kernel attaches to this message (SCM_CREDENTIALS), read /proc/PID, and find the process still alive by its
descriptor.

A process in another namespace or root directory than the daemon's means other files by the same paths, or
another network. A process that has given up gaining privileges (PR_SET_NO_NEW_PRIVS) may be confined by a
seccomp filter or by Landlock, which a jail made by the daemon would not have. Both are refused.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.helper.errors import RequestError
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.helper.protocol import Sender

_PEER_GROUPS, _PEER_PIDFD = 59, 77  # SO_PEERGROUPS (Linux 4.13) and SO_PEERPIDFD (6.5)
_MOST_BYTES = 1024  # that Python lets getsockopt(2) return
_UCRED = struct.Struct("iII")
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
"""The namespaces that a client must share with the daemon."""


class Peer(NamedTuple):
    """The process that connected: its ids, and `pidfd`, a descriptor of the process."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    pidfd: int


def uid_of(connection: socket.socket) -> int:
    """Return the user id of the process at the other end of a connection."""
    return _credentials(connection)[1]


@contextmanager
def peer_of(connection: socket.socket) -> Iterator[Peer]:
    """Find out who connected. The descriptor is closed at the end.

    Raises:
        RequestError: the process has ended.

    """
    pid, uid, gid = _credentials(connection)
    pidfd = _pidfd(connection, pid)
    try:
        yield Peer(pid, uid, gid, _groups(connection, pid), pidfd)
    finally:
        os.close(pidfd)


def is_alive(peer: Peer) -> bool:
    """Return whether the process has not ended; so nothing else has its id."""
    poll = select.poll()
    poll.register(peer.pidfd, select.POLLIN)
    return not poll.poll(0)


def refuse_other_sender(peer: Peer, sender: Sender | None) -> None:
    """Refuse a request that was sent by another process than the one that connected.

    Raises:
        RequestError: it was.

    """
    if sender is None or (sender.pid, sender.uid, sender.gid) != (peer.pid, peer.uid, peer.gid):
        raise RequestError("the request was sent by another process than the one that connected")
    refuse_ended(peer)


def refuse_ended(peer: Peer) -> None:
    """Refuse a process that has ended: what was read of its process id may be another one's.

    Raises:
        RequestError: it has.

    """
    if not is_alive(peer):
        raise RequestError("the process that connected has ended")


def refuse_foreign(peer: Peer, *, confined: bool) -> None:
    """Refuse a process that does not see the daemon's files and network, or that may be confined.

    Args:
        peer: the process.
        confined: whether a process is accepted that has given up gaining privileges.

    Raises:
        RequestError: it is refused.

    """
    try:
        for name in NAMESPACES:
            if _identity(f"/proc/{peer.pid}/ns/{name}") != _identity(f"/proc/self/ns/{name}"):
                raise RequestError(f"your process is in another {name} namespace than pkgjaild")
        if _root_of(str(peer.pid)) != _root_of("self"):
            raise RequestError("your process has another root directory than pkgjaild")
        gave_up = status_of(peer.pid).get("NoNewPrivs", "0") != "0"
    except OSError as error:
        refuse_ended(peer)
        raise RequestError(f"cannot look at your process: {error.strerror}") from None
    refuse_ended(peer)
    if gave_up and not confined:
        raise RequestError(
            "your process has given up gaining privileges (PR_SET_NO_NEW_PRIVS), and may be confined; the "
            "jail would not be (the administrator can allow it: [access] confined in /etc/pkgjaild.toml)"
        )


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status. Raises `OSError`."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="backslashreplace") as file:
        pairs = (line.rstrip("\n").partition(":\t") for line in file)
        return {name: value for name, _, value in pairs}


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(found)
    return pid, uid, gid


def _groups(connection: socket.socket, pid: int) -> tuple[int, ...]:
    """Return the supplementary groups of the process when it connected, and no others that its user has.

    More than 256 are read from proc_pid_status(5); `refuse_other_sender` makes sure of the process later.
    """
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _MOST_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return tuple(map(int, status_of(pid)["Groups"].split()))
    return struct.unpack(f"{len(found) // 4}I", found)


def _pidfd(connection: socket.socket, pid: int) -> int:
    """Return a descriptor of the process. A kernel before 6.5 can give it only by its id."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _PEER_PIDFD, 4)
        return int.from_bytes(found, sys.byteorder)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise RequestError("the process that connected has ended") from None
    try:
        return sc.pidfd_open(pid)
    except OSError:
        raise RequestError("the process that connected has ended") from None


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _root_of(process: str) -> tuple[bytes, tuple[int, int]]:
    """Return the mount and the directory that a process has as its root."""
    root = os.open(f"/proc/{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{root}", "rb") as file:
            mount = next(line for line in file if line.startswith(b"mnt_id:"))
        found = os.fstat(root)
        return mount, (found.st_dev, found.st_ino)
    finally:
        os.close(root)
