"""Attempts by system calls that want a privilege of the host."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import signal
import struct
import termios
import time

from tests.escapes.harness import Refused, attempt, call, checked, facts, libc, opened


@attempt("capset", "capset(2) of all capabilities", "a capability")
def capset() -> str:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    every = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    checked(libc.capset(header, every), "capset")
    return "set"


@attempt("ambient capability", "raise CAP_SYS_ADMIN in the ambient set", "a capability after exec")
def ambient() -> str:
    checked(libc.prctl(47, 2, 21, 0, 0), "prctl")
    return "raised"


@attempt("bounding set", "look for a capability in the bounding set", "one that a program could gain")
def bounding() -> str:
    found = [number for number in range(64) if libc.prctl(23, number, 0, 0, 0) == 1]
    if found:
        return repr(found)
    raise Refused("none")


@attempt("securebits", "unlock the secure bits", "root's capabilities at exec")
def securebits() -> str:
    checked(libc.prctl(28, 0, 0, 0, 0), "prctl")
    return "unlocked"


@attempt("no_new_privs", "clear no_new_privs", "programs that gain privilege")
def no_new_privs() -> str:
    checked(libc.prctl(38, 0, 0, 0, 0), "prctl")
    return "cleared"


@attempt("root by exec", "exec as user 0 and look for capabilities", "a capability")
def root_by_exec() -> str:
    """Without the locked secure bits a program run by user 0 gets all that the bounding set leaves."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(writing, 1)
        os.execv("/bin/sh", ["sh", "-c", "grep -E '^Cap(Prm|Eff)' /proc/self/status"])
    os.wait()
    sets = [int(line.split()[1], 16) for line in os.read(reading, 4096).splitlines()]
    if len(sets) == 2 and not any(sets):
        raise Refused("none")
    return repr(sets)


@attempt("setuid", "setuid(2) to another user", "that user's rights")
def setuid() -> str:
    os.setuid(facts["other"])
    return f"user {os.getuid()}"


@attempt("setresuid to root", "setresuid(2) to 0 when one is not, to another when one is", "those rights")
def setresuid() -> str:
    other = 0 if os.getuid() else facts["other"]
    os.setresuid(other, other, other)
    return f"user {os.getuid()}"


@attempt("setgid", "setgid(2) to another group", "that group's rights")
def setgid() -> str:
    os.setgid(facts["other"])
    return f"group {os.getgid()}"


@attempt("setgroups", "setgroups(2) to drop a group that forbids", "rights by lacking a group")
def setgroups() -> str:
    os.setgroups([])
    return "dropped"


@attempt("setfsuid", "setfsuid(2) to another user", "that user's files")
def setfsuid() -> str:
    libc.setfsuid(facts["other"])
    if libc.setfsuid(-1) == facts["other"]:
        return "changed"
    raise Refused("unchanged")


@attempt("sethostname", "sethostname(2)", "another host name")
def sethostname() -> str:
    checked(libc.sethostname(b"escaped", 7), "sethostname")
    return "set"


@attempt("setdomainname", "setdomainname(2)", "another domain name")
def setdomainname() -> str:
    checked(libc.setdomainname(b"escaped", 7), "setdomainname")
    return "set"


@attempt("clock_settime", "set the clock to what it is", "the host's time")
def clock_settime() -> str:
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "set"


@attempt("settimeofday", "set the time zone of the kernel", "the host's time")
def settimeofday() -> str:
    checked(libc.settimeofday(None, (ctypes.c_int * 2)(0, 0)), "settimeofday")
    return "set"


@attempt("adjtimex", "change the clock's speed", "the host's time")
def adjtimex() -> str:
    timex = (ctypes.c_long * 32)(0x4000)
    checked(libc.adjtimex(timex), "adjtimex")
    return "set"


@attempt("reboot", "reboot(2): the key combination disabled", "power over the host")
def reboot() -> str:
    """LINUX_REBOOT_CMD_CAD_OFF: where it succeeds nothing ends."""
    checked(libc.reboot(0), "reboot")
    return "done"


@attempt("init_module", "load a module", "code in the kernel")
def init_module() -> str:
    checked(libc.init_module(b"\x7fELF", ctypes.c_ulong(4), b""), "init_module")
    return "loaded"


@attempt("finit_module", "load a module from a descriptor", "code in the kernel")
def finit_module() -> str:
    call("finit_module", os.open("/usr/bin/env", os.O_RDONLY), b"", 0)
    return "loaded"


@attempt("delete_module", "unload a module", "a kernel without it")
def delete_module() -> str:
    checked(libc.delete_module(b"no_such_module", 0), "delete_module")
    return "unloaded"


@attempt("kexec_file_load", "unload the kernel to boot next, by the newer call", "the next kernel")
def kexec_file_load() -> str:
    call("kexec_file_load", -1, -1, 0, None, 1)
    return "unloaded"


@attempt("kexec_load", "unload the kernel to boot next", "the next kernel")
def kexec_load() -> str:
    call("kexec_load", 0, 0, None, 0)
    return "done"


@attempt("acct", "turn process accounting off", "the host's records")
def acct() -> str:
    call("acct", None)
    return "off"


@attempt("swapoff", "swapoff(2)", "the host without swap")
def swapoff() -> str:
    checked(libc.swapoff(b"/dev/zram0"), "swapoff")
    return "off"


@attempt("syslog", "read the kernel's messages by syslog(2), and clear them", "the messages cleared")
def syslog() -> str:
    checked(libc.klogctl(5, None, 0), "syslog")
    return "cleared"


@attempt("vhangup", "hang the terminal up", "the caller's terminal gone")
def vhangup() -> str:
    checked(libc.vhangup(), "vhangup")
    return "done"


@attempt("nfsservctl", "the call that ran the NFS server", "a server in the kernel")
def nfsservctl() -> str:
    call("nfsservctl", 0, None, None)
    return "done"


@attempt("perf_event_open", "count the whole host's events on processor 0", "what the host does")
def perf_event_open() -> str:
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0), 112)
    return f"descriptor {call('perf_event_open', attributes, -1, 0, -1, 0)}"


@attempt("bpf", "load a program of the kind that watches the kernel", "code in the kernel")
def bpf() -> str:
    """BPF_PROG_LOAD of a tracepoint program: 'r0 = 0; exit'."""
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    request = struct.pack("IIQQIIQII", 5, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0)
    return f"descriptor {call('bpf', 5, ctypes.create_string_buffer(request, 128), 128)}"


@attempt("bpf objects of the host", "BPF_PROG_GET_NEXT_ID", "a program of the host's")
def bpf_objects() -> str:
    call("bpf", 11, ctypes.create_string_buffer(128), 128)
    return "told"


@attempt("userfaultfd", "userfaultfd(2) for faults of the kernel", "a kernel that waits for us")
def userfaultfd() -> str:
    return f"descriptor {call('userfaultfd', os.O_CLOEXEC)}"


@attempt("fanotify", "watch a whole filesystem of the host", "what the host does to its files")
def fanotify() -> str:
    group = checked(libc.fanotify_init(0x200, 0), "fanotify_init")
    mask = ctypes.c_uint64(0x20)
    checked(libc.fanotify_mark(group, 0x101, mask, -100, b"/usr/bin/env"), "fanotify_mark")
    return "watched"


@attempt(
    "inotify of a hidden path",
    "watch a directory of the host by its name",
    "what happens there",
    control=True,
)
def inotify() -> str:
    watch = checked(libc.inotify_init(), "inotify_init")
    return f"watch {checked(libc.inotify_add_watch(watch, facts['secret'].encode(), 0xFFF), 'inotify')}"


@attempt("iopl", "iopl(2): the machine's ports", "the hardware")
def iopl() -> str:
    if platform.machine() != "x86_64":
        raise Refused("no ports on this machine")
    checked(libc.iopl(3), "iopl")
    return "open"


@attempt("ioperm", "ioperm(2): one port", "the hardware")
def ioperm() -> str:
    if platform.machine() != "x86_64":
        raise Refused("no ports on this machine")
    checked(libc.ioperm(ctypes.c_ulong(0x80), ctypes.c_ulong(1), 1), "ioperm")
    return "open"


@attempt("map page zero", "mmap(2) address 0, for a kernel that follows a null pointer", "the page")
def page_zero() -> str:
    checked(libc.personality(ctypes.c_ulong(0x0100000)), "personality")  # MMAP_PAGE_ZERO
    libc.mmap.restype = ctypes.c_long
    checked(libc.mmap(None, ctypes.c_size_t(4096), 3, 0x32, -1, ctypes.c_long(0)), "mmap")
    return "mapped"


@attempt("memfd program", "run a program from memory, which no mount forbids", "privilege by it")
def memfd() -> str:
    """Running it is no escape; what it runs with must be the jail's."""
    with open("/usr/bin/env", "rb") as source:
        program = os.memfd_create("program")
        os.write(program, source.read())
    os.fchmod(program, 0o6755)
    if (child := os.fork()) == 0:
        os.execve(
            program, ["env", "sh", "-c", "test $(id -u) = $1", "sh", str(os.getuid())], dict(os.environ)
        )
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        raise Refused("no other user id")
    return "another user id"


@attempt("limit above the hard one", "lower a hard limit and raise it again", "no limit")
def limits() -> str:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard or 1))
    except ValueError as error:  # Python's for EPERM
        raise Refused(str(error)) from None
    return "raised"


@attempt("realtime", "become a realtime process", "a host that waits for us")
def realtime() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "realtime"


@attempt("negative nice", "nice -20", "more than one's share")
def nicer() -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return "nicer"


@attempt(
    "terminal of nobody",
    "take the terminal on descriptor 0, which leads no session, and TIOCSTI",
    "input pushed",
)
def terminal_of_nobody() -> str:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    fcntl.ioctl(0, termios.TIOCSTI, b"#")
    return "pushed"


@attempt(
    "terminal of nobody, odd number", "the same with the upper half of the ioctl number set", "input pushed"
)
def terminal_of_nobody_odd() -> str:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    checked(libc.ioctl(0, ctypes.c_ulong(termios.TIOCSTI | 1 << 32), b"#"), "ioctl")
    return "pushed"


def _terminal() -> int:
    return int(facts["terminal"])


@attempt("controlling terminal", "open /dev/tty", "the caller's terminal")
def controlling() -> str:
    return opened("/dev/tty", os.O_RDWR)


@attempt("take the terminal", "TIOCSCTTY of the caller's terminal, by force", "its input and its signals")
def take_terminal() -> str:
    fcntl.ioctl(_terminal(), termios.TIOCSCTTY, 1)
    return "taken"


@attempt(
    "open the terminal", "open the inherited terminal again without O_NOCTTY, then TIOCSTI", "input pushed"
)
def open_terminal() -> str:
    again = os.open(f"/proc/self/fd/{_terminal()}", os.O_RDWR)
    fcntl.ioctl(again, termios.TIOCSTI, b"#")
    return "pushed"


@attempt("TIOCSTI", "push a character into the caller's terminal", "a command typed outside")
def push() -> str:
    fcntl.ioctl(_terminal(), termios.TIOCSTI, b"#")
    return "pushed"


@attempt("TIOCLINUX", "paste a selection into the caller's terminal", "a command typed outside")
def paste() -> str:
    fcntl.ioctl(_terminal(), 0x541C, b"\x03")
    return "pasted"


@attempt("TIOCSPGRP", "make oneself the terminal's foreground group", "the caller's keys")
def foreground() -> str:
    os.tcsetpgrp(_terminal(), os.getpgrp())
    return "foreground"


@attempt("TIOCSIG", "signal the terminal's foreground group", "a signal outside")
def signal_terminal() -> str:
    fcntl.ioctl(_terminal(), 0x40045436, int(signal.SIGINT))
    return "signalled"


@attempt(
    "other end of the terminal", "open the other end through /proc/self/fd", "what is typed, and the power to"
)
def other_end() -> str:
    return f"descriptor {fcntl.ioctl(_terminal(), 0x5441, os.O_RDWR)}"


@attempt("other terminals", "open any terminal of the host", "it")
def other_terminals() -> str:
    found = [name for name in os.listdir("/dev/pts") if name != "ptmx"]
    if found:
        return repr(found)
    raise Refused("none")
