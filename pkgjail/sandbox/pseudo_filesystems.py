"""What of a jail's root is no file of the host's: proc, sys, dev, scratch space; and the user's binds.

Like `pkgjail.sandbox.rootfs`, of which this is a part, it follows no symbolic link on the host or in
the jail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pkgjail.sandbox import syscalls as sc

# While a root is built: where the host's is, and the new one.
OLD = b"/old"
NEW = b"/new"

# A process whose user is the host's real root may write here without any capability
# (kernel: proc_sys_permission, and files of mode 0644 owned by root).
_PROC_READ_ONLY = (b"acpi", b"bus", b"fs", b"irq", b"scsi", b"sys", b"sysrq-trigger")
_PROC_HIDDEN = (
    b"kcore",
    b"keys",
    b"key-users",
    b"latency_stats",
    b"sched_debug",
    b"timer_list",
    b"timer_stats",
)
# Directories where root, without any capability, may read what nobody else may, or do something by reading
# (hot_add makes a device): firmware and its tables, what a kernel is debugged by, serial numbers, energy
# meters, and devices' own memory (resource0, rom, vpd), for which see sysfs-bus-pci in the kernel's ABI.
_SYS_OF_ROOT = (
    b"class/zram-control",
    b"devices/virtual/dmi",
    b"devices/virtual/powercap",
    b"firmware",
    b"fs/bpf",
    b"fs/fuse",
    b"fs/pstore",
    b"hypervisor",
    b"kernel/config",
    b"kernel/debug",
    b"kernel/mm/damon",
    b"kernel/security",
    b"kernel/slab",
    b"kernel/tracing",
    b"module",
    b"power",
)
_BUSES = b"devices"  # those of PCI are named pciDOMAIN:BUS there
_EMPTY = b"/empty"  # in the base, which nobody sees
_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_DEVICE_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
)
SAFE = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
NO_SYMLINKS = sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS


def open_old(path: bytes) -> int:
    """Open a real path of the old root, which has no symbolic link in it."""
    old = os.open(OLD, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sc.openat2(old, path[1:] or b".", os.O_PATH, NO_SYMLINKS)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(old)


def write_new(path: bytes, mode: int, content: bytes) -> None:
    """Make a regular file that is not there yet."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError as error:  # RLIMIT_FSIZE, say
        raise OSError(error.errno, error.strerror, path.removeprefix(NEW)) from None
    finally:
        os.close(descriptor)


def write_setting(path: bytes, content: bytes) -> None:
    """Write one of the kernel's files in one write(2). Raises `OSError` with the file's name."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)


def tmpfs(path: bytes, mode: int) -> None:
    """Carry out a `Tmpfs`."""
    sc.mount(b"tmpfs", NEW + path, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=%04o" % mode)


def bind_step(path: bytes, source: bytes, writable: bool) -> None:  # noqa: FBT001 - as the step has it
    """Carry out a `Bind`."""
    _bind(source, path, SAFE | (0 if writable else sc.MOUNT_ATTR_RDONLY))


def sysfs(path: bytes) -> None:
    """Carry out a `Sys`: for root without what root alone may read."""
    _bind(b"/sys", path, SAFE | sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOEXEC)
    if os.geteuid() == 0:
        _cover_sys_of_root(NEW + path)


def _cover_sys_of_root(top: bytes) -> None:
    buses = [b"%s/%s" % (_BUSES, name) for name in os.listdir(b"%s/%s" % (top, _BUSES)) if name[:3] == b"pci"]
    for name in (*_SYS_OF_ROOT, *buses):
        if os.path.isdir(b"%s/%s" % (top, name)):
            _cover(_empty(), b"%s/%s" % (top, name))


def _empty() -> bytes:
    """A directory with nothing in it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(_EMPTY, 0o755)
    return _EMPTY


def hidden(path: bytes) -> None:
    """Carry out a `Hidden`."""
    tree = sc.open_tree(sc.AT_FDCWD, _empty(), sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    _attach(tree, path, SAFE | sc.MOUNT_ATTR_RDONLY)


def _bind(source: bytes, path: bytes, attributes: int) -> None:
    """Bind `source` of the host at `path` of the jail, which must be there and not by a link."""
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH
    _attach(sc.open_tree(open_old(source), b"", flags), path, attributes)


def _attach(tree: int, path: bytes, attributes: int) -> None:
    """Attach the mount `tree`, and close it, at `path` of the jail, which must be there and not by a link."""
    inside = os.open(NEW, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.mount_setattr(tree, b"", attributes)
    try:
        place = sc.openat2(inside, path[1:], os.O_PATH, NO_SYMLINKS | sc.RESOLVE_BENEATH)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    sc.move_mount(tree, place, b"")
    for descriptor in (place, tree, inside):
        os.close(descriptor)


def kept_link(path: bytes, source: bytes) -> None:
    """Carry out a `KeptLink`: only a descriptor names a link itself."""
    inside = os.open(NEW, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    directory, _, name = source.rpartition(b"/")
    above = open_old(directory or b"/")
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_SYMLINK_NOFOLLOW
    try:
        tree = sc.open_tree(above, name, flags)
        sc.mount_setattr(tree, b"", SAFE | sc.MOUNT_ATTR_RDONLY)
        place = sc.openat2(inside, path[1:], os.O_PATH | os.O_NOFOLLOW, NO_SYMLINKS | sc.RESOLVE_BENEATH)
        sc.move_mount(tree, place, b"")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    for descriptor in (place, tree, above, inside):
        os.close(descriptor)


def procfs(path: bytes) -> None:
    """Carry out a `Proc`."""
    path = NEW + path
    sc.mount(b"proc", path, b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    # In a user and cgroup namespace of its own the command could mount a writable cgroup2, whose
    # root is the caller's own group, and kill or freeze what runs there.
    write_setting(path + b"/sys/user/max_cgroup_namespaces", b"0")
    for name in _PROC_READ_ONLY:
        if os.path.exists(path + b"/" + name):
            _cover(path + b"/" + name, path + b"/" + name)
    for name in _PROC_HIDDEN:
        if os.path.exists(path + b"/" + name):
            _cover(OLD + b"/dev/null", path + b"/" + name)
    if os.geteuid() == 0:
        _cover_proc_of_root(path)


def _cover_proc_of_root(top: bytes) -> None:
    """Hide what root alone may read, such as kpageflags, and let nothing be written but processes' own.

    By their modes, since kernels have ever more of them. In a user namespace that is not the host's
    they are nobody's, and need nothing.
    """
    with os.scandir(top) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if found.st_uid != 0 or entry.name.isdigit() or entry.name in _PROC_READ_ONLY:
                continue
            if stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IROTH:
                _cover(OLD + b"/dev/null", entry.path)
            elif stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_mode & 0o222):
                _cover(entry.path, entry.path)
    if os.path.isdir(top + b"/tty/driver"):  # statistics of serial lines, by which keys can be told
        _cover(_empty(), top + b"/tty/driver")


def one_mount_namespace() -> None:
    """Carry out a `OneMountNamespace`; namespaces(7), on /proc/sys/user."""
    place = b"/limits"  # in the base, which nobody sees
    os.mkdir(place)
    sc.mount(b"proc", place, b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    write_setting(place + b"/sys/user/max_mnt_namespaces", b"0")
    sc.umount2(place, sc.MNT_DETACH)


def _cover(source: bytes, target: bytes) -> None:
    """Bind `source` over `target`, read-only; both are absolute paths of this mount namespace."""
    tree = sc.open_tree(sc.AT_FDCWD, source, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        sc.mount_setattr(tree, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID)
        sc.move_mount(tree, sc.AT_FDCWD, target)
    finally:
        os.close(tree)


def devices(path: bytes) -> None:
    """Carry out a `Devices`."""
    path = NEW + path
    sc.mount(b"dev", path, b"tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, b"mode=0755")
    for name in _DEVICES:
        write_new(path + b"/" + name, 0o666, b"")
        _cover_device(name, path + b"/" + name)
    for link, target in _DEVICE_LINKS:
        os.symlink(target, path + b"/" + link)
    for name in (b"/pts", b"/shm"):
        os.mkdir(path + name)
    sc.mount(
        b"devpts",
        path + b"/pts",
        b"devpts",
        sc.MS_NOSUID | sc.MS_NOEXEC,
        b"newinstance,ptmxmode=0666,mode=0620",
    )
    sc.mount_setattr(sc.AT_FDCWD, path, sc.MOUNT_ATTR_RDONLY, recursive=False)
    sc.mount(b"tmpfs", path + b"/shm", b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=1777")


def _cover_device(name: bytes, target: bytes) -> None:
    """Bind one device of the host; a read-only mount does not keep a device from being written."""
    tree = sc.open_tree(sc.AT_FDCWD, OLD + b"/dev/" + name, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        if not stat.S_ISCHR(os.fstat(tree).st_mode):
            raise OSError(errno.ENODEV, "is not a character device", b"/dev/" + name)
        sc.mount_setattr(tree, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NOEXEC)
        sc.move_mount(tree, sc.AT_FDCWD, target)
    finally:
        os.close(tree)
