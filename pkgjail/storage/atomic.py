"""A manifest's bytes onto the disk: the old file or the whole new one, never less."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

# Filesystems on which a directory can't be synced say so with one of these.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of the file at `path`, at one stroke.

    Whoever reads `path` sees the old file or the whole new one, whatever happens meanwhile: the
    bytes go to a new file beside it, reach the disk, and then take the name (rename(2)). The file
    gets the mode of any new file, 0666 less the umask. On any failure the old file stays and the
    new one is removed; after a SIGKILL or a power failure a `.pkgjail-*` file may be left.

    Raises `InputError` when something else than a regular file stands at `path`: a symlink is
    neither followed nor replaced, and a device is not overwritten. Raises `OSError` otherwise.
    """
    parent, name = os.path.split(path)
    directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_special(name, directory, os.fspath(path))
        with _temporary(directory) as (temporary, descriptor):
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        _sync(directory)
    except OSError as error:
        error.filename = os.fspath(path)  # a full disk says nothing, other failures the temporary name
        raise
    finally:
        os.close(directory)


def _refuse_special(name: str, directory: int, path: str) -> None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise InputError([Problem("", f"cannot write to {path}: it is {what}; name another path")])


@contextmanager
def _temporary(directory: int) -> Iterator[tuple[str, int]]:
    """A new file in `directory`: its name and a descriptor; removed if the block raises."""
    name = f".pkgjail-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    try:
        yield name, descriptor
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise


def _sync(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
