"""The members of a directory that has the root of a system, read without following a link.

What is mounted below it (`/proc`, for example) is another file system's, and is left out.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pkgjail.core.errors import NamesError
from pkgjail.core.reporter import warn_each
from pkgjail.core.text import printable
from pkgjail.images.model import Member

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.reporter import Reporter
    from pkgjail.images.model import MemberKind

_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS: dict[int, MemberKind] = {
    stat.S_IFREG: "regular",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@contextmanager
def members_below(root: str, reporter: Reporter) -> Iterator[Iterator[Member]]:
    """Yield the members of the directory `root`: each directory before what is in it.

    Raises, also while they are read:
        NamesError: names that this user may not read, all of them at the end.
        OSError: it cannot be read.

    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _walk(top, reporter)
    finally:
        os.close(top)


def _walk(top: int, reporter: Reporter) -> Iterator[Member]:
    device = os.fstat(top).st_dev
    unreadable: list[bytes] = []
    mounts: list[bytes] = []
    first: dict[tuple[int, int], bytes] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        name = path or b"."
        found = os.stat(name, dir_fd=top, follow_symlinks=False)
        if found.st_dev != device:
            mounts.append(path)
        member, descriptor = _member(top, path, found, first)
        if descriptor is None and member.kind in ("regular", "directory"):
            unreadable.append(path)
            continue
        try:
            yield member
            if descriptor is not None and member.kind == "directory" and found.st_dev == device:
                names = sorted(map(os.fsencode, os.listdir(descriptor)), reverse=True)
                todo += [path + b"/" + each if path else each for each in names]
        finally:
            if descriptor is not None:
                os.close(descriptor)
    if unreadable:
        raise NamesError("import {}", unreadable, "this user may not read it; import as a user who may")
    rows = [f"{printable(path)}: it is a mount, so only the directory is in the image" for path in mounts]
    warn_each(reporter, rows, "mounts")


def _member(
    top: int, path: bytes, found: os.stat_result, first: dict[tuple[int, int], bytes]
) -> tuple[Member, int | None]:
    """Return a member, and a descriptor of a directory or a regular file; None if it cannot be read."""
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "device")
    member = Member(
        path=path or b".",
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
    )
    if kind == "symlink":
        return member._replace(target=os.readlink(path, dir_fd=top)), None
    if kind not in ("regular", "directory"):
        return member, None
    if kind == "regular" and found.st_nlink > 1:
        other = first.setdefault((found.st_dev, found.st_ino), path)
        if other != path:
            return member._replace(kind="link", target=other), None
    try:
        descriptor = os.open(path or b".", _READ if kind == "directory" else _FILE, dir_fd=top)
    except PermissionError:
        return member, None
    if kind == "directory":
        return member, descriptor
    size = os.fstat(descriptor).st_size
    return member._replace(size=size, read=lambda wanted: os.read(descriptor, wanted)), descriptor
