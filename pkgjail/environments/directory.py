"""An environment's directory, held by descriptors: nothing on the way is followed or crossed.

Every directory below it is opened by openat2(2) under RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_XDEV: the kernel refuses a symbolic link, a mount and a way out in any component.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.environments.holders import holders
from pkgjail.environments.record import JOURNAL, RECORD, REMOVING, parse_journal, parse_record
from pkgjail.errors import InputError, PkgjailError, Problem, told
from pkgjail.model import text_path
from pkgjail.sandbox import syscalls as sc
from pkgjail.untrusted import MANIFEST, read_descriptor, refuse_irregular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.environments.record import Head, Record

_WITHIN = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# As openat2(2) tells it.
_WHY_NOT = {
    errno.EXDEV: "it is a mount point; unmount it, or name a directory in it",
    errno.ENOTDIR: "it is no directory",
}


_INTERRUPTED = {JOURNAL: "its build was interrupted", REMOVING: "its removal was interrupted"}


class Place(NamedTuple):
    """An environment's directory: its parent's descriptor, its name there, its own descriptor, its path."""

    parent: int
    name: bytes
    directory: int
    path: bytes

    def open_directory(self, path: bytes) -> int:
        """A descriptor of the directory `path` (relative; empty for the environment's own).

        Raises:
            OSError: `ELOOP` for a symbolic link on the way, `EXDEV` for a mount, and others.

        """
        return sc.openat2(self.directory, path or b".", _DIRECTORY, _WITHIN)

    def open_handle(self, path: bytes) -> int:
        """The same for a directory that may not be readable: a descriptor that only names it."""
        return sc.openat2(self.directory, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, _WITHIN)


class State(NamedTuple):
    """How far an environment is: the name of the file that tells it, and what that file says.

    `record` is None where a build ended before it made anything.
    """

    file: bytes
    record: Record | None


def split(directory: bytes) -> tuple[bytes, bytes]:
    """The real path of a directory's parent, and its name there; the directory need not be there.

    Raises:
        InputError: it has no name of its own, as `/` and `..`.

    """
    parent, name = os.path.split(directory.rstrip(b"/"))
    if name in (b"", b".", b".."):
        raise InputError([Problem("", f"cannot use {text_path(directory)}: name the directory itself")])
    return os.path.realpath(parent or b"."), name


@contextlib.contextmanager
def opened(directory: bytes, doing: str) -> Iterator[Place]:
    """Hold the directory of an environment; `doing` ("enter") stands in messages.

    Raises:
        InputError: there is no such directory, or it is a symbolic link or a mount point.

    """
    parent, name = split(directory)
    path = parent.rstrip(b"/") + b"/" + name
    try:
        above = os.open(parent, _DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(doing, path, error) from error
    try:
        try:
            itself = sc.openat2(above, name, _DIRECTORY, _WITHIN)
        except OSError as error:
            raise _cannot(doing, path, error) from error
        try:
            yield Place(above, name, itself, path)
        finally:
            _close(itself)
    finally:
        _close(above)


def _close(directory: int) -> None:
    """Close a directory: nothing was written by that descriptor, so nothing can be lost; close(2)."""
    with contextlib.suppress(OSError):
        os.close(directory)


def _cannot(doing: str, path: bytes, error: OSError) -> InputError:
    if os.path.islink(path):
        why: str | None = "it is a symbolic link; name the directory itself"
    else:
        why = _WHY_NOT.get(error.errno or 0, error.strerror)
    return InputError([Problem("", f"cannot {doing} {text_path(path)}: {why}")])


def lock(place: Place, doing: str, *, alone: bool) -> None:
    """Take the environment for this process, or share it with others that enter it; see flock(2).

    The kernel lets go when the descriptor is closed, however the process ends.

    Raises:
        PkgjailError: another process builds, enters or removes it.

    """
    try:
        fcntl.flock(place.directory, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        who = "; ".join(holders(place.directory)) or "of another user's, perhaps"
        raise PkgjailError(
            f"cannot {doing} {text_path(place.path)}: another pkgjail builds, enters or removes it: {who}; "
            "wait until that ends"
        ) from error


def state_of(place: Place, doing: str) -> State:
    """How far the environment is.

    Raises:
        InputError: the directory is no environment, or its record cannot be read.

    """
    for file in (JOURNAL, REMOVING, RECORD):
        data = read_file(place, file)
        if data is None:
            continue
        name = text_path(place.path + b"/" + file)
        whole = parse_journal(data, name) if file == JOURNAL else parse_record(data, name)
        if whole is not None and whole.head.inode != os.fstat(place.directory).st_ino:
            raise InputError(
                [
                    Problem(
                        "",
                        f"cannot {doing} {text_path(place.path)}: it is a copy of an environment, and not "
                        "the one that was built; build one with 'pkgjail build'",
                    )
                ]
            )
        return State(file, whole)
    raise InputError(
        [
            Problem(
                "",
                f"cannot {doing} {text_path(place.path)}: it is no environment; "
                "'pkgjail build MANIFEST DIR' makes one",
            )
        ]
    )


def read_file(place: Place, name: bytes) -> bytes | None:
    """The content of a file in the environment's own directory; None where there is none.

    Raises:
        InputError: it is no regular file, or a larger one than pkgjail writes.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=place.directory)
    except FileNotFoundError:
        return None
    path = place.path + b"/" + name
    try:
        refuse_irregular(os.fstat(descriptor), path)
        return read_descriptor(descriptor, path, MANIFEST)
    except OSError as error:
        raise InputError([Problem("", f"cannot read a file of an environment: {told(error)}")]) from error
    finally:
        os.close(descriptor)


def whole_record(place: Place) -> Record:
    """The record of an environment that can be entered.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted.

    """
    state = state_of(place, "enter")
    if state.record is None or state.file in _INTERRUPTED:
        path = text_path(place.path)
        raise InputError(
            [
                Problem(
                    "",
                    f"cannot enter {path}: {_INTERRUPTED[state.file]}; take away what is left with "
                    f"'pkgjail remove {path}', and build it again",
                )
            ]
        )
    return state.record


def read_head(directory: bytes) -> Head:
    """The options that an environment was built with, and what else stands at the head of its record.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted.

    """
    with opened(directory, "enter") as place:
        return whole_record(place).head
