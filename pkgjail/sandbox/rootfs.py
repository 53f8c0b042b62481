"""Build the root of a jail: carry out a plan's steps in an empty mount namespace.

This runs in the first process of new user, mount and PID namespaces, with all capabilities in them.
It follows no symbolic link of the host: openat2(2) opens each directory once with RESOLVE_NO_SYMLINKS.
Each file below it is cloned as a mount by descriptor and inspected (fstat(2)) before it is attached, so a
change of the host in the meantime cannot go unnoticed.
"""

from __future__ import annotations

import errno
import os
import stat

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.pseudo_filesystems import (
    LIVE,
    NEW,
    NO_SYMLINKS,
    OLD,
    SAFE,
    attach,
    bind_step,
    devices,
    hidden,
    kept_link,
    one_mount_namespace,
    open_old,
    procfs,
    sysfs,
    tmpfs,
    write_new,
)

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    # The result of `pkgjail.sandbox.steps.assemble`: root, steps, whether there is a network, host name,
    # whether the IPC namespace is the caller's.
    Program = tuple[bytes, tuple[tuple[Any, ...], ...], bool, str, bool]

    # A path, in what it differs from the plan, what was expected, and what was found.
    Change = tuple[bytes, Literal["missing", "kind", "mode", "size"], str, str]

# Any directory would do that every root has. Its content is visible again after the first pivot_root(2).
_BASE = b"/tmp"


class HostChangedError(Exception):
    """The host differs from the plan; `changes` says how, for each path."""

    def __init__(self, changes: list[Change]) -> None:
        super().__init__(changes)
        self.changes = changes


def enter_new_root(program: Program) -> None:
    """Build the root that `program` describes, make it this process's root, and unmount the old one.

    Raises:
        HostChangedError: files of the host differ from the plan; all of them are named.
        OSError: a system call failed; `filename` is the path.

    """
    # So that no mount of the jail's appears on the host. In a user namespace, they are slaves already;
    # mount_namespaces(7).
    sc.mount(None, b"/", None, sc.MS_REC | sc.MS_SLAVE)
    flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_RECURSIVE
    has_binds = any(step[0] == "Bind" for step in program[1])
    live = sc.open_tree(sc.AT_FDCWD, b"/", flags) if has_binds else -1
    sc.mount(None, b"/", None, sc.MS_REC | sc.MS_PRIVATE)
    sc.mount(b"pkgjail", _BASE, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=0755")
    os.chdir(_BASE)
    for name in (OLD, LIVE, NEW):
        os.mkdir(name[1:])
    sc.pivot_root(b".", OLD[1:])
    os.chdir("/")
    if has_binds:
        sc.move_mount(live, sc.AT_FDCWD, LIVE)
        os.close(live)
    sc.mount(b"pkgjail", NEW, b"tmpfs", sc.MS_NOSUID | sc.MS_NODEV, b"mode=0755")
    _Builder(program).build()
    for top in (OLD, LIVE) if has_binds else (OLD,):
        sc.umount2(top, sc.MNT_DETACH)
    # The base is below the new root only between these calls; pivot_root(2), NOTES.
    os.chdir(NEW)
    sc.pivot_root(b".", b".")
    sc.umount2(b".", sc.MNT_DETACH)
    os.chdir("/")


class _Builder:
    """Carries out the steps of one program.

    It keeps the parent directory of the last `HostFile` open, on the host and in the jail.
    """

    def __init__(self, program: Program) -> None:
        root, self._steps, _, _, _ = program
        user_namespace = self._steps[:1] != (("NoUserNamespace",),)
        # A namespace of a less privileged user cannot lift a mount of the host; this one could.
        self._host_mounts = () if user_namespace else mount_points()
        self._prefix = root.rstrip(b"/")
        self._changes: list[Change] = []
        self._content_count = 0
        self._parent: bytes | None = None
        self._host_parent = -1
        self._jail_parent = -1
        self._root = open_old(root)
        self._directories = {b"/"}
        # Given at the end, the inner ones first: nothing can be put into some of them afterwards.
        self._modes: dict[bytes, int] = {}
        self._methods: dict[str, Callable[..., None]] = {
            "Directory": self._directory,
            "Symlink": self._symlink,
            "Content": self._content,
            "HostFile": self._host_file,
            "Overlay": self._overlay,
            "Cover": self._cover,
            "MaskedOverlay": self._masked_overlay,
            "WholeDirectory": self._whole_directory,
            "Seal": self._seal,
            "Bind": bind_step,
            "Tmpfs": tmpfs,
            "Proc": lambda path: procfs(path, user_namespace=user_namespace),
            "Sys": sysfs,
            "Devices": devices,
            "KeptLink": kept_link,
            "Hidden": hidden,
            "OneMountNamespace": one_mount_namespace if user_namespace else _nothing,
            "MapRoot": _nothing,
            "NoUserNamespace": _nothing,
        }

    def build(self) -> None:
        """Carry out all steps, in order."""
        for name, *fields in self._steps:
            self._methods[name](*fields)

    def _require_planned_parent(self, path: bytes) -> None:
        """Refuse a path whose parent is no directory made by an earlier step: it could be a link."""
        parent, _, name = path.rpartition(b"/")
        if (parent or b"/") not in self._directories or name in {b"", b".", b".."}:
            raise OSError(errno.EINVAL, "is not in a directory of the plan", path)

    def _directory(self, path: bytes, mode: int) -> None:
        if path != b"/":
            self._require_planned_parent(path)
            self._directories.add(path)
            os.mkdir(NEW + path, 0o700)
        self._modes[path] = mode

    def _symlink(self, path: bytes, target: bytes) -> None:
        self._require_planned_parent(path)
        os.symlink(target, NEW + path)

    def _content(self, path: bytes, mode: int, content: bytes) -> None:
        self._require_planned_parent(path)
        write_new(NEW + path, mode, content)

    def _seal(self) -> None:
        if self._changes:
            raise HostChangedError(self._changes)  # only now, so that all of them are named
        for path in reversed(self._modes):
            os.chmod(NEW + path, self._modes[path])  # mkdir(2) applies the umask and sets no special bits
        sc.mount_setattr(sc.AT_FDCWD, NEW, sc.MOUNT_ATTR_RDONLY | SAFE)

    def _host_file(self, path: bytes, mode: int, size: int | None) -> None:
        if (mount := self._clone_of_host(path)) < 0:
            return
        try:
            if (change := _change(path, mode, size, os.fstat(mount))) is not None:
                self._changes.append(change)
                return
            name = path.rpartition(b"/")[2]
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, mode & 0o777, dir_fd=self._jail_parent))
            sc.move_mount(mount, self._jail_parent, name)
        finally:
            os.close(mount)

    def _whole_directory(self, path: bytes, mode: int) -> None:
        self._refuse_mounts_below(path)
        if (mount := self._clone_of_host(path)) < 0:
            return
        try:
            found = os.fstat(mount)
            if not stat.S_ISDIR(found.st_mode):
                self._changes.append((path, "kind", "directory", ""))
            elif stat.S_IMODE(found.st_mode) != mode:
                self._changes.append(_other_mode(path, mode, found))
            else:
                name = path.rpartition(b"/")[2]
                os.mkdir(name, dir_fd=self._jail_parent)
                sc.move_mount(mount, self._jail_parent, name)
        finally:
            os.close(mount)

    def _clone_of_host(self, path: bytes) -> int:
        """Clone what the host has at `path` as a mount, to be attached. Return -1 if it is gone."""
        self._require_planned_parent(path)
        parent, _, name = path.rpartition(b"/")
        flags = sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC | sc.AT_SYMLINK_NOFOLLOW
        try:
            if parent != self._parent:
                self._open_parent(parent)
            return sc.open_tree(self._host_parent, name, flags)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise OSError(error.errno, error.strerror, path) from None
            self._changes.append((path, "missing", "", ""))
            return -1

    def _overlay(self, path: bytes, layer: bytes) -> None:
        self._attach_overlay(path, layer, sc.fsmount_data_overlay)

    def _masked_overlay(self, path: bytes, layer: bytes) -> None:
        self._attach_overlay(path, layer, lambda *pair: sc.fsmount_whiteout_overlay(pair, OLD + b"/proc"))

    def _cover(self, path: bytes, mode: int, content: bytes) -> None:
        source = b"/content-%d" % self._content_count  # in the base, which the jail does not see
        self._content_count += 1
        try:
            write_new(source, mode, content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        attach(sc.open_tree(sc.AT_FDCWD, source, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC), path)

    def _attach_overlay(self, path: bytes, layer: bytes, make: Callable[[int, int], int]) -> None:
        """Attach at `path` the overlay that `make` makes of a layer and the host's directory of that path."""
        self._refuse_mounts_below(path)
        layers = (
            open_old(layer),
            sc.openat2(self._root, path[1:], os.O_PATH | os.O_DIRECTORY, NO_SYMLINKS),
        )
        mount = make(*layers)
        sc.move_mount(mount, sc.AT_FDCWD, NEW + path)
        self._modes.pop(path, None)  # that of the directory below it
        for descriptor in (mount, *layers):
            os.close(descriptor)

    def _refuse_mounts_below(self, path: bytes) -> None:
        """Refuse a directory of the host that is shown without the mounts below it: these may hide files."""
        below = self._prefix + path + b"/"
        for point in self._host_mounts:
            if point.startswith(below):
                raise OSError(errno.EBUSY, "is a mount of the host in a directory that is shown", point)

    def _open_parent(self, parent: bytes) -> None:
        if self._parent is not None:
            os.close(self._host_parent)
            os.close(self._jail_parent)
            self._parent = None
        flags = os.O_PATH | os.O_DIRECTORY
        self._host_parent = sc.openat2(self._root, parent[1:] or b".", flags, NO_SYMLINKS)
        self._jail_parent = os.open(NEW + parent, flags | os.O_CLOEXEC)
        self._parent = parent


def _nothing() -> None:
    """Carry out a step that other parts of the sandbox read."""


def mount_points(top: bytes = OLD) -> tuple[bytes, ...]:
    """Return the paths below `top` that have mounts, without it; `top` has a proc(5).

    In proc_pid_mountinfo(5), blanks, line ends and backslashes are written as three octal digits.
    """
    points = []
    with open(top + b"/proc/self/mountinfo", "rb") as file:
        for line in file:
            first, *rest = line.split()[4].split(b"\\")
            point = first + b"".join([bytes([int(part[:3], 8)]) + part[3:] for part in rest])
            if point.startswith(top + b"/"):
                points.append(point[len(top) :])
    return tuple(points)


def _change(path: bytes, mode: int, size: int | None, found: os.stat_result) -> Change | None:
    """Return how a file differs from the plan's regular file, or None if it does not."""
    if not stat.S_ISREG(found.st_mode):
        return path, "kind", "regular file", ""
    if stat.S_IMODE(found.st_mode) != mode:
        return _other_mode(path, mode, found)
    if size is not None and found.st_size != size:
        return path, "size", str(size), str(found.st_size)
    return None


def _other_mode(path: bytes, mode: int, found: os.stat_result) -> Change:
    return path, "mode", f"{mode:04o}", f"{stat.S_IMODE(found.st_mode):04o}"
