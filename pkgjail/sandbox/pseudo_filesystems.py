"""Mount the pseudo file systems of a jail (proc, sys, dev), its tmpfs directories and the user's binds.

This is a part of `pkgjail.sandbox.rootfs`. Like it, it follows no symbolic link on the host or in the jail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pkgjail.sandbox import syscalls as sc

# The mount points of the host's root and the new root while a root is built.
OLD = b"/old"
# Another copy of the host's mounts, which receives those that the host makes later (MS_SLAVE).
LIVE = b"/live"
NEW = b"/new"

# A process of the host's real root may write to these without any capability
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
# Root needs no capability to read files in these directories that other users may not read, some with side
# effects (hot_add makes a device): firmware and its tables, kernel debugging, serial numbers, energy meters,
# and devices' memory (resource0, rom, vpd; see sysfs-bus-pci in the kernel's ABI documentation).
_SYS_ROOT_ONLY = (
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
_BUSES = b"devices"  # the PCI buses in it are named pciDOMAIN:BUS
_EMPTY = b"/empty"  # in the base, which the jail does not see
_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_DEVICE_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
)
_DIRECTORY_MODE = 0o755
_DEVICE_KINDS = {"character": stat.S_IFCHR, "block": stat.S_IFBLK}
SAFE = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
NO_SYMLINKS = sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS


def open_old(path: bytes, top: bytes = OLD, flags: int = 0) -> int:
    """Open a real path of the old root. A symbolic link in it is an error."""
    old = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sc.openat2(old, path[1:] or b".", os.O_PATH | flags, NO_SYMLINKS)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(old)


def _open_live(path: bytes) -> int:
    """Open a real path of the host, with what an automounter mounts there; open(2), O_PATH."""
    try:
        return open_old(path, LIVE, os.O_DIRECTORY)
    except NotADirectoryError:
        return open_old(path, LIVE)


def write_new(path: bytes, mode: int, content: bytes) -> None:
    """Make a new regular file."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError as error:  # for example, RLIMIT_FSIZE
        raise OSError(error.errno, error.strerror, path.removeprefix(NEW)) from None
    finally:
        os.close(descriptor)


def write_setting(path: bytes, content: bytes) -> None:
    """Write to one of the kernel's files in one write(2). Raises `OSError` with the file's name."""
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
    """Carry out a `Bind`.

    A mount that the host makes later below the source appears in the jail too, with its own attributes. So a
    read-only bind is made private (mount_namespaces(7)): there it would be writable.
    """
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH
    mount = sc.open_tree(_open_live(source), b"", flags)
    if not writable:
        sc.mount_setattr(mount, b"", 0, propagation=sc.MS_PRIVATE)
    attach(mount, path, SAFE | (0 if writable else sc.MOUNT_ATTR_RDONLY))


def sysfs(path: bytes) -> None:
    """Carry out a `Sys`. For root, hide what only root may read."""
    _bind(b"/sys", path, SAFE | sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOEXEC)
    if os.geteuid() == 0:
        _hide_root_only_sys(NEW + path)


def _hide_root_only_sys(top: bytes) -> None:
    buses = [b"%s/%s" % (_BUSES, name) for name in os.listdir(b"%s/%s" % (top, _BUSES)) if name[:3] == b"pci"]
    for name in (*_SYS_ROOT_ONLY, *buses):
        if os.path.isdir(b"%s/%s" % (top, name)):
            _cover(_empty_directory(), b"%s/%s" % (top, name))


def _empty_directory() -> bytes:
    """Return an empty directory."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(_EMPTY, 0o755)
    return _EMPTY


def hidden(path: bytes) -> None:
    """Carry out a `Hidden`."""
    mount = sc.open_tree(sc.AT_FDCWD, _empty_directory(), sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    attach(mount, path, SAFE | sc.MOUNT_ATTR_RDONLY)


def _bind(source: bytes, path: bytes, attributes: int) -> None:
    """Bind `source` of the host at `path` of the jail, which must exist. A symbolic link is an error."""
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH
    attach(sc.open_tree(open_old(source), b"", flags), path, attributes)


def attach(mount: int, path: bytes, attributes: int = 0) -> None:
    """Attach the mount at `path` of the jail, which must exist, and close it. A symbolic link is an error."""
    new_root = os.open(NEW, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if attributes:
        sc.mount_setattr(mount, b"", attributes)
    try:
        target = sc.openat2(new_root, path[1:], os.O_PATH, NO_SYMLINKS | sc.RESOLVE_BENEATH)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    sc.move_mount(mount, target, b"")
    for descriptor in (target, mount, new_root):
        os.close(descriptor)


def kept_link(path: bytes, source: bytes) -> None:
    """Carry out a `KeptLink`. Only a descriptor can refer to the link itself."""
    new_root = os.open(NEW, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    directory, _, name = source.rpartition(b"/")
    parent = open_old(directory or b"/", LIVE)
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_SYMLINK_NOFOLLOW
    try:
        mount = sc.open_tree(parent, name, flags)
        sc.mount_setattr(mount, b"", SAFE | sc.MOUNT_ATTR_RDONLY)
        target = sc.openat2(new_root, path[1:], os.O_PATH | os.O_NOFOLLOW, NO_SYMLINKS | sc.RESOLVE_BENEATH)
        sc.move_mount(mount, target, b"")
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    for descriptor in (target, mount, parent, new_root):
        os.close(descriptor)


def procfs(path: bytes, *, user_namespace: bool) -> None:
    """Carry out a `Proc`: mount it, make its global parts read-only, and hide some of them.

    Limits of namespaces are those of this user namespace: without one of the jail's own, they are the host's.
    """
    path = NEW + path
    sc.mount(b"proc", path, b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    # With a cgroup namespace of its own, the command could mount a writable cgroup2 whose root is the
    # caller's own group, and kill or freeze the processes in it.
    if user_namespace:
        write_setting(path + b"/sys/user/max_cgroup_namespaces", b"0")
    for name in _PROC_READ_ONLY:
        if os.path.exists(path + b"/" + name):
            _cover(path + b"/" + name, path + b"/" + name)
    for name in _PROC_HIDDEN:
        if os.path.exists(path + b"/" + name):
            _cover(OLD + b"/dev/null", path + b"/" + name)
    if os.geteuid() == 0:
        _protect_root_only_proc(path)


def _protect_root_only_proc(top: bytes) -> None:
    """Hide files that only root may read, such as kpageflags, and make others but processes' own read-only.

    The modes of the files decide, because newer kernels have more such files. If root is not the host's root,
    the files belong to another user and need no protection.
    """
    with os.scandir(top) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if found.st_uid != 0 or entry.name.isdigit() or entry.name in _PROC_READ_ONLY:
                continue
            if stat.S_ISREG(found.st_mode) and not found.st_mode & stat.S_IROTH:
                _cover(OLD + b"/dev/null", entry.path)
            elif stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):  # root may change a mode
                _cover(entry.path, entry.path)
    if os.path.isdir(top + b"/tty/driver"):  # statistics of serial lines, which reveal keystrokes
        _cover(_empty_directory(), top + b"/tty/driver")


def one_mount_namespace() -> None:
    """Carry out a `OneMountNamespace`, in a user namespace of the jail's own; see namespaces(7)."""
    proc = b"/limits"  # in the base, which the jail does not see
    os.mkdir(proc)
    sc.mount(b"proc", proc, b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    write_setting(proc + b"/sys/user/max_mnt_namespaces", b"0")
    sc.umount2(proc, sc.MNT_DETACH)


def _cover(source: bytes, target: bytes) -> None:
    """Bind `source` over `target`, read-only; both are absolute paths of this mount namespace."""
    mount = sc.open_tree(sc.AT_FDCWD, source, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        sc.mount_setattr(mount, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID)
        sc.move_mount(mount, sc.AT_FDCWD, target)
    finally:
        os.close(mount)


def devices(path: bytes, shown: tuple[tuple[bytes, str, int, bytes], ...]) -> None:
    """Carry out a `Devices`."""
    path = NEW + path
    sc.mount(b"dev", path, b"tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, b"mode=0755")
    for name in _DEVICES:
        write_new(path + b"/" + name, 0o666, b"")
        _bind_device(name, path + b"/" + name)
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
    _show_devices(path, shown)
    sc.mount_setattr(sc.AT_FDCWD, path, sc.MOUNT_ATTR_RDONLY, recursive=False)
    sc.mount(b"tmpfs", path + b"/shm", b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=1777")


def _show_devices(top: bytes, shown: tuple[tuple[bytes, str, int, bytes], ...]) -> None:
    """Bind devices of the host below `top`, and make the links to them.

    The links come last, and each directory is a new one, so no link is followed.
    """
    directories = {top}
    for path, kind, number, target in sorted(shown, key=lambda device: device[1] == "link"):
        _make_parents(NEW + path, directories)
        if kind == "link":
            os.symlink(target, NEW + path)
            continue
        flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_EMPTY_PATH
        mount = sc.open_tree(open_old(path), b"", flags)
        found = os.fstat(mount)
        if (stat.S_IFMT(found.st_mode), found.st_rdev) != (_DEVICE_KINDS[kind], number):
            raise OSError(errno.ENODEV, "is another device than before", path)
        write_new(NEW + path, 0o666, b"")
        # Not noexec: some devices, such as SGX's, are mapped executable.
        sc.mount_setattr(mount, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID)
        sc.move_mount(mount, sc.AT_FDCWD, NEW + path)
        os.close(mount)


def _make_parents(path: bytes, directories: set[bytes]) -> None:
    """Make the directories above `path` that are not among `directories`, and add them."""
    parent, _, name = path.rpartition(b"/")
    if name in {b"", b".", b".."}:
        raise OSError(errno.EINVAL, "is not a path below /dev", path.removeprefix(NEW))
    if parent not in directories:
        _make_parents(parent, directories)
        os.mkdir(parent)
        os.chmod(parent, _DIRECTORY_MODE)  # mkdir(2) applies the umask
        directories.add(parent)


def _bind_device(name: bytes, target: bytes) -> None:
    """Bind one device of the host. Programs can still write to a device on a read-only mount."""
    mount = sc.open_tree(sc.AT_FDCWD, OLD + b"/dev/" + name, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        if not stat.S_ISCHR(os.fstat(mount).st_mode):
            raise OSError(errno.ENODEV, "is not a character device", b"/dev/" + name)
        sc.mount_setattr(mount, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NOEXEC)
        sc.move_mount(mount, sc.AT_FDCWD, target)
    finally:
        os.close(mount)
