"""Probe whether a strategy works on this kernel and file system.

Version numbers cannot tell: distributions backport features, and containers take them away. The probe
mounts the very directory that is to be shown, in a temporary user and mount namespace. It stores success
for this boot, these namespaces, these file systems, and the privileges of the process.

What a seccomp filter or a security module forbids is not fully visible beforehand: two filters look alike.
If a mount is refused that had worked in a probe, the caller calls `forget_answers` and probes again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.jails.privileges import current_privileges
from pkgjail.sandbox import syscalls as sc
from pkgjail.storage.filesystems import identity
from pkgjail.storage.own_files import open_own_file, opened_directory
from pkgjail.storage.removal import PROBE, make_locked_directory, remove_tree, signals_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import StrategyName

_PROBED: tuple[StrategyName, ...] = ("tree", "mask", "whole")
_COMPARED_BYTES = 4096
# Out of space, processes or descriptors: the same may work the next time.
TEMPORARY_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR}
)


def probe_obstacle(
    strategy: StrategyName,
    directory: bytes,
    cache: Path,
    sample: bytes | None = None,
    *,
    user_namespace: bool = True,
) -> str:
    """Return why the strategy cannot show `directory` here, or "" if it can.

    Success is stored. A failure can be temporary (a limit is reached), so it is not. Nor is success on a
    file system without a device, such as an overlay: after its unmount, the next one may get its number;
    stat(2).

    Args:
        strategy: "tree", "mask" or "whole".
        directory: a directory of the host, a real path.
        cache: the directory that has the layers.
        sample: for "tree", a regular file in `directory`, relative to it, that the caller may read.
        user_namespace: whether the jail has one of its own (`JailOptions.user_namespace`).

    Raises:
        OSError: the probe failed with one of `TEMPORARY_ERRORS`.

    """
    namespaces = sc.CLONE_NEWNS | (sc.CLONE_NEWUSER if user_namespace else 0)
    try:
        with opened_directory(str(cache), make=True) as descriptor:
            device = os.stat(directory).st_dev
            success = f"{strategy}-{_boot_id()}-{_circumstances(directory, cache)}"
            if _is_stored(descriptor, success):
                return ""
            with signals_blocked(), _scratch(descriptor, cache) as scratch:
                obstacle = _probe(strategy, directory, scratch, sample, namespaces)
            if not obstacle and os.major(device):
                os.close(open_own_file(descriptor, success, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        if error.errno in TEMPORARY_ERRORS:
            raise
        return os_error_text(error, cache)
    return obstacle


def forget_answers(cache: Path) -> bool:
    """Remove the answers stored since the host was started; return whether there were any."""
    prefixes = tuple(f"{strategy}-{_boot_id()}-" for strategy in _PROBED)
    try:
        with opened_directory(str(cache)) as descriptor:
            answers = [name for name in os.listdir(descriptor) if name.startswith(prefixes)]
            for name in answers:
                remove_tree(descriptor, name)
    except OSError:
        return False
    return bool(answers)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _circumstances(directory: bytes, cache: Path) -> str:
    """Return a digest of what an answer depends on, besides the boot."""
    filesystems = [(os.stat(path).st_dev, identity(path)) for path in (bytes(cache), directory)]
    return hashlib.sha256(repr((current_privileges(), filesystems)).encode()).hexdigest()[:32]


def _is_stored(directory: int, name: str) -> bool:
    try:
        os.close(open_own_file(directory, name, os.O_RDONLY))
    except FileNotFoundError:
        return False
    except OSError:  # not a file of this user's alone
        remove_tree(directory, name)
        return False
    return True


@contextlib.contextmanager
def _scratch(directory: int, cache: Path) -> Iterator[bytes]:
    """Make an empty directory for one probe at a time. The next probe clears what a killed one left."""
    with open(open_own_file(directory, ".lock", os.O_CREAT | os.O_WRONLY), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            remove_tree(directory, PROBE)
        in_use = make_locked_directory(directory, PROBE)
        try:
            yield bytes(cache / PROBE)
        finally:
            os.close(in_use)
            with contextlib.suppress(FileNotFoundError):
                remove_tree(directory, PROBE)


def mounts_left(proc: Path = Path("/proc")) -> int:
    """Return how many more mounts this mount namespace may get; see proc_sys_fs(5)."""
    most = int((proc / "sys/fs/mount-max").read_text(encoding="ascii"))
    return most - (proc / "self/mountinfo").read_bytes().count(b"\n")


def _probe(
    strategy: StrategyName, directory: bytes, scratch: bytes, sample: bytes | None, namespaces: int
) -> str:
    """Mount `directory` in namespaces of a child and look at it. Return the obstacle, or ""."""
    layer, mount_point = scratch + b"/layer", scratch + b"/mnt"
    os.mkdir(layer)
    os.mkdir(mount_point)
    sample = _fill(strategy, layer, directory, sample)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report(writing, namespaces, strategy, (layer, directory, mount_point), sample)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        obstacle = report.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return obstacle


def _fill(strategy: StrategyName, layer: bytes, directory: bytes, sample: bytes | None) -> bytes | None:
    """Fill the layer, and return the name that shows whether the strategy works."""
    if strategy == "mask":
        sample = next(iter(os.listdir(directory)), None)
        if sample is not None:
            os.mknod(layer + b"/" + sample, stat.S_IFCHR, os.makedev(0, 0))
    elif strategy == "tree" and sample is not None:
        path = layer + b"/sample"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, os.stat(directory + b"/" + sample).st_size)
            os.setxattr(descriptor, "user.overlay.metacopy", b"")
            os.setxattr(descriptor, "user.overlay.redirect", b"/" + sample)
        finally:
            os.close(descriptor)
    return sample


def _report(
    writing: int,
    namespaces: int,
    strategy: StrategyName,
    paths: tuple[bytes, bytes, bytes],
    sample: bytes | None,
) -> None:
    """In the child: mount, write the obstacle to the pipe, and end."""
    obstacle = "the probe ended early"
    try:
        sc.unshare(namespaces)
        sc.mount(None, b"/", None, sc.MS_REC | sc.MS_PRIVATE)
        obstacle = _mount(strategy, *paths, sample)
    except OSError as error:
        obstacle = os_error_text(error, "overlay")
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, obstacle.encode("utf-8", "replace"))
        os._exit(0)


def _mount(
    strategy: StrategyName, layer: bytes, directory: bytes, mount_point: bytes, sample: bytes | None
) -> str:
    """Mount `directory` and compare what is seen at the mount point. Return what is wrong, or ""."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    layers = (os.open(layer, flags), os.open(directory, flags))
    if strategy == "tree":
        mounted = sc.fsmount_data_overlay(*layers)
    elif strategy == "mask":
        mounted = sc.fsmount_whiteout_overlay(layers, b"/proc")
    else:
        mounted = sc.open_tree(sc.AT_FDCWD, directory, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    sc.move_mount(mounted, sc.AT_FDCWD, mount_point)
    seen = os.listdir(mount_point)
    if strategy == "whole":
        return "" if set(seen) == set(os.listdir(directory)) else "a bind mount shows other names"
    if sample is None:
        return ""
    if strategy == "mask":
        return "an overlay does not hide what it should" if sample in seen else ""
    same = _first_bytes(mount_point + b"/sample") == _first_bytes(directory + b"/" + sample)
    return "" if same else "an overlay shows other content than the file has"


def _first_bytes(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read(_COMPARED_BYTES)
