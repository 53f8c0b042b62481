"""Remove an environment such that nothing else is lost.

First everything is looked at: nothing is mounted below, and each name is what `build` recorded. Only
then names are deleted, the inner ones first, each looked at once more by the descriptor of the
directory that it is in. Whatever is not as recorded stops the removal.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import PkgjailError, SurpriseError
from pkgjail.core.model import text_path
from pkgjail.core.reporter import SILENT
from pkgjail.environments import compare
from pkgjail.environments.directory import is_lock_alone, locked, opened, state_of, wait_for_others
from pkgjail.environments.record import JOURNAL, LOCK, RECORD, REMOVING, SCRATCH
from pkgjail.storage.filesystems import sets_times
from pkgjail.storage.fingerprint import mounts_below

if TYPE_CHECKING:
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.directory import Place
    from pkgjail.environments.record import Made


class Removed(NamedTuple):
    """What a removal did: the names that it deleted, and those that had gone before."""

    deleted: int
    gone: int


def remove_environment(directory: bytes, *, reporter: Reporter = SILENT) -> Removed:
    """Remove the environment in `directory`, and the directory.

    One whose build or removal was interrupted is removed too; so is an empty directory, which is
    what may be left of one. `reporter` hears of other users who are in it, if it takes a while.

    Raises:
        InputError: there is no environment.
        PkgjailError: something is mounted below, or another process works with the environment;
            nothing was deleted.
        SurpriseError: a name is not as `build` left it. Nothing was deleted, unless it changed
            while names were being deleted; the message says so.
        OSError: the kernel refuses; what is left can be removed by another call.

    """
    with opened(directory, "remove") as place, locked(place, "remove", alone=True):
        names = os.listdir(place.directory)
        if not names or is_lock_alone(place, names):
            _unlink(place.directory, LOCK)
            return _remove_directory(place, Removed(0, 0))
        state = state_of(place, "remove")
        refuse_mounts(place)
        wait_for_others(place, "remove", reporter)
        made = state.record.made if state.record is not None else ()
        return clear(place, made, state.file)


def refuse_mounts(place: Place) -> None:
    """Prove that nothing is mounted below the environment's directory, by proc_pid_mountinfo(5).

    A mount on the directory itself was refused when it was opened.

    Raises:
        PkgjailError: something is.

    """
    # Where the directory is by now, should it have been moved.
    path = os.readlink(b"/proc/self/fd/%d" % place.directory)
    for point in mounts_below(path):
        raise PkgjailError(
            f"cannot remove {text_path(place.path)}: something is mounted at {text_path(point)}; unmount it "
            "with 'umount' as root, take its line out of /etc/fstab where there is one, and try again"
        )


def clear(place: Place, made: tuple[Made, ...], file: bytes, *, keep: bool = False) -> Removed:
    """Delete what was `made`, then the record `file` and, unless with `keep`, the directory.

    Raises:
        SurpriseError, OSError: as `remove_environment`.

    """
    with compare.unlocked(place, made):
        found = compare.surprises(place, made, file)
        unexpected = tuple(one for one in found if one[1] != compare.GONE)
        if unexpected:
            raise _refusal(place, unexpected, "nothing was deleted")
        if file == RECORD:
            # From now on it says that names may be missing. A rename needs no room on a full disk.
            os.rename(file, REMOVING, src_dir_fd=place.directory, dst_dir_fd=place.directory)
            file = REMOVING
        deleted = _delete_all(place, made)
    if file == JOURNAL:
        _unlink(place.directory, SCRATCH)
    _unlink(place.directory, file)
    _unlink(place.directory, LOCK)
    removed = Removed(deleted, len(made) - deleted)
    return removed if keep else _remove_directory(place, removed)


def _delete_all(place: Place, made: tuple[Made, ...]) -> int:
    """Delete each of `made`, what is in a directory before the directory; returns how many were there."""
    held = compare.by_directory(made)
    deleted = 0
    for path in sorted(held, reverse=True):
        try:
            directory = place.open_directory(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"cannot be opened: {error.strerror}"
            raise _refusal(place, ((path, why),), _SO_FAR.format(deleted)) from error
        try:
            for name, one in held[path].items():
                deleted += _delete(place, directory, name, one, deleted)
        finally:
            os.close(directory)
    return deleted


_SO_FAR = "it changed while it was being removed, and {} names are deleted"


def _delete(place: Place, directory: int, name: bytes, made: Made, deleted: int) -> bool:
    """Delete one name that is as recorded; returns whether it was there."""
    change = compare.difference(directory, name, made, timed=sets_times(directory))
    if change == compare.GONE:
        return False
    if change is None:
        try:
            if made.kind == "directory":
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY, errno.EISDIR, errno.ENOTDIR):
                error.filename = made.path
                raise
            change = f"cannot be deleted: {error.strerror}"
        else:
            return True
    raise _refusal(place, ((made.path, change),), _SO_FAR.format(deleted))


def _unlink(directory: int, name: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _remove_directory(place: Place, removed: Removed) -> Removed:
    """Delete the environment's own directory, by its name, if that still leads to it."""
    try:
        found = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False)
        if found.st_ino == os.fstat(place.directory).st_ino:
            os.rmdir(place.name, dir_fd=place.parent)
            return removed
        change = "was replaced"
    except FileNotFoundError:
        change = "was moved away"
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            error.filename = place.path
            raise
        change = f"cannot be deleted: {error.strerror}"
    raise _refusal(place, ((place.path, change),), _SO_FAR.format(removed.deleted))


def _refusal(place: Place, surprises: tuple[tuple[bytes, str], ...], so_far: str) -> SurpriseError:
    return SurpriseError(
        f"remove {text_path(place.path)}",
        surprises,
        f"{so_far}; look at what differs, move what you want to keep out of the directory, undo or delete "
        "the rest by hand, and try again",
    )
