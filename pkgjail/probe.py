"""Whether this kernel and filesystem can do what a plan asks for, found out by trying.

Never by a version number: distributions carry features back, and containers take them away. The
try-out happens in a throw-away user and mount namespace; its answer is kept for this boot.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from pkgjail.cache import make_private
from pkgjail.sandbox import syscalls as sc

# How the kernel writes white space and backslashes there.
_OCTAL = re.compile(rb"\\([0-7]{3})")
_CONTENT = b"seen through an overlay"


def cannot_overlay(cache: Path) -> str:
    """Why a metadata tree in the directory `cache` cannot be mounted here; "" where it can.

    Success is remembered, for this boot, this filesystem and this user namespace; a failure may
    pass (a limit that is reached), so it is tried again.
    """
    try:
        make_private(cache)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.stat("/proc/self/ns/user").st_ino
        works = cache / f"overlay-{boot}-{namespace}-{os.stat(cache).st_dev}"
        if works.exists():
            return ""
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=cache) as scratch:
            answer = _try_overlay(os.fsencode(scratch))
        if not answer:
            works.touch()
    except OSError as error:
        return f"{cache}: {error.strerror}"
    return answer


def mount_below(directory: bytes, table: Path = Path("/proc/self/mountinfo")) -> bytes | None:
    """A mount point below `directory` (a real path), or None; see proc_pid_mountinfo(5).

    An overlay shows one filesystem: what is mounted further down is not in it, and within a user
    namespace the kernel refuses such a layer altogether.
    """
    for line in table.read_bytes().splitlines():
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point.startswith(directory + b"/"):
            return point
    return None


def _try_overlay(scratch: bytes) -> str:
    """Mount one file's tree in a namespace of a child's own, and read through it."""
    tree, data, place = (scratch + name for name in (b"/tree", b"/data", b"/mnt"))
    for directory in (tree, data, place):
        os.mkdir(directory)
    Path(os.fsdecode(data + b"/file")).write_bytes(_CONTENT)
    descriptor = os.open(tree + b"/file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, len(_CONTENT))
        os.setxattr(descriptor, "user.overlay.metacopy", b"")
        os.setxattr(descriptor, "user.overlay.redirect", b"/file")
    finally:
        os.close(descriptor)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report(writing, tree, data, place)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return text


def _report(writing: int, tree: bytes, data: bytes, place: bytes) -> None:
    """In the child: try it, write what failed, and end."""
    answer = "the try-out ended early"
    try:
        sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
        layers = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (tree, data)]
        sc.move_mount(sc.fsmount_overlay(*layers), sc.AT_FDCWD, place)
        content = Path(os.fsdecode(place + b"/file")).read_bytes()
        answer = "" if content == _CONTENT else "an overlay shows other content than the file has"
    except OSError as error:
        answer = f"{os.fsdecode(error.filename or b'overlay')}: {error.strerror}"
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, answer.encode("utf-8", "replace"))
        os._exit(0)
