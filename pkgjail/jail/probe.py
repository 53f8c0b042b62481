"""Whether this kernel and filesystem can do what a plan asks for, found out by trying.

Never by a version number: distributions carry features back, and containers take them away. The
try-out mounts the very directory that is to be shown, in a throw-away user and mount namespace; its
answer is kept for this boot, these namespaces, these filesystems, and what the process may do.

What a seccomp filter or a security module forbids cannot all be seen beforehand: two filters look alike.
So who is refused what was said to work forgets the answers (`forget`) and asks again.
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

from pkgjail.core.errors import told
from pkgjail.jail.privileges import situation
from pkgjail.sandbox import syscalls as sc
from pkgjail.storage.filesystems import identity
from pkgjail.storage.locations import open_file, opened
from pkgjail.storage.removal import PROBE, make_in_use, remove_tree, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import StrategyName

_WAYS: tuple[StrategyName, ...] = ("tree", "mask", "whole")
_ENOUGH = 4096
# What fails for want of room, processes or descriptors may work the next time.
PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR}
)


def why_not(way: StrategyName, directory: bytes, cache: Path, sample: bytes | None = None) -> str:
    """Why `directory` cannot be shown in this way here; "" where it can.

    Success is remembered, for this boot, these filesystems, these user and mount namespaces, and what this
    process may do. A failure may pass (a limit that is reached), so it is tried again; and so is a
    filesystem on no device (an overlay, say): its number goes to the next that is mounted when it is
    gone, stat(2).

    Args:
        way: "tree" (a metadata tree over a data-only layer), "mask" (an overlay with whiteouts) or
            "whole" (a bind mount).
        directory: a directory of the host, a real path.
        cache: where layers are kept.
        sample: for "tree": a regular file in `directory`, relative to it, that the caller may read.

    Raises:
        OSError: it could not be tried, for one of the reasons that are `PASSING`.

    """
    try:
        with opened(str(cache), make=True) as kept:
            device = os.stat(directory).st_dev
            works = f"{way}-{_boot()}-{_situation(directory, cache)}"
            if _is_kept(kept, works):
                return ""
            with undisturbed(), _scratch(kept, cache) as scratch:
                answer = _try(way, directory, scratch, sample)
            if not answer and os.major(device):
                os.close(open_file(kept, works, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        if error.errno in PASSING:
            raise
        return told(error, cache)
    return answer


def forget(cache: Path) -> bool:
    """Forget what was found out since the host was started; whether there was anything."""
    begin = tuple(f"{way}-{_boot()}-" for way in _WAYS)
    try:
        with opened(str(cache)) as kept:
            answers = [name for name in os.listdir(kept) if name.startswith(begin)]
            for name in answers:
                remove_tree(kept, name)
    except OSError:
        return False
    return bool(answers)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _situation(directory: bytes, cache: Path) -> str:
    """Changes with what an answer depends on, but for the boot."""
    places = [(os.stat(path).st_dev, identity(path)) for path in (bytes(cache), directory)]
    return hashlib.sha256(repr((situation(), places)).encode()).hexdigest()[:32]


def _is_kept(directory: int, name: str) -> bool:
    try:
        os.close(open_file(directory, name, os.O_RDONLY))
    except FileNotFoundError:
        return False
    except OSError:  # none that is only this user's
        remove_tree(directory, name)
        return False
    return True


@contextlib.contextmanager
def _scratch(directory: int, cache: Path) -> Iterator[bytes]:
    """An empty directory for one try-out at a time, so that what a killed one left is cleared by the next."""
    with open(open_file(directory, ".lock", os.O_CREAT | os.O_WRONLY), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            remove_tree(directory, PROBE)
        used = make_in_use(directory, PROBE)
        try:
            yield bytes(cache / PROBE)
        finally:
            os.close(used)
            with contextlib.suppress(FileNotFoundError):
                remove_tree(directory, PROBE)


def mounts_left(proc: Path = Path("/proc")) -> int:
    """How many mounts this mount namespace may still get; see /proc/sys/fs in proc_sys_fs(5)."""
    most = int((proc / "sys/fs/mount-max").read_text(encoding="ascii"))
    return most - (proc / "self/mountinfo").read_bytes().count(b"\n")


def _try(way: StrategyName, directory: bytes, scratch: bytes, sample: bytes | None) -> str:
    """Show `directory` in a namespace of a child's own, and look at it."""
    layer, place = scratch + b"/layer", scratch + b"/mnt"
    os.mkdir(layer)
    os.mkdir(place)
    sample = _prepare(way, layer, directory, sample)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report(writing, way, (layer, directory, place), sample)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return text


def _prepare(way: StrategyName, layer: bytes, directory: bytes, sample: bytes | None) -> bytes | None:
    """Fill the layer; returns the name by which it is seen whether it works."""
    if way == "mask":
        sample = next(iter(os.listdir(directory)), None)
        if sample is not None:
            os.mknod(layer + b"/" + sample, stat.S_IFCHR, os.makedev(0, 0))
    elif way == "tree" and sample is not None:
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
    writing: int, way: StrategyName, places: tuple[bytes, bytes, bytes], sample: bytes | None
) -> None:
    """In the child: try it, write what failed, and end."""
    answer = "the try-out ended early"
    try:
        sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
        answer = _show(way, *places, sample)
    except OSError as error:
        answer = told(error, "overlay")
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, answer.encode("utf-8", "replace"))
        os._exit(0)


def _show(way: StrategyName, layer: bytes, directory: bytes, place: bytes, sample: bytes | None) -> str:
    """Mount it at `place`; what is wrong with what is seen there, or ""."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    layers = (os.open(layer, flags), os.open(directory, flags))
    if way == "tree":
        mounted = sc.fsmount_overlay(*layers)
    elif way == "mask":
        mounted = sc.fsmount_masked(layers, b"/proc")
    else:
        mounted = sc.open_tree(sc.AT_FDCWD, directory, sc.OPEN_TREE_CLONE | sc.OPEN_TREE_CLOEXEC)
    sc.move_mount(mounted, sc.AT_FDCWD, place)
    seen = os.listdir(place)
    if way == "whole":
        return "" if set(seen) == set(os.listdir(directory)) else "a bind mount shows other names"
    if sample is None:
        return ""
    if way == "mask":
        return "an overlay does not hide what it should" if sample in seen else ""
    same = _beginning(place + b"/sample") == _beginning(directory + b"/" + sample)
    return "" if same else "an overlay shows other content than the file has"


def _beginning(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read(_ENOUGH)
