"""Receive the calls of a jail's processes, count the paths that they ask for, and let the kernel go on.

Every call with a path waits for this, so this imports the standard library and the sandbox alone, and does
no more than it must before the answer: read the path, and the directory that a relative one starts at.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from pkgjail.audit.answers import Answers
from pkgjail.audit.processes import Processes
from pkgjail.audit.tally import Tally
from pkgjail.sandbox.path_calls import ARCHITECTURES, CHANGE, EXEC, LIST, OPEN, SET_UP_RING, shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pkgjail.sandbox.observation import Observed

# From linux/seccomp.h.
_RECEIVE, _SEND, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
_SYNC_WAKE_UP = 1
_GO_ON = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp

_AT_FDCWD = 0xFFFFFF9C
_WORD = 0xFFFFFFFF
_PAGE = 4096
_FIRST_READ = 256  # bytes; most paths are shorter
_LONGEST = 4096  # PATH_MAX, with the NUL
# The process was killed meanwhile, or the kernel finds no path at the address either, or too long a one.
_NO_LOOK_UP = (errno.ESRCH, errno.ENOENT, errno.EFAULT, errno.ENAMETOOLONG)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# Keeps the lock of the interpreter, of which this process has one thread.
_libc = ctypes.PyDLL(None, use_errno=True)
_process_vm_readv = _libc.process_vm_readv
_process_vm_readv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p) + (
    ctypes.c_ulong,
) * 2
_process_vm_readv.restype = ctypes.c_ssize_t


class Supervisor:
    """Answers the calls of one jail. `run` returns when the jail has ended."""

    def __init__(self, jail: Observed, processes: Processes, tally: Tally) -> None:
        self._jail = jail
        self._processes = processes
        self._tally = tally
        self._shapes = {architecture: shapes(architecture) for architecture in ARCHITECTURES}

    def run(self) -> None:
        """Receive and answer calls until the jail has ended."""
        listener, init, tally = self._jail.listener, self._jail.init, self._tally
        self._set_sync_wake_up()
        blank = bytes(_NOTICE.size)
        notice = bytearray(blank)
        answer = bytearray(_ANSWER.size)
        ioctl, unpack, pack, see = fcntl.ioctl, _NOTICE.unpack, _ANSWER.pack_into, self._see
        while True:
            notice[:] = blank  # the kernel demands it
            try:
                ioctl(listener, _RECEIVE, notice)
            except OSError as error:
                if self._is_over(error):
                    return
                continue
            number, process, _, call, architecture, _, *arguments = unpack(notice)
            seen: Iterable[tuple[dict[bytes, int], bytes]] = ()
            fault = 0
            if process != init:
                seen, fault = see(process, architecture, call, arguments)
            pack(answer, 0, number, 0, -fault, 0 if fault else _GO_ON)
            try:
                ioctl(listener, _SEND, answer)
            except OSError:  # the process was killed, and what was read may be another's
                continue
            for table, path in seen:
                if path in table:
                    table[path] += 1
                else:
                    table[path] = 1
                    tally.grow(path)

    def _see(
        self, process: int, architecture: int, call: int, arguments: Sequence[int]
    ) -> tuple[list[tuple[dict[bytes, int], bytes]], int]:
        """Return each path that a call asks for, with the table to count it in, and the error to answer."""
        shape = self._shapes[architecture].get(call)
        if shape is None or shape[0] == CHANGE:  # chown(2) has ids, too
            fault = self._fault(process, architecture, call, arguments)
            if fault or shape is None:
                return [], fault
        kind, places, flags = shape
        if kind == OPEN and flags >= 0:
            kind = _kind_of_open(arguments[flags])
        state = self._processes.get(process) or self._processes.meet(process)
        if kind == EXEC:
            self._processes.expect_change(process)
        if state.is_ours:
            return [], 0
        table = state.tables[kind]
        seen = []
        for directory, position in places:
            address = arguments[position]
            if not address:
                continue  # utimensat(2) of an open file
            try:
                path = read_path(process, address)
                if path[:1] != b"/" or state.root:
                    start = arguments[directory] if directory >= 0 else _AT_FDCWD
                    path = _absolute(process, start, path, state.root)
            except OSError as error:
                if error.errno not in _NO_LOOK_UP:
                    self._tally.unread += 1
                continue
            seen.append((table, path))
        return seen, 0

    def _fault(self, process: int, architecture: int, call: int, arguments: Sequence[int]) -> int:
        """Return the error of a call that is refused, 0 for any other."""
        if call == SET_UP_RING:
            self._tally.rings += 1
            return errno.ENOSYS
        is_refused = self._jail.ids.is_refused(architecture, call, arguments, process)
        return errno.EPERM if is_refused else 0

    def _set_sync_wake_up(self) -> None:
        """Let the kernel switch directly between a process and this one, where it can (since Linux 6.6)."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._jail.listener, _SET_FLAGS, _SYNC_WAKE_UP)

    def _is_over(self, error: OSError) -> bool:
        """Return whether receiving failed because there is nobody left. Raises other errors than that.

        ENOENT is for a process that was killed, and since Linux 6.11 for a jail that has ended.
        """
        if error.errno not in {errno.EINTR, errno.ENOENT}:
            raise error
        if self._jail.has_ended():
            return True
        if error.errno == errno.ENOENT:
            import select

            poll = select.poll()
            poll.register(self._jail.listener, 0)
            return any(events & select.POLLHUP for _, events in poll.poll(0))
        return False


def _kind_of_open(flags: int) -> int:
    if flags & _WRITES:
        return CHANGE
    return LIST if flags & os.O_DIRECTORY else OPEN


def _absolute(process: int, directory: int, path: bytes, root: bytes) -> bytes:
    """Return a relative path with the directory that it starts at, and any in a root of its own.

    An empty path is that directory, or the open file itself.
    """
    if path[:1] == b"/":
        return root + path
    directory &= _WORD
    name = "cwd" if directory == _AT_FDCWD else f"fd/{directory}"
    start = os.readlink(b"/proc/%d/%s" % (process, name.encode()))
    if start[:1] != b"/":
        raise OSError(errno.EBADF, "no directory")  # such as a pipe
    return start + b"/" + path if path else start


# An iovec each: of this process's buffer, and of the other's memory.
_buffer = ctypes.create_string_buffer(_PAGE + 1)
_here = (ctypes.c_uint64 * 2)(ctypes.addressof(_buffer), _PAGE)
_there = (ctypes.c_uint64 * 2)()
_here_address, _there_address = ctypes.addressof(_here), ctypes.addressof(_there)


def read_path(process: int, address: int) -> bytes:
    """Return the path at an address in the memory of a process, without its NUL.

    Raises:
        OSError: it cannot be read; ENAMETOOLONG for what the kernel refuses, too.

    """
    found = b""
    while True:
        size = min(_FIRST_READ, _PAGE - address % _PAGE)  # the next page may be none of the process's
        _there[0] = address
        _there[1] = _here[1] = size
        if _process_vm_readv(process, _here_address, 1, _there_address, 1, 0) != size:
            raise OSError(ctypes.get_errno() or errno.EFAULT, "cannot read a path")
        _buffer[size] = b"\0"
        part = _buffer.value
        found += part
        if len(found) >= _LONGEST:
            raise OSError(errno.ENAMETOOLONG, "longer than PATH_MAX")
        if len(part) < size:
            return found
        address += size


def observe(jail: Observed, root: bytes, binds: Sequence[bytes], libraries: Mapping[bytes, bytes]) -> bytes:
    """See the calls of a jail until it has ended, and return what `Tally.result` makes of them.

    `root` is the source's root directory; the further arguments are those of `pkgjail.audit.answers.Answers`.
    """
    source = os.open(root, os.O_PATH | os.O_DIRECTORY)
    tally = Tally(Answers(jail.root, source, root, binds, libraries))
    tally.processes = Processes(jail, tally.grow)
    Supervisor(jail, tally.processes, tally).run()
    return tally.result()
