"""The processes of a run: which they are, what they have open, and their end."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal

from pkgjail.sandbox import syscalls as sc

_NR_PIDFD_GETFD = 438
_OF_A_THREAD = os.O_EXCL  # PIDFD_THREAD, since Linux 6.9
_MOST_GENERATIONS = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def thread_group(thread: int) -> int:
    """Return the process that a thread belongs to; the thread itself if it has ended."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{thread}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Tgid:"):
                return int(line[5:])
    return thread


def parent_of(process: int) -> int:
    """Return the parent of a process, or 0 if it has ended. See proc_pid_stat(5)."""
    try:
        with open(f"/proc/{process}/stat", "rb") as record:
            return int(record.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def is_descendant(process: int, ancestor: int) -> bool:
    """Return whether a process is a child of `ancestor`, or a child's child, and so on."""
    for _ in range(_MOST_GENERATIONS):
        process = parent_of(process)
        if process == ancestor:
            return True
        if process <= 1:
            return False
    return False


def descendants(ancestor: int) -> list[int]:
    """Return the processes that descend from this one, as far as they can be seen at once."""
    parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found: list[int] = []
    families = {ancestor}
    while families:
        families = {child for child, parent in parents.items() if parent in families}
        found += families
    return found


def end_descendants() -> None:
    """Kill all descendants of this process, which must be a subreaper, and wait for their end."""
    while True:
        for process in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def umask_of(process: int) -> int:
    """Return the umask of a process; proc_pid_status(5)."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{process}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    return 0o077


def duplicate(thread: int, descriptor: int) -> int:
    """Return a copy of an open file of another process; see pidfd_getfd(2).

    Raises:
        OSError: EBADF, there is no such descriptor, or the process may not be looked at.

    """
    process = _open_process(thread)
    try:
        arguments = (ctypes.c_int(process), ctypes.c_int(descriptor & 0xFFFFFFFF), ctypes.c_uint(0))
        copy = _libc.syscall(ctypes.c_long(_NR_PIDFD_GETFD), *arguments)
        if copy < 0:
            raise OSError(ctypes.get_errno() or errno.EBADF, "cannot copy a descriptor")
        return int(copy)
    finally:
        os.close(process)


def _open_process(thread: int) -> int:
    """Open a thread, or on older kernels its process."""
    number = ctypes.c_long(434)
    opened = _libc.syscall(number, ctypes.c_int(thread), ctypes.c_uint(_OF_A_THREAD))
    return int(opened) if opened >= 0 else sc.pidfd_open(thread_group(thread))
