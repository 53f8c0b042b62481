"""An environment held against its record: every name that is not as `build` left it is a surprise."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pkgjail.core.entries import NOUNS, kind_of
from pkgjail.environments.record import JOURNAL, LOCK, MANIFEST, SCRATCH, TREE
from pkgjail.storage.filesystems import sets_times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.environments.directory import Place
    from pkgjail.environments.record import Made

GONE = "is gone"

_BLOCK = 1 << 18
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def by_directory(made: tuple[Made, ...]) -> dict[bytes, dict[bytes, Made]]:
    """What each directory (by path; empty for the environment's own) should hold, by name."""
    held: dict[bytes, dict[bytes, Made]] = defaultdict(dict)
    held[b""] = {}
    for one in made:
        above, _, name = one.path.rpartition(b"/")
        held[above][name] = one
        if one.kind == "directory":
            held[one.path] = {}
    return held


def surprises(place: Place, made: tuple[Made, ...], file: bytes) -> list[tuple[bytes, str]]:
    """Every name of the environment that is not as recorded, and every name that is not recorded.

    All of the environment's own directory is looked at; `file` is the name of its record.
    """
    own = {file, LOCK, SCRATCH} if file == JOURNAL else {file, LOCK}
    return list(_differences(place, by_directory(made), own))


def tampered(place: Place, made: tuple[Made, ...]) -> list[tuple[bytes, str]]:
    """The same for what a jail is made from, the manifest and the tree; quicker.

    A directory whose change time is as recorded has the names that it had: nobody can set that time
    (inode(7)), unless its file system lets them (`pkgjail.storage.filesystems`). What else lies in the
    environment's own directory does not matter.
    """
    held = by_directory(made)
    found = list(_differences(place, held, None))
    return [one for one in found if one[0].split(b"/", 1)[0] in (MANIFEST, TREE)]


def _differences(
    place: Place, held: dict[bytes, dict[bytes, Made]], own: set[bytes] | None
) -> Iterator[tuple[bytes, str]]:
    """Hold each directory against what it should hold; `own` None takes its change time's word."""
    recorded = {one.path: one for names in held.values() for one in names.values()}
    timed = sets_times(place.directory)  # no other is mounted in it: that would be told
    unreachable: set[bytes] = set()
    for path in sorted(held):
        if path and path.rpartition(b"/")[0] in unreachable:
            unreachable.add(path)
            continue
        try:
            descriptor = place.open_directory(path)
        except OSError as error:
            unreachable.add(path)
            shown_above = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            # Into what the user may not look, the jail of that user does not see either.
            if not (shown_above or (own is None and error.errno == errno.EACCES)):
                yield path, _why_not_opened(error)
            continue
        try:
            yield from _in_directory(descriptor, path, held[path], recorded.get(path), own, timed=timed)
        finally:
            os.close(descriptor)


def _why_not_opened(error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return "is a mount point"
    return f"cannot be looked at: {error.strerror}"


def _in_directory(  # noqa: PLR0913 - one directory, and how it is looked at
    descriptor: int,
    path: bytes,
    names: dict[bytes, Made],
    itself: Made | None,
    own: set[bytes] | None,
    *,
    timed: bool,
) -> Iterator[tuple[bytes, str]]:
    prefix = path + b"/" if path else b""
    for name, one in names.items():
        if (change := difference(descriptor, name, one, timed=timed)) is not None:
            yield prefix + name, change
    if own is None and (itself is None or (timed and os.fstat(descriptor).st_ctime_ns == itself.ctime)):
        return
    known = names.keys() | (own or set() if itself is None else set())
    for name in sorted(set(map(os.fsencode, os.listdir(descriptor))) - known):
        yield prefix + name, "was not made by pkgjail"


def difference(directory: int, name: bytes, made: Made, *, timed: bool) -> str | None:
    """What stands at `name` in place of what was made, for a message; None where it is that.

    A regular file is known by inode, size and times. Where its change time alone differs (its mode
    was changed, a link to it was made), or its file system does not set that itself (`timed`), its
    content decides.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return GONE
    kind = kind_of(found.st_mode)
    if kind != made.kind:
        return f"is no longer a {NOUNS[made.kind]}"
    if made.inode and found.st_ino != made.inode:
        return f"was replaced by another {NOUNS[made.kind]}"
    if kind == "symlink":
        same = os.fsencode(os.readlink(name, dir_fd=directory)) == made.target
        return None if same else "is a link to somewhere else"
    if kind == "regular":
        return _difference_of_file(directory, name, made, found, timed=timed)
    return None


def _difference_of_file(
    directory: int, name: bytes, made: Made, found: os.stat_result, *, timed: bool
) -> str | None:
    if found.st_size != made.size:
        return f"has {found.st_size} bytes, not {made.size}"
    if timed and found.st_mtime_ns == made.mtime and found.st_ctime_ns == made.ctime:
        return None
    try:
        descriptor = os.open(name, _FILE, dir_fd=directory)
    except OSError as error:
        return f"has changed, and cannot be read: {error.strerror}"
    with open(descriptor, "rb", buffering=0) as file:
        return None if content_digest(file.fileno()) == made.sha256 else "has other content"


def content_digest(descriptor: int) -> str:
    """The SHA-256, in hex, of all that an open file holds; its offset stays."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


@contextmanager
def unlocked(place: Place, made: tuple[Made, ...]) -> Iterator[None]:
    """Let the owner into the environment's own directories, whatever their modes.

    Those that are still there at the end of the block get their modes back.
    """
    changed: list[tuple[Made, int]] = []
    try:
        for one in made:
            mode = _change_mode(place, one, None) if one.kind == "directory" else None
            changed += [] if mode is None else [(one, mode)]
        yield
    finally:
        for one, mode in reversed(changed):
            _change_mode(place, one, mode)


def _change_mode(place: Place, made: Made, mode: int | None) -> int | None:
    """Give a directory that is as recorded a mode, or with None its owner's bits.

    Returns the mode that it had; None where it is another directory or lacked none of these bits.
    """
    try:
        handle = place.open_handle(made.path)
    except OSError:
        return None  # a surprise, which the look at it will tell; or removed meanwhile
    try:
        found = os.fstat(handle)
        old = stat.S_IMODE(found.st_mode)
        if (made.inode and found.st_ino != made.inode) or (
            mode is None and old & stat.S_IRWXU == stat.S_IRWXU
        ):
            return None
        # By its descriptor, so that no link is followed; chmod(2) of the name would follow one.
        os.chmod(f"/proc/self/fd/{handle}", old | stat.S_IRWXU if mode is None else mode)
        return old
    finally:
        os.close(handle)
