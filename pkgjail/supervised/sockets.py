"""Unix sockets with a name: the supervisor connects and binds them for a process.

It copies the address once, and acts on a copy of the descriptor, so that no other address can be put in its
place. A path must be in the view. Abstract names are those that this run has bound; see unix(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from pkgjail.sandbox.notices import AT_FDCWD, GO_ON, absolute, error_answer, read_memory
from pkgjail.supervised.names import ABSENT, BIND
from pkgjail.supervised.processes import duplicate, umask_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.sandbox.notices import Answer
    from pkgjail.supervised.view import View

_FAMILY = struct.Struct("=H")
_MOST = 110  # bytes: struct sockaddr_un
_SO_DOMAIN = 39


class Sockets:
    """Answers connect(2) and bind(2)."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._abstract: set[bytes] = set()

    def answer(self, name: str, process: int, arguments: Sequence[int]) -> Answer:
        """Return the answer of a call. All sockets but Unix sockets are left to the kernel."""
        try:
            copy = socket.socket(fileno=duplicate(process, arguments[0]))
        except OSError as error:
            return error_answer(error.errno or errno.EBADF)
        try:
            if copy.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN) != socket.AF_UNIX:
                return GO_ON
            size = arguments[2] & 0xFFFFFFFF
            if not _FAMILY.size <= size <= _MOST:
                return error_answer(errno.EINVAL)
            address = read_memory(process, arguments[1], size)
            family, target = _FAMILY.unpack_from(address)[0], address[_FAMILY.size :]
            if family != socket.AF_UNIX:
                return error_answer(errno.EINVAL if name == "bind" else errno.EAFNOSUPPORT)
            if name == "bind":
                self._bind(copy, target, process)
            else:
                self._connect(copy, target, process)
        except OSError as error:
            return error_answer(error.errno or errno.EACCES)
        finally:
            copy.close()
        return 0, 0, 0

    def _connect(self, copy: socket.socket, target: bytes, process: int) -> None:
        if target[:1] in (b"", b"\0"):
            if target not in self._abstract:
                raise OSError(errno.ECONNREFUSED, "no such name")
            _connect(copy, target)
            return
        path = absolute(process, AT_FDCWD, target.split(b"\0")[0])
        place = self._view.find(path, process, follow=True)
        if place.what == ABSENT:
            raise OSError(place.error, "no such socket")
        if place.what != BIND:
            raise OSError(errno.ECONNREFUSED, "no socket")
        opened = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
        try:
            _connect(copy, b"/proc/self/fd/%d" % opened)
        finally:
            os.close(opened)

    def _bind(self, copy: socket.socket, target: bytes, process: int) -> None:
        if target[:1] in (b"", b"\0"):
            copy.bind(target)
            found = copy.getsockname()
            self._abstract.add(found if isinstance(found, bytes) else os.fsencode(found))
            return
        path = absolute(process, AT_FDCWD, target.split(b"\0")[0])
        place = self._view.find(path, process, follow=False)
        if place.what == ABSENT and not place.is_new:
            raise OSError(place.error, "no such directory")
        if place.what not in (ABSENT, BIND):
            raise OSError(errno.EADDRINUSE, "it is there")
        if place.bind is None or not place.bind.writable:
            raise OSError(errno.EROFS, "read-only")
        parent, _, name = place.path.rpartition(b"/")
        opened = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.umask(umask_of(process))
        try:
            copy.bind(b"/proc/self/fd/%d/%s" % (opened, name))
        finally:
            os.umask(before)
            os.close(opened)


def _connect(copy: socket.socket, target: bytes) -> None:
    """Connect without waiting: the supervisor has other calls to answer. The flag is the process's, too."""
    blocking = os.get_blocking(copy.fileno())
    os.set_blocking(copy.fileno(), False)
    try:
        copy.connect(target)
    finally:
        os.set_blocking(copy.fileno(), blocking)
