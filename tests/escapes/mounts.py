"""Attempts on mounts and roots, with what privilege the command has (none)."""

from __future__ import annotations

import ctypes
import os
import stat

from tests.escapes.harness import Refused, attempt, call, checked, facts, libc, mount, opened, read, umount

_RDONLY, _NOSUID, _REMOUNT, _BIND, _REC, _MOVE = 0x1, 0x2, 0x20, 0x1000, 0x4000, 0x2000
_HERE = -100


def _unmounts(place: str) -> None:
    @attempt(f"umount {place}", f"umount2({place}, MNT_DETACH)", "what lies below it")
    def unmounts() -> str:
        umount(place, 2)
        return "unmounted"


for _place in ("/", "/usr", "/usr/bin/env", "/proc", "/proc/sys", "/proc/kcore", "/sys", "/dev",
               "/dev/pts", "/dev/shm", "/dev/null", "/tmp"):  # fmt: skip
    _unmounts(_place)


def _remounts(place: str) -> None:
    @attempt(f"remount {place}", f"remount {place} read-write, set-user-ID honoured", "a writable mount")
    def remounts() -> str:
        mount("none", place, None, _REMOUNT | _BIND)
        return "remounted"


for _place in ("/", "/usr", "/usr/bin/env", "/proc/sys", "/sys", "/dev", "/srv/shown"):
    _remounts(_place)


@attempt("remount the filesystem", "remount /usr's filesystem itself read-write", "a writable filesystem")
def remount_filesystem() -> str:
    mount("none", "/usr", None, _REMOUNT)
    return "remounted"


@attempt("bind over", "bind /tmp over /usr/bin", "another file under a trusted name")
def bind_over() -> str:
    mount("/tmp", "/usr/bin", None, _BIND)
    return "bound"


@attempt("bind of the root", "bind / without what is mounted on it", "the root below the mounts")
def bind_root() -> str:
    mount("/", "/tmp", None, _BIND)
    return "bound"


@attempt("move a mount", "move /proc to /tmp", "what lies below it")
def move() -> str:
    mount("/proc", "/tmp", None, _MOVE)
    return "moved"


@attempt("change propagation", "make / shared", "mounts that reach the host")
def shared() -> str:
    mount("none", "/", None, 1 << 20 | _REC)
    return "shared"


@attempt("mount proc", "mount a new /proc", "one with nothing covered")
def mount_proc() -> str:
    mount("proc", "/tmp", "proc")
    return "mounted"


@attempt("mount a disk", "mount the host's disk", "the host's files")
def mount_disk() -> str:
    mount("/dev/vda", "/tmp", "ext4")
    return "mounted"


@attempt("mount a tmpfs", "mount a tmpfs over /etc", "another /etc")
def mount_tmpfs() -> str:
    mount("none", "/etc", "tmpfs")
    return "mounted"


@attempt("open_tree clone", "copy the mount of / without those on it", "what lies below them")
def open_tree() -> str:
    return f"descriptor {call('open_tree', _HERE, b'/', 1)}"


@attempt("open_tree of a locked mount", "copy the covered /proc/sys away from its cover", "a writable one")
def open_tree_locked() -> str:
    return f"descriptor {call('open_tree', _HERE, b'/proc', 1)}"


@attempt("move_mount", "move_mount(2) of /proc to /tmp", "what lies below it")
def move_mount() -> str:
    call("move_mount", _HERE, b"/proc", _HERE, b"/tmp", 0)
    return "moved"


@attempt("fsopen", "open a context for a new proc", "a filesystem of one's own")
def fsopen() -> str:
    return f"descriptor {call('fsopen', b'proc', 0)}"


@attempt("fspick", "pick the filesystem of /usr to change it", "its options")
def fspick() -> str:
    return f"descriptor {call('fspick', _HERE, b'/usr', 0)}"


@attempt("mount_setattr", "clear 'read-only' of /usr and all below", "writable mounts")
def mount_setattr() -> str:
    call("mount_setattr", _HERE, b"/usr", 0x8000, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32)
    return "cleared"


@attempt("pivot_root", "make /tmp the root, the old one below it", "a root of one's own")
def pivot_root() -> str:
    os.mkdir("/tmp/old")
    call("pivot_root", b"/tmp", b"/tmp/old")
    return "pivoted"


@attempt("chroot", "chroot to /tmp, the working directory left outside, then '..'", "the root above")
def chroot() -> str:
    os.makedirs("/tmp/chroot", exist_ok=True)
    os.chroot("/tmp/chroot")
    return "changed"


@attempt("detached root", "walk '..' from the root by a descriptor taken before", "the host's root")
def detached_root() -> str:
    root = os.open("/", os.O_PATH)
    for _ in range(64):
        root = os.open("..", os.O_PATH, dir_fd=root)
    if os.fstat(root).st_ino == os.stat("/").st_ino:
        raise Refused("the root is its own parent")
    return "somewhere else"


@attempt("the base below", "look for the names that the builder of the jail had", "its directories")
def base_below() -> str:
    found = [name for name in ("/old", "/new", "/.old", "/put_old") if os.path.lexists(name)]
    if found:
        return repr(found)
    raise Refused("none")


@attempt("listmount", "ask for all mounts of this namespace, and look for one without a place", "one outside")
def listmount() -> str:
    request = (ctypes.c_uint64 * 4)(24, 0xFFFFFFFFFFFFFFFF, 0, 0)
    found = (ctypes.c_uint64 * 100_000)()
    count = call("listmount", request, found, 100_000, 0)
    with open("/proc/self/mountinfo", "rb") as table:
        shown = len(table.readlines())
    if count <= shown:
        raise Refused("those shown")
    return f"{count} mounts where {shown} are shown"


@attempt("statmount of the host", "statmount(2) in the initial mount namespace", "the host's mounts")
def statmount() -> str:
    """The initial namespace's id is the lowest; see NS_MNT_GET_INFO in ioctl_nsfs(2)."""
    refused = OSError(2, "none")
    for number in range(1, 64):
        request = (ctypes.c_uint64 * 4)(32, 0xFFFFFFFFFFFFFFFF, 0, number)
        try:
            return f"{call('listmount', request, (ctypes.c_uint64 * 10)(), 10, 0)} mounts"
        except OSError as error:
            refused = error
    raise refused


@attempt("quotactl_fd", "turn quotas on for the filesystem of the bind", "the host's quotas")
def quotactl_fd() -> str:
    call("quotactl_fd", os.open(facts["bind"], os.O_RDONLY), 0x80000200, 0, b"/tmp/quota")
    return "on"


@attempt("quotactl", "turn quotas on for /usr", "the host's quotas")
def quotactl() -> str:
    call("quotactl", 0x80000200, b"/dev/vda", 0, b"/tmp/quota")
    return "on"


@attempt("swapon", "use a file as swap", "pages of the host in it")
def swapon() -> str:
    checked(libc.swapon(b"/tmp/swap", 0), "swapon")
    return "on"


@attempt("below a bind's mount", "look beneath what the host has mounted in a bind", "what is hidden there")
def below_bind() -> str:
    umount(facts["bind"], 2)
    return "unmounted"


@attempt("/sys write", "open a file of /sys for writing", "a setting of the host")
def write_sys() -> str:
    """Every one that there is to five levels; the first that opens is a success."""
    tried = 0
    refused = OSError(2, "nothing there")
    for top, directories, names in os.walk("/sys"):
        if top.count("/") > 5:
            directories.clear()
        for name in names:
            place = os.path.join(top, name)
            if os.path.islink(place):
                continue
            tried += 1
            try:
                return opened(place, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                refused = error
    if tried < 100:
        return f"only {tried} files tried"
    raise refused


@attempt("/proc/sys write", "open every file of /proc/sys for writing", "a setting of the host")
def write_proc_sys() -> str:
    refused = OSError(2, "nothing there")
    for top, _, names in os.walk("/proc/sys"):
        for name in names:
            try:
                return opened(os.path.join(top, name), os.O_WRONLY)
            except OSError as error:  # noqa: PERF203 - each is an attempt
                refused = error
    raise refused


# Writable by anybody anywhere: what is written is a request about the descriptor that it goes to.
_HARMLESS = {"/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/pressure/irq"}


@attempt(
    "/proc write", "open every other file of /proc, but processes', for writing", "a setting of the host"
)
def write_proc() -> str:
    refused = OSError(2, "nothing there")
    for top, directories, names in os.walk("/proc"):
        if top == "/proc":
            directories[:] = [name for name in directories if not name.isdigit() and name != "sys"]
        for name in names:
            place = os.path.join(top, name)
            if place in _HARMLESS or not stat.S_ISREG(os.lstat(place).st_mode):
                continue  # a device: the cover of what is hidden
            try:
                return opened(place, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                refused = error
    raise refused


@attempt(
    "/proc modes", "chmod(2) the files of /proc, but processes', to what they have", "a change of the host's"
)
def chmod_proc() -> str:
    """The kernel has one mode for all mounts of proc(5)."""
    refused = OSError(2, "nothing there")
    for name in os.listdir("/proc"):
        found = os.lstat(f"/proc/{name}")
        if stat.S_ISREG(found.st_mode):
            try:
                os.chmod(f"/proc/{name}", stat.S_IMODE(found.st_mode))
            except OSError as error:
                refused = error
            else:
                return f"changed /proc/{name}"
    raise refused


def _reads(name: str, what: str) -> None:
    @attempt(f"/proc/{name}", f"read /proc/{name}", what)
    def reads() -> str:
        descriptor = os.open(f"/proc/{name}", os.O_RDONLY | os.O_NONBLOCK)
        if not (content := os.read(descriptor, 60)):
            raise Refused("empty")
        return f"read {content!r}"


_reads("kcore", "the memory of the host")
_reads("kmsg", "the kernel's messages")
_reads("keys", "the host's keys")
_reads("key-users", "who has keys")
_reads("timer_list", "the host's timers and programs")
_reads("sched_debug", "the host's processes")
for _name in ("kpagecgroup", "kpagecount", "kpageflags", "pagetypeinfo", "slabinfo", "vmallocinfo"):
    _reads(_name, "how the host's memory is used")


@attempt("release_agent", "open any release_agent of a control group for writing", "a program run as root")
def release_agent() -> str:
    for top, _, names in os.walk("/sys/fs/cgroup"):
        if "release_agent" in names:
            return opened(os.path.join(top, "release_agent"), os.O_WRONLY)
    return read("/sys/fs/cgroup/release_agent")


def _writes(path: str, what: str) -> None:
    @attempt(f"write {path}", f"open {path} for writing", what)
    def writes() -> str:
        return opened(path, os.O_WRONLY)


_writes("/sys/kernel/uevent_helper", "a program that the host runs as root")
_writes("/sys/power/state", "the host asleep")
_writes("/sys/kernel/mm/ksm/run", "a setting of the host")
_writes("/proc/sysrq-trigger", "the host rebooted")
_writes("/proc/sys/kernel/modprobe", "a program that the host runs as root")
_writes("/proc/sys/kernel/hostname", "another host name")
_writes("/proc/sys/vm/drop_caches", "a setting of the host")
_writes("/proc/sys/net/ipv4/ip_forward", "a setting of the host")
_writes("/proc/sys/fs/binfmt_misc/register", "a program that the host runs for others")
