"""Attempts with namespaces: into those outside, and with the capabilities of nested ones."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
from typing import TYPE_CHECKING

from tests.escapes.harness import (
    Refused,
    attempt,
    call,
    checked,
    facts,
    libc,
    mount,
    opened,
    read,
    umount,
    unshare,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_MNT, _CGROUP, _UTS, _IPC, _USER, _PID, _NET = (
    0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
)  # fmt: skip
_BIND, _REC, _REMOUNT, _RDONLY = 0x1000, 0x4000, 0x20, 0x1


def _enters(name: str) -> None:
    @attempt(f"setns {name}", f"setns(2) to the {name} namespace of init", "a namespace of the host's")
    def enters() -> str:
        checked(libc.setns(os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0), "setns")
        return "entered"


for _name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
    _enters(_name)


@attempt("setns to a host process", "setns(2) by its number", "its namespaces", control=False)
def setns_outside() -> str:
    checked(libc.setns(call("pidfd_open", facts["victim"], 0), _MNT), "setns")
    return "entered"


def _asks(name: str, namespace: str, request: int) -> None:
    @attempt(
        f"{name} of {namespace}", f"ioctl {name} on /proc/self/ns/{namespace}", "a namespace of the host's"
    )
    def asks() -> str:
        own = os.open(f"/proc/self/ns/{namespace}", os.O_RDONLY)
        found = fcntl.ioctl(own, request)
        if os.fstat(found).st_ino == os.stat("/proc/self/ns/user").st_ino:
            raise Refused("the jail's own")
        return f"descriptor {found}"


_asks("NS_GET_PARENT", "user", 0xB702)
_asks("NS_GET_PARENT", "pid", 0xB702)
_asks("NS_GET_USERNS", "user", 0xB701)
_asks("NS_GET_USERNS", "mnt", 0xB701)
_asks("NS_GET_USERNS", "net", 0xB701)


@attempt("NS_MNT_GET_PREV", "ioctl for the mount namespace before this one", "the host's")
def previous_namespace() -> str:
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    information = (ctypes.c_uint64 * 2)(16, 0)
    return f"descriptor {fcntl.ioctl(own, 0x8010B70C, information)}"


def _unshares(name: str, flag: int) -> None:
    @attempt(f"unshare {name}", f"unshare(2) the {name} namespace without a user namespace", "privilege")
    def unshares() -> str:
        unshare(flag)
        return "unshared"


_unshares("mnt", _MNT)
_unshares("pid", _PID)
_unshares("net", _NET)


def nested(flags: int, then: Callable[[], str], *, as_root: bool = False) -> str:
    """Become privileged in a user namespace of one's own, and go on there (in a child, for PID)."""
    user, group = os.getuid(), os.getgid()
    unshare(_USER | flags)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{0 if as_root else user} {user} 1"),
        ("gid_map", f"{0 if as_root else group} {group} 1"),
    ):
        with (
            contextlib.suppress(PermissionError),
            open(f"/proc/self/{name}", "w", encoding="ascii") as setting,
        ):
            setting.write(text)  # user 0 outside may not be mapped; the capabilities are there without
    if not flags & _PID:
        return then()
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            answer = "+" + then()
        except OSError as error:
            answer = str(error.errno)
        except Refused as nothing:
            answer = "-" + str(nothing)
        os.write(writing, answer.encode())
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(reading, 4096).decode()
    if answer[0] == "+":
        return answer[1:]
    if answer[0] == "-":
        raise Refused(answer[1:])
    raise OSError(int(answer), os.strerror(int(answer)))


def _nested_unmounts(place: str) -> None:
    @attempt(f"nested: umount {place}", f"unmount {place} in a nested user namespace", "what lies below it")
    def unmounts() -> str:
        def then() -> str:
            umount(place, 2)
            return "unmounted"

        return nested(_MNT, then)


for _place in ("/usr", "/proc", "/proc/sys", "/proc/kcore", "/sys", "/dev", "/dev/null", "/tmp"):
    _nested_unmounts(_place)


def _nested_remounts(place: str) -> None:
    @attempt(f"nested: remount {place}", f"remount {place} writable in a nested one", "a writable mount")
    def remounts() -> str:
        def then() -> str:
            mount("none", place, None, _REMOUNT | _BIND)
            return "remounted"

        return nested(_MNT, then)


for _place in ("/", "/usr", "/proc/sys", "/sys", "/srv/shown"):
    _nested_remounts(_place)


@attempt("nested: clear read-only", "mount_setattr(2) of /usr in a nested one", "a writable mount")
def nested_setattr() -> str:
    def then() -> str:
        call("mount_setattr", -100, b"/usr", 0x8000, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32)
        return "cleared"

    return nested(_MNT, then)


def _proc_settings(place: str) -> str:
    return opened(f"{place}/sys/kernel/core_pattern", os.O_WRONLY)


@attempt("nested: new proc", "mount a proc with nothing covered, and write its settings", "core_pattern")
def nested_proc() -> str:
    def then() -> str:
        mount("proc", "/tmp", "proc")
        return _proc_settings("/tmp")

    return nested(_MNT | _PID, then)


@attempt("nested: new proc by fsopen", "the same by fsopen(2) and fsmount(2)", "core_pattern")
def nested_fsopen() -> str:
    def then() -> str:
        context = call("fsopen", b"proc", 0)
        call("fsconfig", context, 6, None, None, 0)
        call("move_mount", call("fsmount", context, 0, 0), b"", -100, b"/tmp", 4)
        return _proc_settings("/tmp")

    return nested(_MNT | _PID, then)


@attempt("nested: proc without its covers", "bind /proc elsewhere, not recursively", "the uncovered settings")
def nested_bind_proc() -> str:
    def then() -> str:
        mount("/proc", "/tmp", None, _BIND)
        return _proc_settings("/tmp")

    return nested(_MNT, then)


@attempt("nested: root without its mounts", "bind / elsewhere, not recursively", "what lies below the mounts")
def nested_bind_root() -> str:
    def then() -> str:
        mount("/", "/tmp", None, _BIND)
        return "bound"

    return nested(_MNT, then)


@attempt("nested: root writable", "bind / recursively elsewhere and remount it writable", "a writable copy")
def nested_copy() -> str:
    def then() -> str:
        mount("/", "/tmp", None, _BIND | _REC)
        mount("none", "/tmp/usr", None, _REMOUNT | _BIND)
        return "remounted"

    return nested(_MNT, then)


@attempt("nested: new sysfs", "mount a writable sysfs with a network namespace", "a setting of the host")
def nested_sysfs() -> str:
    def then() -> str:
        mount("sysfs", "/tmp", "sysfs")
        return opened("/tmp/kernel/mm/ksm/run", os.O_WRONLY)

    return nested(_MNT | _NET, then)


@attempt("nested: control groups", "mount a cgroup2 and open cgroup.kill of one's group", "the caller killed")
def nested_cgroup() -> str:
    """A new mount of it is writable, and its root is the caller's own group."""

    def then() -> str:
        mount("cgroup2", "/tmp", "cgroup2")
        for name in ("cgroup.kill", "cgroup.freeze", "cgroup.procs", "cgroup.subtree_control"):
            place = f"/tmp/{name}"
            if os.path.exists(place):
                return opened(place, os.O_WRONLY)
        raise Refused("mounted, and empty")

    return nested(_MNT | _CGROUP, then)


@attempt(
    "nested: old control groups", "mount the cgroup v1 'devices' and write release_agent", "a host program"
)
def nested_cgroup_v1() -> str:
    def then() -> str:
        mount("cgroup", "/tmp", "cgroup", 0, "memory")
        return opened("/tmp/release_agent", os.O_WRONLY)

    return nested(_MNT | _CGROUP, then)


@attempt("nested: mknod", "make the memory device in a tmpfs of one's own and open it", "the host's memory")
def nested_mknod() -> str:
    def then() -> str:
        mount("none", "/tmp", "tmpfs")
        os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1))
        return opened("/tmp/mem", os.O_RDONLY)

    return nested(_MNT, then)


@attempt("nested: disk", "mount the host's disk", "the host's files")
def nested_disk() -> str:
    def then() -> str:
        mount("/dev/vda", "/tmp", "ext4")
        return "mounted"

    return nested(_MNT, then)


@attempt("nested: overlay to write", "write a read-only bind through an overlay", "the host's file")
def nested_overlay() -> str:
    """A working overlay is no escape: the write must stay in the upper layer."""

    def then() -> str:
        mount("none", "/tmp", "tmpfs")
        for name in ("/tmp/upper", "/tmp/work", "/tmp/merged"):
            os.mkdir(name)
        mount(
            "none",
            "/tmp/merged",
            "overlay",
            0,
            f"lowerdir={facts['shown']},upperdir=/tmp/upper,workdir=/tmp/work",
        )
        with open("/tmp/merged/file", "w", encoding="ascii") as new:
            new.write("x")
        with open(facts["shown"] + "/file", encoding="ascii") as file:
            if file.read() == "x":
                return "written"
        raise Refused("written to its own layer")

    return nested(_MNT, then)


@attempt("nested: double chroot", "chroot twice with a descriptor kept, and walk up", "the host's root")
def nested_chroot() -> str:
    def then() -> str:
        outside = os.open("/", os.O_RDONLY)
        os.makedirs("/tmp/a", exist_ok=True)
        os.chroot("/tmp/a")
        os.fchdir(outside)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        return read(facts["canary"])

    return nested(0, then)


@attempt("nested: pivot_root back", "pivot_root(2) and look at the old root", "the host's root")
def nested_pivot() -> str:
    def then() -> str:
        mount("none", "/tmp", "tmpfs")
        os.mkdir("/tmp/old")
        call("pivot_root", b"/tmp", b"/tmp/old")
        return read("/old/../old" + facts["canary"])

    return nested(_MNT, then)


@attempt("nested: umount the root", "detach the root itself", "what it was mounted on")
def nested_root() -> str:
    def then() -> str:
        umount("/", 2)
        return read(facts["canary"])

    return nested(_MNT, then)


@attempt("nested: map root", "be user 0 by a map, and read a file of root's alone", "the file")
def nested_root_user() -> str:
    return nested(0, lambda: read(facts["roots"]), as_root=True)


@attempt("nested: map another user", "map the id of another user of the host", "that user's rights")
def nested_other_user() -> str:
    unshare(_USER)
    with open("/proc/self/uid_map", "w", encoding="ascii") as table:
        table.write("0 1 1")
    return "mapped"


@attempt("nested: map many users", "map 65,536 ids", "every user's rights")
def nested_many() -> str:
    unshare(_USER)
    with open("/proc/self/uid_map", "w", encoding="ascii") as table:
        table.write("0 0 65536")
    return "mapped"


@attempt(
    "nested: setns to init", "enter init's mount namespace with the capabilities of a nested one", "entered"
)
def nested_setns() -> str:
    def then() -> str:
        checked(libc.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), 0), "setns")
        return "entered"

    return nested(_MNT, then)


@attempt("nested: ptrace init", "trace init with the capabilities of a nested one", "control of init")
def nested_ptrace() -> str:
    def then() -> str:
        checked(libc.ptrace(0x4206, 1, None, None), "ptrace")
        return "seized"

    return nested(0, then)


@attempt("nested: root of init", "list /proc/1/root with the capabilities of a nested one", "its root")
def nested_init_root() -> str:
    return nested(0, lambda: f"listed {os.listdir('/proc/1/root')}")


@attempt(
    "nested: handle", "open_by_handle_at(2) of inode 2 with CAP_DAC_READ_SEARCH there", "the host's root"
)
def nested_handle() -> str:
    def then() -> str:
        blob = ctypes.create_string_buffer(64)
        ctypes.memmove(blob, (ctypes.c_uint32 * 4)(8, 1, 2, 0), 16)
        directory = os.open(facts["bind"], os.O_RDONLY)
        return f"descriptor {checked(libc.open_by_handle_at(directory, blob, 0), 'handle')}"

    return nested(_MNT, then)


@attempt(
    "nested: handle of a namespace", "open_by_handle_at(2) on nsfs for the initial namespaces", "one of them"
)
def nested_namespace_handle() -> str:
    def then() -> str:
        refused = OSError(2, "none")
        for number, kind in ((0xEFFFFFFF, _IPC), (0xEFFFFFFD, _USER), (0xEFFFFFFC, _PID), (0xEFFFFFF8, _MNT)):
            for identity in range(1, 9):
                blob = ctypes.create_string_buffer(64)
                ctypes.memmove(blob, (ctypes.c_uint32 * 6)(16, 0xF1, identity, 0, kind, number), 24)
                try:
                    return f"descriptor {checked(libc.open_by_handle_at(-10003, blob, 0), 'handle')}"
                except OSError as error:
                    refused = error
        raise refused

    return nested(_MNT, then)


@attempt("nested: hostname", "set the host name in a nested one", "another host name outside")
def nested_hostname() -> str:
    """In a UTS namespace of its own at best; without one it is the jail's, which is refused."""

    def then() -> str:
        checked(libc.sethostname(b"escaped", 7), "sethostname")
        return "set"

    return nested(0, then)


@attempt("nested: raise the limits", "write user.max_user_namespaces from a nested one", "the limit outside")
def nested_limits() -> str:
    return nested(0, lambda: opened("/proc/sys/user/max_user_namespaces", os.O_WRONLY))


@attempt("clone3 with a user namespace", "clone(2) with CLONE_NEWUSER and look for capabilities", "privilege")
def clone_user() -> str:
    """Capabilities over the jail's own mounts would be privilege; over a nested namespace's they are not."""

    def then() -> str:
        mount("none", "/etc", "tmpfs")
        return "mounted in the jail's own namespace"

    return nested(0, then)
