"""An environment's directory, held by descriptors: nothing on the way is followed or crossed.

Every directory below it is opened by openat2(2) under RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_XDEV: the kernel refuses a symbolic link, a mount and a way out in any component.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, PkgjailError, Problem, told
from pkgjail.core.model import text_path
from pkgjail.core.untrusted import MANIFEST, read_descriptor, refuse_irregular
from pkgjail.environments.record import JOURNAL, LOCK, RECORD, REMOVING, parse_journal, parse_record
from pkgjail.sandbox import syscalls as sc
from pkgjail.storage.lock_holders import holders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.record import Head, Record

_WITHIN = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# As openat2(2) tells it.
_WHY_NOT = {
    errno.EXDEV: "it is a mount point; unmount it, or name a directory in it",
    errno.ENOTDIR: "it is no directory",
}


_PRIVATE = 0o600
# Why somebody goes on without the lock's file: they may not have it, or nobody can.
_NO_LOCK = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.ELOOP,
        errno.ENOENT,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
_FIRST_OTHER = 3
# How long others are waited for, when that is told, and how often it is looked.
_PATIENCE_SECONDS = 10
_TELL_SECONDS = 1
_STEP_SECONDS = 0.1
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


@contextlib.contextmanager
def locked(place: Place, doing: str, *, alone: bool) -> Iterator[bytes]:
    """Take the environment for this process, or share it with others that enter it; see flock(2).

    Those who may write to the environment lock a file in it that nobody else can open, so nobody else
    can keep them out. Who may only enter it locks the directory: that tells that somebody is in it, and
    stops nobody. The path of what is locked is yielded. The kernel lets go however the process ends.

    Raises:
        PkgjailError: another process builds, enters or removes it.

    """
    descriptor = _open_lock(place, doing)
    if descriptor is None:
        with contextlib.suppress(OSError):
            fcntl.flock(place.directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield place.path
        return
    try:
        _lock(descriptor, place, doing, alone=alone)
        yield place.path + b"/" + LOCK
    finally:
        _close(descriptor)


def _lock(descriptor: int, place: Place, doing: str, *, alone: bool) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        who = "; ".join(holders(descriptor)) or "it cannot be seen from here"
        raise PkgjailError(
            f"cannot {doing} {text_path(place.path)}: another pkgjail builds, enters or removes it: {who}; "
            "wait until that ends"
        ) from error


def _open_lock(place: Place, doing: str) -> int | None:
    """The lock's file, which an environment of before is given now; None for who may not write to it.

    None also where there is no environment, or no room for the file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(LOCK, flags, dir_fd=place.directory)
        except FileNotFoundError:
            state_of(place, doing)
            make_lock(place)
            descriptor = os.open(LOCK, flags, dir_fd=place.directory)
    except InputError:  # which the caller meets, too
        return None
    except OSError as error:
        if error.errno in _NO_LOCK:
            return None
        raise
    try:
        _make_private(descriptor, place)
        # The command inside would inherit one of the first three.
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_OTHER)
    finally:
        _close(descriptor)


def _make_private(descriptor: int, place: Place) -> None:
    """Let nobody but the directory's owner open the lock's file: who can, can keep the owner out.

    Whoever owns the directory can give the name to any file that they can rename or link to. So only a
    file that is as pkgjail makes it, and theirs, gets another mode, and none another owner.
    """
    owner, found = os.fstat(place.directory).st_uid, os.fstat(descriptor)
    is_ours = _is_lock(found) and found.st_nlink == 1 and found.st_uid == owner
    if is_ours and stat.S_IMODE(found.st_mode) != _PRIVATE:
        with contextlib.suppress(OSError):  # not the owner, who sees to it
            os.fchmod(descriptor, _PRIVATE)


def make_lock(place: Place) -> None:
    """Make the lock's file, where there is none, for the owner of the directory."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # it is there; or what is made next fails alike
        descriptor = os.open(LOCK, flags, _PRIVATE, dir_fd=place.directory)
        try:
            os.fchmod(descriptor, _PRIVATE)  # the umask may have taken the owner's own rights
            owner = os.fstat(place.directory)
            if owner.st_uid != os.geteuid():
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            _close(descriptor)


def is_lock_alone(place: Place, names: Sequence[str]) -> bool:
    """Whether of these names of the directory there is only the lock's file: a build that had just begun."""
    if list(map(os.fsencode, names)) != [LOCK]:
        return False
    return _is_lock(os.stat(LOCK, dir_fd=place.directory, follow_symlinks=False))


def _is_lock(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and not found.st_size


def wait_for_others(place: Place, doing: str, reporter: Reporter) -> None:
    """Give users who may only enter the environment, and are in it, a moment to leave.

    They may be named, and are waited for no longer: anybody who can see a directory can lock it.
    """
    start = time.monotonic()
    told = False
    while not _is_free(place) and (waited := time.monotonic() - start) < _PATIENCE_SECONDS:
        if waited >= _TELL_SECONDS and not told:
            told = True
            who = "; ".join(holders(place.directory)) or "somebody who cannot be seen from here"
            reporter.warn(
                f"{text_path(place.path)} is in use by others, who cannot stop you: {who}; pkgjail waits "
                f"for {_PATIENCE_SECONDS - _TELL_SECONDS} s, then goes on to {doing} it"
            )
        time.sleep(_STEP_SECONDS)


def _is_free(place: Place) -> bool:
    """Whether nobody locks the directory."""
    try:
        fcntl.flock(place.directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
