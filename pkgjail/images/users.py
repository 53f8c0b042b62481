"""The environments that show an image's files, without which they cannot be entered.

    STORE/users/HEX   the name of an image's directory, the SHA-256 of the first line of an environment's
                      record, and the path of that, each on a line; HEX is the SHA-256 of the path

Nobody has to remove a note: it does not count if the record is gone, or is that of another environment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.sources import source_at
from pkgjail.storage.atomic import write_own_file_in
from pkgjail.storage.own_files import open_directory, open_own_file, open_subdirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK, _USERS = "lock", "users"
_LONGEST = 1 << 20  # bytes of a line
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextlib.contextmanager
def locked(place: int) -> Iterator[None]:
    """Lock a store, which is open as the descriptor `place`, to change it."""
    descriptor = open_own_file(place, _LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def note_user(root: bytes, record: bytes) -> None:
    """Note that an environment shows the files at `root`, if that is an image of a store of this user.

    The image is then not removed while the record exists. A store that this user may not change has no notes.

    Args:
        root: the real path of the environment's source.
        record: the absolute path of the environment's record.

    Raises:
        OSError: the record cannot be read, or the note cannot be written.

    """
    if source_at(root).kind != "image":
        return
    store, image = os.path.split(os.path.dirname(root))
    note = b"\n".join((image, _identity(record), record))
    try:
        place = open_directory(os.fsdecode(store))
    except OSError as error:
        if error.errno in _NOT_OURS:
            return
        raise
    try:
        with locked(place):
            users = open_subdirectory(place, _USERS, make=True)
            try:
                write_own_file_in(users, hashlib.sha256(record).hexdigest(), note)
            finally:
                os.close(users)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
    finally:
        os.close(place)


def users_of(place: int, image: str) -> list[bytes]:
    """Return the environments that show an image, by their directories, and remove notes that do not count.

    Args:
        place: a descriptor of the store, which is locked.
        image: the name of the image's directory in it.

    Raises:
        OSError: the notes cannot be read.

    """
    try:
        users = open_subdirectory(place, _USERS)
    except FileNotFoundError:
        return []
    found = []
    try:
        for name in sorted(os.listdir(users)):
            with open(open_own_file(users, name, os.O_RDONLY), "rb") as file:
                shown, identity, record = (*file.read().split(b"\n", 2), b"", b"")[:3]
            if not _has(record, identity):
                os.unlink(name, dir_fd=users)
            elif shown == os.fsencode(image):
                found.append(os.path.dirname(record))
    finally:
        os.close(users)
    return found


def _has(record: bytes, identity: bytes) -> bool:
    """Return whether there is a record with this identity, as far as this user can see."""
    try:
        return _identity(record) == identity
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _identity(record: bytes) -> bytes:
    """Return the SHA-256 of the first line, which has the environment's form, root and inode."""
    with open(record, "rb") as file:
        return hashlib.sha256(file.readline(_LONGEST)).hexdigest().encode()
