"""Open the user's own directories and files by descriptor, without trusting what others could put there.

- Nobody else can put another directory in the place of pkgjail's own (`pkgjail.storage.locations`).
- From pkgjail's own directory on, each level is opened by descriptor. No link is followed. Each level must
  belong to the effective user, and nobody else may write to it. The same holds for a file, which must also
  have no other name.

`pkgjail.storage.atomic` writes files, `pkgjail.storage.removal` removes them. Entering a jail imports this
module, so it must stay cheap to import.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pkgjail.storage.locations import (
    OTHERS_WRITE,
    SUBDIRECTORIES,
    cache_directory,
    is_foreign,
    make_directory,
    make_stand_in,
    rejected_runtime_base,
    replaceable_part,
    runtime_directory,
)

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

NEW_PREFIX, REMOVED_PREFIX = ".new-", ".going-"
"""The beginning of the name of something that is being written, and of something that is being removed."""
PRIVATE_MODE = 0o600
"""The mode of files that only this user reads."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # do not wait for a FIFO


# --- directories --------------------------------------------------------------------------------


def ensure_runtime_directory() -> str:
    """Make sure that this user has a runtime directory of their own.

    Returns:
        A warning for the user: which usual directory is not used, and why. "" if there is none.

    """
    directory = runtime_directory()
    if is_foreign(directory):
        other = make_stand_in(directory)
        return f"cannot use the runtime directory {directory}: somebody else made it; {other} is used instead"
    base, fault = rejected_runtime_base()
    if not fault or os.path.lexists(directory):
        return ""
    os.close(open_directory(directory, make=True))
    return f"cannot use the runtime directory {base}: {fault}; {directory} is used instead"


def open_directory(path: str, *, make: bool = False) -> int:
    """Open one of pkgjail's directories, or a directory that contains one; returns a descriptor.

    Each level from pkgjail's own directory on is checked.

    Args:
        path: an absolute path. If it is in neither the cache nor the runtime directory, only the
            directory itself is checked.
        make: make what is missing (mode 0700, whatever the umask). If others may write to one of
            pkgjail's directories, take that right from them and set aside what they could have put there.

    Raises:
        OSError: it does not exist; `PermissionError` if it is not the user's alone.

    """
    own = _split_own_path(path)
    top, names = own or (path, [])
    if make:
        _make_parents(top)
    # A directory that is not pkgjail's own may be shared on purpose.
    descriptor = open_subdirectory(None, top, make=make, repair=make and own is not None)
    try:
        _refuse_replaceable(descriptor, top)
    except BaseException:
        os.close(descriptor)
        raise
    for name in names:
        parent = descriptor
        try:
            descriptor = open_subdirectory(parent, name, make=make, repair=make)
        finally:
            os.close(parent)
    return descriptor


@contextlib.contextmanager
def opened_directory(path: str, *, make: bool = False) -> Iterator[int]:
    """Open a directory as `open_directory` does, and close it at the end."""
    descriptor = open_directory(path, make=make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_subdirectory(parent: int | None, name: str, *, make: bool = False, repair: bool = False) -> int:
    """Open one level: `name` in the directory `parent`, which was opened in the same way.

    Only the first level has no parent; its `name` is a path. With `repair`, the directory is pkgjail's
    own: if others may write to it, that right is taken from them. Otherwise it is refused.
    """
    try:
        descriptor = _open_without_links(parent, name)
    except FileNotFoundError:
        if not make:
            raise
        with contextlib.suppress(FileExistsError):
            make_directory(name, parent)
        descriptor = _open_without_links(parent, name)
    try:
        found = os.fstat(descriptor)
        _refuse_shared(found, name, writable_by_others=repair)
        if found.st_mode & OTHERS_WRITE:
            _close_to_others(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_replaceable(descriptor: int, path: str) -> None:
    """Refuse a directory that another user may replace.

    A directory that did not exist when the path was chosen may be theirs by now, as in /tmp and /dev/shm.
    """
    real = os.readlink(f"/proc/self/fd/{descriptor}")
    if any(replaceable_part(each) for each in {path, real}):
        raise _not_private(path)


def _split_own_path(path: str) -> tuple[str, list[str]] | None:
    """Split a path into pkgjail's own directory and the names below it; None if it is in none."""
    for directory in (runtime_directory, cache_directory):
        top = directory()
        if path == top:
            return path, []
        if path.startswith(f"{top}/"):
            return top, path[len(top) + 1 :].split("/")
    return None


def _open_without_links(parent: int | None, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):  # a link, or not a directory
            raise _not_private(name) from None
        raise


def _refuse_shared(found: os.stat_result, name: str, *, writable_by_others: bool) -> None:
    """Refuse what is not the user's alone; with `writable_by_others`, others may write to it."""
    has_one_name = stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink <= 1)
    is_open = found.st_mode & OTHERS_WRITE and not writable_by_others
    if found.st_uid != os.geteuid() or not has_one_name or is_open:
        raise _not_private(name)


def _not_private(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "does not belong to this user alone", path)


def _make_parents(path: str) -> None:
    """Make the directories above `path`."""
    directory = os.path.dirname(path)
    if not os.path.lexists(directory):
        _make_parents(directory)
        with contextlib.suppress(FileExistsError):
            make_directory(directory)


def _close_to_others(directory: int) -> None:
    """Take from others the right to write to a directory, and set aside what they could have put there.

    Earlier versions made such directories under a loose umask. Others can also have moved files of this
    user there, with any content. A subdirectory that they could never write to is as the user left it.
    """
    os.fchmod(directory, 0o700)
    for name in os.listdir(directory):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_own = found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
        if not (name in SUBDIRECTORIES and stat.S_ISDIR(found.st_mode) and is_own):
            set_aside(directory, name)


def set_aside(directory: int, name: str) -> str:
    """Rename something that is to be removed; returns the new name. A lock on it stays valid."""
    aside = f"{REMOVED_PREFIX}{os.urandom(8).hex()}"
    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    return aside


# --- files --------------------------------------------------------------------------------------


def open_own_file(directory: int, name: str, flags: int) -> int:
    """Open a regular file in a directory that `open_directory` opened; new files have mode 0600.

    O_CREAT is for files whose content is not read: with it, others lose the right to write to the file.

    Raises:
        OSError: it cannot be opened; `PermissionError` if it is not the user's alone: another user owns
            it or may write to it, or it has another name somewhere.

    """
    descriptor = os.open(name, flags | _FILE, PRIVATE_MODE, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        _refuse_shared(found, name, writable_by_others=bool(flags & os.O_CREAT))
        if flags & os.O_CREAT and stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
            os.fchmod(descriptor, PRIVATE_MODE)  # the umask may have taken the user's own rights, too
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_own_file(path: str) -> bytes:
    """Return the content of a file that `pkgjail.storage.atomic.write_own_file` wrote for this user.

    If the home directory or the runtime directory belongs to another user, as with some ways to become
    root, that user may have put a file there or replaced one.

    Raises:
        OSError: it cannot be read; `PermissionError` if it, or a directory above it, is not the user's
            alone.

    """
    parent, name = os.path.split(path)
    with opened_directory(parent) as directory:
        descriptor = open_own_file(directory, name, os.O_RDONLY)
        with open(descriptor, "rb") as file:
            return file.read()


def is_same_file(descriptor: int, directory: int, name: str) -> bool:
    """Return whether `name` in a directory is the file that a descriptor is open on."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
