"""The system calls that the sandbox needs and Python does not wrap, under their C names.

Each wrapper raises `OSError` with the file's name. Calls newer than Linux 5.0 have the same number on all
architectures of Linux except alpha (include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

# From unshare(2):
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# From mount(2), umount2(2):
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

# From open_tree(2), move_mount(2), mount_setattr(2), openat2(2):
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# From prctl(2):
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
# capabilities(7): NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE, each with its lock.
SECUREBITS_LOCKED_DOWN = 0x03 | 0x0C | 0xC0

_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_PIDFD_OPEN = 434
_NR_CLONE3 = 435
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
_NR_KEYCTL = {
    "x86_64": 250, "i386": 288, "i686": 288, "aarch64": 219, "riscv64": 219, "loongarch64": 219,
    "armv7l": 311, "armv8l": 311, "ppc64le": 271, "ppc64": 271, "s390x": 280,
}  # fmt: skip
_NR_SECCOMP = {
    "x86_64": 317, "i386": 354, "i686": 354, "aarch64": 277, "riscv64": 277, "loongarch64": 277,
    "armv7l": 383, "armv8l": 383, "ppc64le": 358, "ppc64": 358, "s390x": 348,
}  # fmt: skip
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8
_SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20
_SECCOMP_USER_NOTIF_FLAG_CONTINUE = 0x1
_SECCOMP_IOCTL_NOTIF_RECV = 0xC0502100
_SECCOMP_IOCTL_NOTIF_SEND = 0xC0182101
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CLOSE_RANGE_CLOEXEC = 0x4
_LAST_DESCRIPTOR = 0xFFFFFFFF
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Holds Python's global interpreter lock during the call, so that a cloned child has it too.
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)
_libc_with_gil.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4


_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class _Notice(ctypes.Structure):
    """struct seccomp_notif of linux/seccomp.h, with its struct seccomp_data."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("pid", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("data", ctypes.c_byte * 64),
    )


class _Answer(ctypes.Structure):
    """struct seccomp_notif_resp."""

    _fields_ = (
        ("id", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, name: bytes | str | None) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def unshare(flags: int) -> None:
    """Move this process to new namespaces of the kinds in `flags`; see unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def clone(flags: int) -> int:
    """Fork a child in new namespaces of the kinds in `flags`; return 0 in the child. See clone(2).

    Only a process of one thread may do this: neither the C library nor Python is informed of the fork, so a
    lock that another thread holds would stay locked in the child.
    """
    arguments = _CloneArgs(flags=flags, exit_signal=signal.SIGCHLD)
    size = ctypes.c_size_t(ctypes.sizeof(arguments))
    return _check(_libc_with_gil.syscall(ctypes.c_long(_NR_CLONE3), ctypes.byref(arguments), size), "clone3")


def pidfd_open(process: int) -> int:
    """Return a descriptor that becomes readable when `process` ends; see pidfd_open(2)."""
    arguments = (ctypes.c_int(process), ctypes.c_uint(0))
    return _check(_libc.syscall(ctypes.c_long(_NR_PIDFD_OPEN), *arguments), "pidfd_open")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes = b"") -> None:
    """Mount a filesystem or change a mount; see mount(2)."""
    _check(_libc.mount(source, target, kind, flags, data or None), target)


def umount2(target: bytes, flags: int) -> None:
    """Unmount `target`; see umount2(2)."""
    _check(_libc.umount2(target, ctypes.c_int(flags)), target)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Make `new_root` the root of this mount namespace; see pivot_root(2)."""
    _check(_libc.pivot_root(new_root, put_old), "pivot_root")


def open_tree(directory: int, path: bytes, flags: int) -> int:
    """Open the mount at `path`, or with `OPEN_TREE_CLONE` a copy; return a descriptor; see open_tree(2)."""
    arguments = (ctypes.c_int(directory), ctypes.c_char_p(path), ctypes.c_uint(flags))
    return _check(_libc.syscall(ctypes.c_long(_NR_OPEN_TREE), *arguments), path)


def move_mount(mount_fd: int, directory: int, path: bytes) -> None:
    """Attach a mount at `path`, or with an empty path at `directory`; see move_mount(2)."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    source = (ctypes.c_int(mount_fd), ctypes.c_char_p(b""))
    target = (ctypes.c_int(directory), ctypes.c_char_p(path), ctypes.c_uint(flags))
    _check(_libc.syscall(ctypes.c_long(_NR_MOVE_MOUNT), *source, *target), path)


def mount_setattr(
    directory: int, path: bytes, attributes: int, *, propagation: int = 0, recursive: bool = True
) -> None:
    """Set attributes on the mount at `path` and, by default, on all mounts below it; see mount_setattr(2).

    `propagation` is MS_PRIVATE, for example; 0 leaves it as it is.
    """
    attr = _MountAttr(attr_set=attributes, propagation=propagation)
    flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | (AT_RECURSIVE if recursive else 0)
    location = (ctypes.c_int(directory), ctypes.c_char_p(path), ctypes.c_uint(flags))
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    _check(_libc.syscall(ctypes.c_long(_NR_MOUNT_SETATTR), *location, ctypes.byref(attr), size), path)


def fsmount_data_overlay(layer: int, data: int) -> int:
    """Make an overlay of `layer` over the data-only layer `data`, and return a descriptor.

    It takes descriptors, because paths would have to be quoted; see fsopen(2), fsconfig(2), fsmount(2).
    """
    return _fsmount_overlay(
        (_FSCONFIG_SET_FD, b"lowerdir+", None, layer), (_FSCONFIG_SET_FD, b"datadir+", None, data)
    )


def fsmount_whiteout_overlay(layers: tuple[int, int], proc: bytes) -> int:
    """Make an overlay of two layers, the upper one first, and return a descriptor.

    `proc` is the mount point of a proc(5). The layers are passed as its links, because "lowerdir+" takes
    descriptors only since Linux 6.13.
    """
    paths = b":".join(b"%s/self/fd/%d" % (proc, layer) for layer in layers)
    return _fsmount_overlay((_FSCONFIG_SET_STRING, b"lowerdir", paths, 0))


def _fsmount_overlay(*parameters: tuple[int, bytes, bytes | None, int]) -> int:
    """Make an overlay that uses attributes in the "user" namespace ("userxattr"); return a descriptor."""
    flags = ctypes.c_uint(_FSOPEN_CLOEXEC)
    context = _check(_libc.syscall(ctypes.c_long(_NR_FSOPEN), ctypes.c_char_p(b"overlay"), flags), "overlay")
    try:
        _fsconfig(context, _FSCONFIG_SET_FLAG, b"userxattr")
        for command, key, value, descriptor in parameters:
            _fsconfig(context, command, key, value, descriptor)
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None)
        arguments = (ctypes.c_int(context), ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(0))
        return _check(_libc.syscall(ctypes.c_long(_NR_FSMOUNT), *arguments), "overlay")
    finally:
        os.close(context)


def _fsconfig(
    context: int, command: int, key: bytes | None, value: bytes | None = None, descriptor: int = 0
) -> None:
    what = (ctypes.c_int(context), ctypes.c_uint(command), ctypes.c_char_p(key), ctypes.c_char_p(value))
    result = _libc.syscall(ctypes.c_long(_NR_FSCONFIG), *what, ctypes.c_int(descriptor))
    _check(result, b"overlay " + (key or b"create"))


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Open `path` below `directory` by the rules in `resolve`, and return a descriptor; see openat2(2)."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    location = (ctypes.c_int(directory), ctypes.c_char_p(path))
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _check(_libc.syscall(ctypes.c_long(_NR_OPENAT2), *location, ctypes.byref(how), size), path)


def close_range(first: int, last: int = _LAST_DESCRIPTOR, *, cloexec: bool = False) -> None:
    """Close every descriptor from `first` to `last`, now or, with `cloexec`, at exec; see close_range(2)."""
    bounds = (ctypes.c_uint(first), ctypes.c_uint(last))
    flags = ctypes.c_uint(_CLOSE_RANGE_CLOEXEC if cloexec else 0)
    _check(_libc.syscall(ctypes.c_long(_NR_CLOSE_RANGE), *bounds, flags), None)


def prctl(option: int, argument: int = 0, further: int = 0) -> None:
    """Change an attribute of this process; see prctl(2)."""
    _check(_libc.prctl(option, argument, further, 0, 0), f"prctl({option})")


def sethostname(name: bytes) -> None:
    """Set the host name of this UTS namespace; see sethostname(2)."""
    _check(_libc.sethostname(name, ctypes.c_size_t(len(name))), name)


def join_new_session_keyring() -> None:
    """Replace the inherited session keyring by an empty one; see keyctl(2).

    It is no error if keyctl(2) is missing (ENOSYS) or a container's seccomp filter forbids it (EPERM): then
    the command in the jail cannot call it either.
    """
    number = ctypes.c_long(_NR_KEYCTL[os.uname().machine])
    join = ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING)
    if _libc.syscall(number, join, ctypes.c_void_p(None)) == -1:
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EPERM):
            raise OSError(code, os.strerror(code), "keyctl")


def capset(kept: int = 0) -> None:
    """Give up all capabilities but those whose bits are set, all below 32; see capset(2)."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)(kept, kept))), "capset")


def seccomp_filter(program: int, *, listener: bool = False) -> int:
    """Install a filter, the struct sock_fprog at the address `program`, for this process; see seccomp(2).

    With `listener`, return a descriptor of the calls that the filter leaves to another process to answer.
    Once that has seen a call, only a signal that kills interrupts it, where the kernel can (since 5.19).
    """
    if not listener:
        return _seccomp(program, 0)
    try:
        return _seccomp(program, _SECCOMP_FILTER_FLAG_NEW_LISTENER | _SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _seccomp(program, _SECCOMP_FILTER_FLAG_NEW_LISTENER)


def _seccomp(program: int, flags: int) -> int:
    number = ctypes.c_long(_NR_SECCOMP[os.uname().machine])
    operation = ctypes.c_uint(_SECCOMP_SET_MODE_FILTER)
    return _check(_libc.syscall(number, operation, ctypes.c_uint(flags), ctypes.c_void_p(program)), "seccomp")


def receive_notice(listener: int) -> tuple[int, int]:
    """Wait for a call to be answered, and return its number and the process; see seccomp_unotify(2)."""
    while True:
        notice = _Notice()  # must be zero
        if _libc.ioctl(listener, _SECCOMP_IOCTL_NOTIF_RECV, ctypes.byref(notice)) == 0:
            return notice.id, notice.pid
        code = ctypes.get_errno()
        if code not in (errno.EINTR, errno.ENOENT):  # ENOENT: the process was killed before
            raise OSError(code, os.strerror(code), "seccomp_unotify")


def answer_notice(listener: int, notice: int, error: int) -> None:
    """Let a call end with `error`, or with 0 let the kernel go on with it. Its process may be gone."""
    flags = 0 if error else _SECCOMP_USER_NOTIF_FLAG_CONTINUE
    answer = _Answer(id=notice, error=-error, flags=flags)
    _libc.ioctl(listener, _SECCOMP_IOCTL_NOTIF_SEND, ctypes.byref(answer))


def overwrite(address: int, data: bytes) -> None:
    """Write `data` at an address in this process's memory, which must be mapped and writable."""
    ctypes.memmove(address, data, len(data))
