"""The lock of an environment: entries share it, builds and removals take it exclusively; see flock(2)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, PkgjailError
from pkgjail.core.text import text_path
from pkgjail.environments.directory import close, read_state
from pkgjail.environments.record import LOCK
from pkgjail.storage.lock_holders import lock_holders

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import EnvironmentDirectory, Verb

_PRIVATE = 0o600
# Reasons to go on without the lock file: this user may not open it, or nobody can create it.
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
_FIRST_UNINHERITED = 3
# How long to wait for others, when to say so, and how often to look.
_PATIENCE_SECONDS = 10
_WARNING_SECONDS = 1
_STEP_SECONDS = 0.1


@contextlib.contextmanager
def lock_environment(environment: EnvironmentDirectory, verb: Verb) -> Iterator[bytes]:
    """Lock the environment, shared for "enter" and exclusively otherwise; yields the path that is locked.

    A user who may write to the environment locks a file in it that nobody else can open, so nobody else
    can keep that user out. Any other user locks the directory: that shows that somebody is in it, and
    stops nobody. The kernel releases the lock however the process ends.

    Raises:
        PkgjailError: another process builds, enters or removes it.

    """
    descriptor = _open_lock(environment, verb)
    if descriptor is None:
        with contextlib.suppress(OSError):
            fcntl.flock(environment.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield environment.path
        return
    try:
        _lock(descriptor, environment, verb)
        yield environment.path + b"/" + LOCK
    finally:
        close(descriptor)


def _lock(descriptor: int, environment: EnvironmentDirectory, verb: Verb) -> None:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if verb == "enter" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        who = "; ".join(lock_holders(descriptor)) or "it cannot be seen from here"
        raise PkgjailError(
            f"cannot {verb} {text_path(environment.path)}: another pkgjail process builds, enters or removes "
            f"it: {who}; wait until that ends"
        ) from error


def _open_lock(environment: EnvironmentDirectory, verb: Verb) -> int | None:
    """Open the lock file; an environment of an earlier version gets one now.

    Returns None if the user may not write to the file, if the directory is not an environment, or if there
    is no room for the file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(LOCK, flags, dir_fd=environment.descriptor)
        except FileNotFoundError:
            read_state(environment, verb)
            make_lock(environment)
            descriptor = os.open(LOCK, flags, dir_fd=environment.descriptor)
    except InputError:  # the caller will get it too
        return None
    except OSError as error:
        if error.errno in _NO_LOCK:
            return None
        raise
    try:
        _make_private(descriptor, environment)
        # The command in the jail inherits the standard streams, so the lock may not be one of those.
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_UNINHERITED)
    finally:
        close(descriptor)


def _make_private(descriptor: int, environment: EnvironmentDirectory) -> None:
    """Let only the directory's owner open the lock file: whoever can open it can keep the owner out.

    The owner of the directory can give this name to any file that they can rename or link to. So only a
    file that looks as pkgjail makes it, and is theirs, gets another mode; no file gets another owner.
    """
    owner, status = os.fstat(environment.descriptor).st_uid, os.fstat(descriptor)
    is_ours = _is_lock(status) and status.st_nlink == 1 and status.st_uid == owner
    if is_ours and stat.S_IMODE(status.st_mode) != _PRIVATE:
        with contextlib.suppress(OSError):  # not the owner, who will do it
            os.fchmod(descriptor, _PRIVATE)


def make_lock(environment: EnvironmentDirectory) -> None:
    """Create the lock file for the owner of the directory, unless it exists."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # it exists, or the next file cannot be created either
        descriptor = os.open(LOCK, flags, _PRIVATE, dir_fd=environment.descriptor)
        try:
            os.fchmod(descriptor, _PRIVATE)  # the umask may have removed the owner's own rights
            directory = os.fstat(environment.descriptor)
            if directory.st_uid != os.geteuid():
                os.fchown(descriptor, directory.st_uid, directory.st_gid)
        finally:
            close(descriptor)


def has_lock_alone(environment: EnvironmentDirectory, names: Sequence[str]) -> bool:
    """Check whether `names`, all in the directory, are the lock file alone: a build had only just begun."""
    if list(map(os.fsencode, names)) != [LOCK]:
        return False
    return _is_lock(os.stat(LOCK, dir_fd=environment.descriptor, follow_symlinks=False))


def _is_lock(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and not status.st_size


def wait_for_others(environment: EnvironmentDirectory, verb: Verb, reporter: Reporter) -> None:
    """Give users who may only enter the environment, and are in it, a moment to leave.

    A warning names them. The wait has an end, as anybody who can see a directory can lock it.
    """
    start = time.monotonic()
    warned = False
    while not _is_free(environment) and (waited := time.monotonic() - start) < _PATIENCE_SECONDS:
        if waited >= _WARNING_SECONDS and not warned:
            warned = True
            who = "; ".join(lock_holders(environment.descriptor)) or "somebody who cannot be seen from here"
            reporter.warn(
                f"{text_path(environment.path)} is in use by others, who cannot stop you: {who}; pkgjail "
                f"waits for {_PATIENCE_SECONDS - _WARNING_SECONDS} s, then goes on to {verb} it"
            )
        time.sleep(_STEP_SECONDS)


def _is_free(environment: EnvironmentDirectory) -> bool:
    """Check whether nobody locks the directory."""
    try:
        fcntl.flock(environment.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
