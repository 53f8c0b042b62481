"""Carry out a plan's steps: from an empty mount namespace to a root that can be entered.

Runs as the first process of new user, mount and PID namespaces, with all capabilities in them.
Nothing here follows a symbolic link of the host: each directory is opened once by openat2(2) with
RESOLVE_NO_SYMLINKS, and each file below it is copied as a mount by descriptor and looked at
(fstat(2)) before it is attached, so that a host that changes meanwhile is seen, not believed.
"""

from __future__ import annotations

import errno
import os
import stat

from pkgjail.sandbox import syscalls as sc

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # What `pkgjail.sandbox.steps.assemble` makes: root, steps, network or not, host name.
    Program = tuple[bytes, tuple[tuple[Any, ...], ...], bool, str]

# Any directory that every root has would do; what it holds is seen again after the first pivot.
_BASE = b"/tmp"
_OLD = b"/old"
_NEW = b"/new"

# A process whose user is the host's real root may write here without any capability
# (kernel: proc_sys_permission, and files of mode 0644 owned by root).
_PROC_READ_ONLY = (b"acpi", b"bus", b"fs", b"irq", b"scsi", b"sys", b"sysrq-trigger")
_PROC_HIDDEN = (b"kcore", b"keys", b"key-users", b"timer_list", b"sched_debug")
_DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
_DEVICE_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
)
_SAFE = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
_NO_SYMLINKS = sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS


class HostChangedError(Exception):
    """The host no longer is as the plan says; `changes` are pairs of a path and what was found."""

    def __init__(self, changes: list[tuple[bytes, str]]) -> None:
        super().__init__(changes)
        self.changes = changes


def enter_new_root(program: Program) -> None:
    """Build the root that `program` describes and make it this process's root, the old one gone.

    Raises:
        HostChangedError: files of the host are not as the plan expects; all of them are named.
        OSError: a system call failed; `filename` says on what.

    """
    sc.mount(None, b"/", None, sc.MS_REC | sc.MS_PRIVATE)
    sc.mount(b"pkgjail", _BASE, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=0755")
    os.chdir(_BASE)
    for name in (_OLD, _NEW):
        os.mkdir(name[1:])
    sc.pivot_root(b".", _OLD[1:])
    os.chdir("/")
    sc.mount(b"pkgjail", _NEW, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=0755")
    _Builder(program).build()
    sc.umount2(_OLD, sc.MNT_DETACH)
    # The base lies below the new root only for the moment between these calls; pivot_root(2), NOTES.
    os.chdir(_NEW)
    sc.pivot_root(b".", b".")
    sc.umount2(b".", sc.MNT_DETACH)
    os.chdir("/")


class _Builder:
    """The steps of one program, with the pair of directories that the last `HostFile` stood in."""

    def __init__(self, program: Program) -> None:
        root, self._steps, _, _ = program
        self._changes: list[tuple[bytes, str]] = []
        self._parent: bytes | None = None
        self._host_directory = -1
        self._jail_directory = -1
        self._root = _open_old(root)
        self._directories = {b"/"}
        self._doing: dict[str, Callable[..., None]] = {
            "Directory": self._directory,
            "Symlink": self._symlink,
            "Content": self._content,
            "HostFile": self._host_file,
            "Overlay": self._overlay,
            "MaskedOverlay": self._masked_overlay,
            "WholeDirectory": self._whole_directory,
            "Seal": self._seal,
            "Bind": _bind_step,
            "Tmpfs": _tmpfs,
            "Proc": _proc,
            "Sys": _sys,
            "Devices": _devices,
        }

    def build(self) -> None:
        for name, *fields in self._steps:
            self._doing[name](*fields)

    def _refuse_elsewhere(self, path: bytes) -> None:
        """A name is made only in a directory that an earlier step made, so never through a link."""
        parent, _, name = path.rpartition(b"/")
        if (parent or b"/") not in self._directories or name in {b"", b".", b".."}:
            raise OSError(errno.EINVAL, "is not in a directory of the plan", path)

    def _directory(self, path: bytes, mode: int) -> None:
        if path != b"/":
            self._refuse_elsewhere(path)
            self._directories.add(path)
            os.mkdir(_NEW + path)
        os.chmod(_NEW + path, mode)  # mkdir(2) would take the umask away and set no special bits

    def _symlink(self, path: bytes, target: bytes) -> None:
        self._refuse_elsewhere(path)
        os.symlink(target, _NEW + path)

    def _content(self, path: bytes, mode: int, content: bytes) -> None:
        self._refuse_elsewhere(path)
        _write_new(_NEW + path, mode, content)

    def _seal(self) -> None:
        if self._changes:
            raise HostChangedError(self._changes)  # here, so that all of them are named
        sc.mount_setattr(sc.AT_FDCWD, _NEW, sc.MOUNT_ATTR_RDONLY | _SAFE)

    def _host_file(self, path: bytes, mode: int, size: int | None) -> None:
        if (tree := self._copy_of_host(path)) < 0:
            return
        try:
            if (change := _change(mode, size, os.fstat(tree))) is not None:
                self._changes.append((path, change))
                return
            name = path.rpartition(b"/")[2]
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, mode & 0o777, dir_fd=self._jail_directory))
            sc.move_mount(tree, self._jail_directory, name)
        finally:
            os.close(tree)

    def _whole_directory(self, path: bytes, mode: int) -> None:
        if (tree := self._copy_of_host(path)) < 0:
            return
        try:
            found = os.fstat(tree)
            if not stat.S_ISDIR(found.st_mode):
                self._changes.append((path, "is no longer a directory"))
            elif stat.S_IMODE(found.st_mode) != mode:
                self._changes.append((path, _other_mode(found, mode)))
            else:
                name = path.rpartition(b"/")[2]
                os.mkdir(name, dir_fd=self._jail_directory)
                sc.move_mount(tree, self._jail_directory, name)
        finally:
            os.close(tree)

    def _copy_of_host(self, path: bytes) -> int:
        """A mount of what the host has at `path`, to be attached; -1 where that is gone."""
        self._refuse_elsewhere(path)
        parent, _, name = path.rpartition(b"/")
        flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_SYMLINK_NOFOLLOW
        try:
            if parent != self._parent:
                self._open_parent(parent)
            return sc.open_tree(self._host_directory, name, flags)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise OSError(error.errno, error.strerror, path) from None
            self._changes.append((path, "is gone"))
            return -1

    def _overlay(self, path: bytes, tree: bytes) -> None:
        self._attach_overlay(path, tree, sc.fsmount_overlay)

    def _masked_overlay(self, path: bytes, mask: bytes) -> None:
        self._attach_overlay(path, mask, lambda *pair: sc.fsmount_masked(pair, _OLD + b"/proc"))

    def _attach_overlay(self, path: bytes, layer: bytes, make: Callable[[int, int], int]) -> None:
        """Attach at `path` what `make` makes of a layer and the host's directory of that path."""
        layers = (
            _open_old(layer),
            sc.openat2(self._root, path[1:], os.O_PATH | os.O_DIRECTORY, _NO_SYMLINKS),
        )
        mounted = make(*layers)
        sc.move_mount(mounted, sc.AT_FDCWD, _NEW + path)
        for descriptor in (mounted, *layers):
            os.close(descriptor)

    def _open_parent(self, parent: bytes) -> None:
        if self._parent is not None:
            os.close(self._host_directory)
            os.close(self._jail_directory)
            self._parent = None
        flags = os.O_PATH | os.O_DIRECTORY
        self._host_directory = sc.openat2(self._root, parent[1:] or b".", flags, _NO_SYMLINKS)
        self._jail_directory = os.open(_NEW + parent, flags | os.O_CLOEXEC)
        self._parent = parent


def _open_old(path: bytes) -> int:
    """Open a real path of the old root, which has no symbolic link in it."""
    old = os.open(_OLD, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return sc.openat2(old, path[1:] or b".", os.O_PATH, _NO_SYMLINKS)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(old)


def _change(mode: int, size: int | None, found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no longer a regular file"
    if stat.S_IMODE(found.st_mode) != mode:
        return _other_mode(found, mode)
    if size is not None and found.st_size != size:
        return f"has {found.st_size} bytes, not {size}"
    return None


def _other_mode(found: os.stat_result, mode: int) -> str:
    return f"has mode {stat.S_IMODE(found.st_mode):04o}, not {mode:04o}"


def _write_new(path: bytes, mode: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, mode)
        while content:
            content = content[os.write(descriptor, content) :]
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


def _tmpfs(path: bytes, mode: int) -> None:
    sc.mount(b"tmpfs", _NEW + path, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=%04o" % mode)


def _bind_step(path: bytes, source: bytes, writable: bool) -> None:  # noqa: FBT001 - as the step has it
    _bind(source, path, _SAFE | (0 if writable else sc.MOUNT_ATTR_RDONLY))


def _sys(path: bytes) -> None:
    _bind(b"/sys", path, _SAFE | sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOEXEC)


def _bind(source: bytes, path: bytes, attributes: int) -> None:
    """Bind `source` of the host at `path` of the jail, which must be there and not by a link."""
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH
    inside = os.open(_NEW, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    tree = sc.open_tree(_open_old(source), b"", flags)
    sc.mount_setattr(tree, b"", attributes)
    try:
        place = sc.openat2(inside, path[1:], os.O_PATH, _NO_SYMLINKS | sc.RESOLVE_BENEATH)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    sc.move_mount(tree, place, b"")
    for descriptor in (place, tree, inside):
        os.close(descriptor)


def _proc(path: bytes) -> None:
    path = _NEW + path
    sc.mount(b"proc", path, b"proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    # In a user and cgroup namespace of its own the command could mount a writable cgroup2, whose
    # root is the caller's own group, and kill or freeze what runs there.
    write_setting(path + b"/sys/user/max_cgroup_namespaces", b"0")
    for name in _PROC_READ_ONLY:
        if os.path.exists(path + b"/" + name):
            _cover(path + b"/" + name, path + b"/" + name)
    for name in _PROC_HIDDEN:
        if os.path.exists(path + b"/" + name):
            _cover(_OLD + b"/dev/null", path + b"/" + name)


def _cover(source: bytes, target: bytes) -> None:
    """Bind `source` over `target`, read-only; both are absolute paths of this mount namespace."""
    tree = sc.open_tree(sc.AT_FDCWD, source, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        sc.mount_setattr(tree, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID)
        sc.move_mount(tree, sc.AT_FDCWD, target)
    finally:
        os.close(tree)


def _devices(path: bytes) -> None:
    path = _NEW + path
    sc.mount(b"dev", path, b"tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, b"mode=0755")
    for name in _DEVICES:
        _write_new(path + b"/" + name, 0o666, b"")
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
    tree = sc.open_tree(sc.AT_FDCWD, _OLD + b"/dev/" + name, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    try:
        if not stat.S_ISCHR(os.fstat(tree).st_mode):
            raise OSError(errno.ENODEV, "is not a character device", b"/dev/" + name)
        sc.mount_setattr(tree, b"", sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NOEXEC)
        sc.move_mount(tree, sc.AT_FDCWD, target)
    finally:
        os.close(tree)
