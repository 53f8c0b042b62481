"""Calls that wait for an answer of another process, as that one sees them; see seccomp_unotify(2).

`serve` receives them. The rest is what it takes to understand one: the memory and the directories of the
process that waits. Every call waits for this, so it does no more than it must.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    # The value that a call returns, its error as a negative number, and flags of the answer.
    Answer = Optional[tuple[int, int, int]]

# From linux/seccomp.h.
_RECEIVE, _SEND, _ADD_FD, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40182103, 0x40082104
_SYNC_WAKE_UP = 1
_ADD_AND_SEND = 2
_NOTICE = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif with its struct seccomp_data
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_ADDED = struct.Struct("=QIIII")  # struct seccomp_notif_addfd

GO_ON: Answer = (0, 0, 1)
"""The answer that lets the kernel carry the call out."""
AT_FDCWD = 0xFFFFFF9C
"""The descriptor that stands for the working directory, as a number of 32 bits."""
_WORD = 0xFFFFFFFF
_PAGE = 4096
_FIRST_READ = 256  # bytes; most paths are shorter
_LONGEST = 4096  # PATH_MAX, with the NUL

# Keeps the lock of the interpreter, of which such a process has one busy thread.
_libc = ctypes.PyDLL(None, use_errno=True)
_VECTORS = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
_process_vm_readv, _process_vm_writev = _libc.process_vm_readv, _libc.process_vm_writev
for _each in (_process_vm_readv, _process_vm_writev):
    _each.argtypes = _VECTORS
    _each.restype = ctypes.c_ssize_t


def error_answer(number: int) -> Answer:
    """Return the answer with which a call fails."""
    return 0, -number, 0


def serve(
    listener: int,
    see: Callable[[int, int, int, int, list[int]], Answer],
    after: Callable[[], None],
    has_ended: Callable[[], bool],
) -> None:
    """Receive and answer calls until nobody is left who could make one.

    Args:
        listener: the descriptor of the filter.
        see: returns the answer of a call, from the notice's number, the process (a thread's id), the ABI's
            AUDIT_ARCH, the call's number and its arguments; None if it has sent the answer itself.
        after: is called once an answer has reached its process.
        has_ended: returns whether to end, after a signal or when a process was killed.

    """
    set_sync_wake_up(listener)
    blank = bytes(_NOTICE.size)
    notice = bytearray(blank)
    packed = bytearray(_ANSWER.size)
    ioctl, unpack, pack = fcntl.ioctl, _NOTICE.unpack, _ANSWER.pack_into
    while True:
        notice[:] = blank  # the kernel demands it
        try:
            ioctl(listener, _RECEIVE, notice)
        except OSError as error:
            if _is_over(listener, error, has_ended):
                return
            continue
        number, process, _, call, architecture, _, *arguments = unpack(notice)
        answer = see(number, process, architecture, call, arguments)
        if answer is not None:
            pack(packed, 0, number, *answer)
            try:
                ioctl(listener, _SEND, packed)
            except OSError:  # the process was killed, and what was read may be another's
                continue
        after()


def add_descriptor(listener: int, number: int, descriptor: int, *, cloexec: bool) -> Answer:
    """Let a call return a copy of an open file; return the answer if that fails, otherwise None."""
    flags = os.O_CLOEXEC if cloexec else 0
    try:
        fcntl.ioctl(listener, _ADD_FD, _ADDED.pack(number, _ADD_AND_SEND, descriptor, 0, flags))
    except OSError as error:  # too many open files; or the process was killed
        return error_answer(error.errno or errno.EMFILE)
    return None


def set_sync_wake_up(listener: int) -> None:
    """Let the kernel switch directly between a process and this one, where it can (since Linux 6.6)."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)


def _is_over(listener: int, error: OSError, has_ended: Callable[[], bool]) -> bool:
    """Return whether receiving failed because there is nobody left. Raises other errors than that.

    ENOENT is for a process that was killed, and since Linux 6.11 for a jail that has ended.
    """
    if error.errno not in {errno.EINTR, errno.ENOENT}:
        raise error
    if has_ended():
        return True
    if error.errno == errno.ENOENT:
        import select

        poll = select.poll()
        poll.register(listener, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))
    return False


def absolute(process: int, directory: int, path: bytes, root: bytes = b"") -> bytes:
    """Return a relative path with the directory that it starts at, and any in a root of its own.

    An empty path is that directory, or the open file itself.

    Raises:
        OSError: it starts at no directory, or that cannot be read.

    """
    if path[:1] == b"/":
        return root + path
    directory &= _WORD
    name = b"cwd" if directory == AT_FDCWD else b"fd/%d" % directory
    start = os.readlink(b"/proc/%d/%s" % (process, name))
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


def read_memory(process: int, address: int, size: int) -> bytes:
    """Return `size` bytes of the memory of a process. Raises `OSError` unless all can be read."""
    return _moved(_process_vm_readv, process, address, ctypes.create_string_buffer(size), size)


def write_memory(process: int, address: int, data: bytes) -> None:
    """Write to the memory of a process. Raises `OSError` unless all can be written."""
    _moved(_process_vm_writev, process, address, ctypes.create_string_buffer(data, len(data)), len(data))


def _moved(
    move: Callable[..., int], process: int, address: int, buffer: ctypes.Array[ctypes.c_char], size: int
) -> bytes:
    if not size:
        return b""
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), size)
    there = (ctypes.c_uint64 * 2)(address, size)
    if move(process, ctypes.addressof(here), 1, ctypes.addressof(there), 1, 0) != size:
        raise OSError(ctypes.get_errno() or errno.EFAULT, "cannot reach the memory of a process")
    return buffer.raw
