"""Attempts on processes: on init, on those of the host, and on what /proc shows of them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import time

from tests.escapes.harness import Refused, attempt, call, checked, facts, libc, opened, read

_PEEK = "memory of a process outside"


def _of_init(name: str, tries: str, flags: int = os.O_RDONLY) -> None:
    @attempt(f"/proc/1/{name}", tries, "what init holds of the host")
    def of_init() -> str:
        if name.endswith("/"):
            return f"listed {os.listdir('/proc/1/' + name)}"
        return opened(f"/proc/1/{name}", flags) if flags & os.O_ACCMODE else read(f"/proc/1/{name}")


_of_init("root/", "list the root of init")
_of_init("cwd/", "list the working directory of init")
_of_init("fd/0/", "list the directory that descriptor 0 of init may be")
_of_init("fdinfo/", "list what is known of them")
_of_init("map_files/", "list the files that init maps")
_of_init("maps", "read where init has what")
_of_init("mem", "open the memory of init for writing", os.O_RDWR)
_of_init("environ", "read the environment of init: the caller's")
_of_init("auxv", "read the auxiliary vector of init")
_of_init("syscall", "read what init waits in")
_of_init("stack", "read init's kernel stack")


@attempt("/proc/1/exe", "read the link to init's program", "a name of the host, or the program itself")
def program_of_init() -> str:
    return os.readlink("/proc/1/exe")


@attempt("/proc/1/mountinfo", "read init's mounts", "one that the jail's own table lacks")
def mounts_of_init() -> str:
    with open("/proc/1/mountinfo", "rb") as its, open("/proc/self/mountinfo", "rb") as ours:
        if more := set(its) - set(ours):
            return repr(more)
    raise Refused("the jail's own")


@attempt("/proc/1/fd", "read what descriptors 0 to 2 of init are", "a name of the host")
def descriptors_of_init() -> str:
    return repr([os.readlink(f"/proc/1/fd/{number}") for number in range(3)])


@attempt("/proc/1/cmdline", "read the arguments of init: the caller's", "an argument of the caller's")
def arguments_of_init() -> str:
    with open("/proc/1/cmdline", "rb") as file:
        found = file.read().rstrip(b"\0")
    if found == b"pkgjail-init":
        raise Refused("pkgjail-init")
    return repr(found)


@attempt("ptrace init", "PTRACE_SEIZE of process 1", "control of init, whose root the host made")
def trace_init() -> str:
    checked(libc.ptrace(0x4206, 1, None, None), "ptrace")
    return "seized"


@attempt("process_vm_readv init", "read memory of process 1", "memory of the caller's fork")
def read_init() -> str:
    return _peek(1)


@attempt("kill init", "kill process 1 with SIGKILL", "the end of the jail from inside, unreaped")
def kill_init() -> str:
    """The kernel takes the signal and drops it: pid_namespaces(7)."""
    os.kill(1, signal.SIGKILL)
    time.sleep(0.05)
    with open("/proc/1/stat", encoding="ascii", errors="replace"):
        raise Refused("ignored")


@attempt("pidfd of init", "pidfd_getfd(2) of descriptor 0 of init", "a descriptor of the caller's")
def descriptor_of_init() -> str:
    return f"descriptor {call('pidfd_getfd', call('pidfd_open', 1, 0), 0, 0)}"


def _peek(pid: int) -> str:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(facts["address"], 8)
    checked(libc.process_vm_readv(pid, local, 1, remote, 1, 0), "process_vm_readv")
    return f"read {buffer.raw!r}"


@attempt("kill outside", "SIGKILL to a process of the host by its number", "its end", control=True)
def kill_outside() -> str:
    os.kill(facts["victim"], 0)
    os.kill(facts["victim"], signal.SIGCONT)
    return "signalled"


@attempt(
    "kill every number", "signal 0 to many numbers that host processes have", "one that is not the jail's own"
)
def kill_everything() -> str:
    for pid in _numbers():
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        if pid not in _shown():
            return f"reached {pid}"
    raise Refused("only the jail's own")


def _numbers() -> list[int]:
    return [*range(1, 400), facts["victim"], facts["caller"], *facts["hosts"]]


def _shown() -> set[int]:
    """Return the processes of the jail and their threads, each of which has a number too."""
    return {
        int(thread)
        for name in os.listdir("/proc")
        if name.isdigit()
        for thread in os.listdir(f"/proc/{name}/task")
    }


@attempt("kill a group outside", "signal the caller's process group", "a host process", control=True)
def kill_group() -> str:
    os.killpg(facts["group"], signal.SIGCONT)
    return "signalled"


@attempt("tgkill outside", "signal a thread of the host", "a host process", control=True)
def tgkill() -> str:
    call("tgkill", facts["victim"], facts["victim"], 0)
    return "signalled"


@attempt("rt_sigqueueinfo outside", "queue a signal with a forged sender", "a host process", control=True)
def queue_signal() -> str:
    information = (ctypes.c_int * 32)(0, 0, -1)
    call("rt_sigqueueinfo", facts["victim"], int(signal.SIGCONT), information)
    return "signalled"


@attempt("pidfd_open outside", "a descriptor of a host process", "the descriptor", control=True)
def pidfd_outside() -> str:
    return f"descriptor {call('pidfd_open', facts['victim'], 0)}"


@attempt("ptrace outside", "PTRACE_SEIZE of a host process of the same user", "control of it", control=True)
def trace_outside() -> str:
    checked(libc.ptrace(0x4206, facts["victim"], None, None), "ptrace")
    return "seized"


@attempt("process_vm_readv outside", "read its memory", _PEEK, control=True)
def read_outside() -> str:
    return _peek(facts["victim"])


@attempt("process_vm_writev outside", "write its memory", _PEEK)
def write_outside() -> str:
    buffer = ctypes.create_string_buffer(b"XXXXXXX")
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    remote = (ctypes.c_void_p * 2)(facts["address"], 8)
    checked(libc.process_vm_writev(facts["victim"], local, 1, remote, 1, 0), "process_vm_writev")
    return "written"


def _under_proc(name: str, path: str, tries: str, *, control: bool) -> None:
    @attempt(f"/proc/PID/{name} outside", tries, "what a host process holds", control=control)
    def under_proc() -> str:
        return read(f"/proc/{facts['victim']}/{path}")


_under_proc("root", "root/etc/hostname", "read through the root of a host process", control=True)
_under_proc("environ", "environ", "read its environment", control=True)
_under_proc("maps", "maps", "read its maps", control=True)
_under_proc("cmdline", "cmdline", "read its arguments", control=True)


@attempt("prlimit outside", "set a limit of a host process", "the limit", control=True)
def limit_outside() -> str:
    soft, hard = resource.prlimit(facts["victim"], resource.RLIMIT_NOFILE)
    resource.prlimit(facts["victim"], resource.RLIMIT_NOFILE, (soft, hard))
    return "set"


@attempt("sched_setaffinity outside", "bind a host process to processor 0", "its affinity", control=True)
def affinity_outside() -> str:
    os.sched_setaffinity(facts["victim"], os.sched_getaffinity(facts["victim"]))
    return "set"


@attempt("sched_setscheduler outside", "make it a batch process", "its policy", control=True)
def policy_outside() -> str:
    os.sched_setscheduler(facts["victim"], os.SCHED_OTHER, os.sched_param(0))
    return "set"


@attempt("setpriority outside", "make it nicer", "its nice value", control=True)
def nice_outside() -> str:
    os.setpriority(os.PRIO_PROCESS, facts["victim"], os.getpriority(os.PRIO_PROCESS, facts["victim"]))
    return "set"


@attempt("setpriority of the user", "make every process of this user nice 19", "the victim's nice value")
def nice_user() -> str:
    """The outside is checked outside: the victim's nice value must stay."""
    os.setpriority(os.PRIO_USER, os.getuid(), 19)
    raise Refused("the jail's own alone")


@attempt("ioprio_set of the user", "give every process of this user the idle class", "the victim's class")
def ioprio_user() -> str:
    call("ioprio_set", 3, os.getuid(), 3 << 13)
    raise Refused("the jail's own alone")


@attempt("ioprio_set outside", "give a host process the idle class", "its class", control=True)
def ioprio_outside() -> str:
    call("ioprio_set", 1, facts["victim"], 2 << 13 | 4)
    return "set"


@attempt("kcmp outside", "compare a descriptor with a host process's", "whether they are one", control=True)
def kcmp_outside() -> str:
    return f"answer {call('kcmp', facts['victim'], os.getpid(), 2, 0, 0)}"


@attempt("migrate_pages outside", "move a host process's memory", "its pages", control=True)
def migrate_outside() -> str:
    nodes = (ctypes.c_ulong * 16)(1)
    return f"{call('migrate_pages', facts['victim'], 64, nodes, nodes)} pages"


@attempt("get_robust_list outside", "ask for an address in a host process", "the address", control=True)
def robust_outside() -> str:
    head, size = (ctypes.c_void_p * 1)(), (ctypes.c_size_t * 1)()
    call("get_robust_list", facts["victim"], head, size)
    return "told"


@attempt(
    "owner of a descriptor",
    "F_SETOWN of the caller's descriptor 0 to a host process, for SIGIO",
    "a signal outside",
)
def descriptor_owner() -> str:
    import fcntl

    fcntl.fcntl(0, fcntl.F_SETOWN, facts["victim"])
    return "set"


def _leaves(name: str, directory: str) -> None:
    @attempt(f"/proc/self/{name}", f"find a name of the host through /proc/self/{name}", "such a name")
    def leaves() -> str:
        if os.path.lexists(f"/proc/self/{name}{directory}"):
            return "found"
        raise Refused("the jail's own root")


_leaves("root", "/etc/shadow")
_leaves("cwd", "/../../../../etc/shadow")
_leaves("task/self", "/root/etc/shadow")


@attempt("inherited descriptors", "find any descriptor from 3 to 1023", "one of the caller's")
def inherited() -> str:
    """The harness's own pipe to its driver is told apart by what it is."""
    found = []
    for number in range(3, 1024):
        try:
            link = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if not link.startswith(("pipe:", "/proc/")):
            found.append(link)
    if found:
        return repr(found)
    raise Refused("none")


@attempt("standard descriptors' '..'", "openat(2) '..' from descriptors 0 to 2", "a directory of the host")
def standard_dots() -> str:
    refused = OSError(2, "none")
    for number in range(3):
        try:
            return f"descriptor {os.open('..', os.O_PATH, dir_fd=number)} by {number}"
        except OSError as error:  # noqa: PERF203 - each is an attempt
            refused = error
    raise refused


@attempt("name of the caller's output", "open it again for reading, and '..' behind it", "a host directory")
def output_dots() -> str:
    return f"listed {os.listdir('/proc/self/fd/1/..')}"


@attempt(
    "core pattern", "open /proc/sys/kernel/core_pattern for writing", "a program that the host runs as root"
)
def core_pattern() -> str:
    return opened("/proc/sys/kernel/core_pattern", os.O_WRONLY)


@attempt(
    "control group by clone3",
    "start a process in the control group of init, by its directory in /sys and clone3(2)",
    "a process that the jail's limits do not count",
)
def clone_into_group() -> str:
    """Of the directory the kernel asks who may write to it, not whether its mount is read-only.

    The caller's own group will do: the limits are those of one further down. Where there is no such
    directory, the call fails with EBADF.
    """
    with open("/proc/self/mountinfo") as table:
        fields = [line.split() for line in table]
    tops = [each[4] for each in fields if each[each.index("-") + 1] == "cgroup2"]
    with open("/proc/self/cgroup") as groups:
        inner = next((line[3:].rstrip("\n") for line in groups if line.startswith("0::")), "")
    group = os.open(tops[0] + inner, os.O_RDONLY | os.O_DIRECTORY) if tops else os.open("/", os.O_PATH)
    into_cgroup = 1 << 33
    asked = ctypes.create_string_buffer(
        struct.pack("11Q", into_cgroup, 0, 0, 0, 17, 0, 0, 0, 0, 0, group), 88
    )
    child = call("clone3", asked, 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return f"started {child} in {tops[0]}{inner}"


@attempt("child subreaper", "be made the reaper of what init leaves, then trace that", "a process outside")
def subreaper() -> str:
    checked(libc.prctl(36, 1, 0, 0, 0), "prctl")
    if os.getppid() in _shown():
        raise Refused("within the jail")
    return "a parent outside"


@attempt("daemon", "leave a process in a session of its own behind", "a process that outlives the jail")
def daemon() -> str:
    """Judged outside: nothing with the marker in its arguments is left."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(3, 64)
            os.execv("/usr/bin/sleep", ["sleep", facts["marker"]])
        os._exit(0)
    os.wait()
    raise Refused("left behind, for the test to look for")
