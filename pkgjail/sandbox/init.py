"""The first process of a jail, PID 1: it builds the root, starts the command, and reaps processes."""

from __future__ import annotations

import contextlib
import os

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.capabilities import give_up_capabilities
from pkgjail.sandbox.command import RootCommand, start_command
from pkgjail.sandbox.job import SETUP_FAILED, close_descriptors
from pkgjail.sandbox.pseudo_filesystems import write_setting
from pkgjail.sandbox.rootfs import enter_new_root
from pkgjail.sandbox.signals import relaying, reset_handlers, wait

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from pkgjail.sandbox.job import Job


def run_init(job: Job) -> int:
    """In init, PID 1 of the jail: build the root, give up every privilege, start the command, reap."""
    os.setsid()  # the terminal then sends signals only to the caller, which relays them
    _hide_command_line()
    reset_handlers()
    callers_umask = os.umask(0o022)  # for what the jail itself makes
    _set_host_name(os.fsencode(job.program[3]))
    if not job.network:
        _bring_loopback_up()
    if job.program[4]:
        _give_own_process_id()
    enter_new_root(job.program)
    sc.join_new_session_keyring()
    if job.as_root:
        from_root = RootCommand(job, callers_umask)
        give_up_capabilities()
        if not job.wait_for_start():
            return SETUP_FAILED
        child = from_root.start()
    else:
        give_up_capabilities()
        job.install_filter()
        if not job.wait_for_start():
            return SETUP_FAILED
        os.umask(callers_umask)
        child = start_command(job)
    job.move_stops_pipe()
    job.answer_calls()
    close_descriptors()
    with relaying(child, job.mask, to_group=True):
        return wait(child, reap_all=True, stopped=job.report_stop)


def _set_host_name(name: bytes) -> None:
    """Set the host name, unless it is that already: a container's seccomp filter may forbid the call.

    There, a prepared jail with the container's former name fails here, and is prepared anew.
    """
    if name != os.fsencode(os.uname().nodename):
        sc.sethostname(name)


def _give_own_process_id() -> None:
    """Give the next process, which is the command, the process id that this one has outside of the jail.

    Programs that share memory tell each other apart by their process ids (Open MPI's opal_shmem). In PID
    namespaces of their own, all commands would have the same one. See ns_last_pid in proc_sys_kernel(5); a
    kernel without it (CONFIG_CHECKPOINT_RESTORE) chooses as always.
    """
    last = int(os.readlink("/proc/self")) - 1  # this /proc is still the host's
    with contextlib.suppress(OSError):
        write_setting(b"/proc/sys/kernel/ns_last_pid", b"%d" % last)


def _hide_command_line() -> None:
    """Overwrite this process's arguments, which the jail can read in /proc/1/cmdline.

    In proc_pid_stat(5), arg_start and arg_end are fields 48 and 49. The first two fields are the process id
    and a name in parentheses that may contain any characters. The last byte must stay 0: otherwise the kernel
    also shows what follows, which is the first of the caller's variables (fs/proc/base.c).
    """
    with open("/proc/self/stat", "rb") as record:
        fields = record.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    size = max(end - start, 0)
    sc.overwrite(start, b"pkgjail-init"[: max(size - 1, 0)].ljust(size, b"\0"))


def _bring_loopback_up() -> None:
    """Set IFF_UP on `lo`, which is down in a new network namespace; netdevice(7)."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 0x1
    import fcntl  # imported only if the network is off
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, siocgifflags, request))[1]
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sH14x", b"lo", flags | iff_up))
