"""Remove an environment so that nothing else is lost.

First everything is checked: nothing is mounted below, and each name is as `build` recorded it. Only then
are names deleted, the inner ones first, each compared once more by the descriptor of its directory. Any
difference stops the removal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.entries import MISSING, NOUNS, Mismatch, failure
from pkgjail.core.errors import ModifiedEnvironmentError, PkgjailError
from pkgjail.core.given import path_bytes
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import text_path
from pkgjail.environments.compare import compare_all, compare_entry, group_by_directory
from pkgjail.environments.directory import open_environment, read_state
from pkgjail.environments.lock import has_lock_alone, lock_environment, wait_for_others
from pkgjail.environments.machine import stop_machine
from pkgjail.environments.record import LOCK, PHASE_FILES, SCRATCH
from pkgjail.storage.filesystems import sets_times
from pkgjail.storage.mounts import mounts_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.errors import Change
    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.environments.record import Phase, RecordEntry


class Removed(NamedTuple):
    """The result of a removal: how many names it deleted, and how many were already gone."""

    deleted: int
    gone: int


def remove_environment(directory: AnyPath, *, reporter: Reporter = SILENT) -> Removed:
    """Remove the environment in `directory`, and the directory.

    An environment whose build or removal was interrupted is removed too, and so is an empty directory,
    which such an interruption may leave. `reporter` gets progress, and a warning that names other users who
    are in the environment, if they do not leave at once.

    Raises:
        InputError: there is no environment.
        PkgjailError: something is mounted below, another process works with the environment, or its machine
            does not end; nothing was deleted.
        ModifiedEnvironmentError: a name is not as `build` left it. Nothing was deleted, unless the name
            changed during the removal; the message says so.
        OSError: the kernel refused; another call can remove what is left.

    """
    directory = path_bytes(directory, "directory")
    with open_environment(directory, "remove") as environment, lock_environment(environment, "remove"):
        names = os.listdir(environment.descriptor)
        if not names or has_lock_alone(environment, names):
            _unlink(environment.descriptor, LOCK)
            return _remove_directory(environment, Removed(0, 0))
        state = read_state(environment, "remove")
        refuse_mounts(environment)
        wait_for_others(environment, "remove", reporter)
        if state.record is not None and state.record.header.machine is not None:
            stop_machine(environment)
        entries = state.record.entries if state.record is not None else ()
        return clear(environment, entries, state.phase, reporter=reporter)


def check_removal(directory: bytes) -> Phase:
    """Check whether `remove_environment` could remove the environment now; delete nothing.

    Returns the environment's phase; "building" for an empty directory, too.

    Raises:
        InputError, PkgjailError, ModifiedEnvironmentError: as `remove_environment`.

    """
    with open_environment(directory, "remove") as environment, lock_environment(environment, "remove"):
        names = os.listdir(environment.descriptor)
        if not names or has_lock_alone(environment, names):
            return "building"
        state = read_state(environment, "remove")
        refuse_mounts(environment)
        entries = state.record.entries if state.record is not None else ()
        with _owner_access(environment, entries):
            _refuse_changes(environment, entries, state.phase)
        return state.phase


def refuse_mounts(environment: EnvironmentDirectory) -> None:
    """Refuse to go on if anything is mounted below the environment's directory; see proc_pid_mountinfo(5).

    A mount on the directory itself was already refused when it was opened.

    Raises:
        PkgjailError: something is mounted.

    """
    # Its current path, as it may have been moved.
    path = os.readlink(b"/proc/self/fd/%d" % environment.descriptor)
    for point in mounts_below(path):
        raise PkgjailError(
            f"cannot remove {text_path(environment.path)}: something is mounted at {text_path(point)}; "
            "unmount it with 'umount' as root, remove its line from /etc/fstab if there is one, and try again"
        )


def clear(
    environment: EnvironmentDirectory,
    entries: Sequence[RecordEntry],
    phase: Phase,
    *,
    keep_directory: bool = False,
    reporter: Reporter = SILENT,
) -> Removed:
    """Delete the recorded `entries`, then the record and, unless with `keep_directory`, the directory.

    Raises:
        ModifiedEnvironmentError, OSError: as `remove_environment`.

    """
    with _owner_access(environment, entries):
        _refuse_changes(environment, entries, phase)
        if phase == "built":
            # From now on names may be missing. A rename needs no room on a full disk.
            os.rename(
                PHASE_FILES["built"],
                PHASE_FILES["removing"],
                src_dir_fd=environment.descriptor,
                dst_dir_fd=environment.descriptor,
            )
            phase = "removing"
        deleted = _delete_all(environment, entries, reporter)
    if phase == "building":
        _unlink(environment.descriptor, SCRATCH)
    _unlink(environment.descriptor, PHASE_FILES[phase])
    _unlink(environment.descriptor, LOCK)
    removed = Removed(deleted, len(entries) - deleted)
    return removed if keep_directory else _remove_directory(environment, removed)


def _refuse_changes(environment: EnvironmentDirectory, entries: Sequence[RecordEntry], phase: Phase) -> None:
    """Raise `ModifiedEnvironmentError` if a name is not as recorded; one that is missing does not matter."""
    changes = compare_all(environment, entries, phase)
    unexpected = [change for change in changes if change[1].what != "missing"]
    if unexpected:
        raise _refusal(environment, unexpected, "nothing was deleted")


@contextlib.contextmanager
def _owner_access(environment: EnvironmentDirectory, entries: Sequence[RecordEntry]) -> Iterator[None]:
    """Give the owner access to the environment's directories, whatever their modes.

    Directories that still exist at the end of the block get their modes back.
    """
    changed: list[tuple[RecordEntry, int]] = []
    try:
        for entry in entries:
            mode = _change_mode(environment, entry, None) if entry.kind == "directory" else None
            changed += [] if mode is None else [(entry, mode)]
        yield
    finally:
        for entry, mode in reversed(changed):
            _change_mode(environment, entry, mode)


def _change_mode(environment: EnvironmentDirectory, entry: RecordEntry, mode: int | None) -> int | None:
    """Give a directory that is as recorded a new mode, or for None all of its owner's bits.

    Returns its old mode; None if it is another directory, or lacked none of these bits.
    """
    try:
        handle = environment.open_path(entry.path)
    except OSError:
        return None  # the comparison will report the change; or the directory was removed meanwhile
    try:
        found = os.fstat(handle)
        old = stat.S_IMODE(found.st_mode)
        if (entry.inode and found.st_ino != entry.inode) or (
            mode is None and old & stat.S_IRWXU == stat.S_IRWXU
        ):
            return None
        # By descriptor, so that no link is followed; chmod(2) by name would follow one.
        os.chmod(f"/proc/self/fd/{handle}", old | stat.S_IRWXU if mode is None else mode)
        return old
    finally:
        os.close(handle)


def _delete_all(environment: EnvironmentDirectory, entries: Sequence[RecordEntry], reporter: Reporter) -> int:
    """Delete all entries, each directory after its content; return how many were there."""
    listings = group_by_directory(entries)
    deleted = 0
    for path in sorted(listings, reverse=True):
        reporter.progress("deleting", deleted, len(entries))
        try:
            directory = environment.open_directory(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            change = failure("unreachable", error)
            raise _refusal(environment, [(path, change)], _PROGRESS.format(deleted)) from error
        try:
            for name, entry in listings[path].items():
                deleted += _delete(environment, directory, name, entry, deleted)
        finally:
            os.close(directory)
    reporter.progress("deleting", len(entries), len(entries))
    return deleted


_PROGRESS = "it changed during the removal, and {} names are already deleted"


def _delete(
    environment: EnvironmentDirectory, directory: int, name: bytes, entry: RecordEntry, deleted: int
) -> bool:
    """Delete one name if it is as recorded; return whether it was there."""
    change = compare_entry(directory, name, entry, trust_times=sets_times(directory))
    if change == MISSING:
        return False
    if change is None:
        try:
            if entry.kind == "directory":
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.EISDIR, errno.ENOTDIR):
                error.filename = entry.path
                raise
            change = failure("undeletable", error)
        else:
            return True
    raise _refusal(environment, [(entry.path, change)], _PROGRESS.format(deleted))


def _unlink(directory: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _remove_directory(environment: EnvironmentDirectory, removed: Removed) -> Removed:
    """Delete the environment's own directory by its name, if the name still leads to it."""
    try:
        found = os.stat(environment.name, dir_fd=environment.parent, follow_symlinks=False)
        if found.st_ino == os.fstat(environment.descriptor).st_ino:
            os.rmdir(environment.name, dir_fd=environment.parent)
            return removed
        change = Mismatch("replaced", NOUNS["directory"])
    except FileNotFoundError:
        change = Mismatch("moved")
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            error.filename = environment.path
            raise
        change = failure("undeletable", error)
    raise _refusal(environment, [(environment.path, change)], _PROGRESS.format(removed.deleted))


def _refusal(
    environment: EnvironmentDirectory, changes: Sequence[Change], progress: str
) -> ModifiedEnvironmentError:
    return ModifiedEnvironmentError(
        f"remove {text_path(environment.path)}",
        tuple(changes),
        f"{progress}; look at what differs, move what you want to keep out of the directory, undo or delete "
        "the rest by hand, and try again",
    )
