"""Write files atomically: a reader sees the old file or the complete new one.

Every writer fills a new file in the same directory and then gives it the name (rename(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pkgjail.storage.own_files import NEW_PREFIX, PRIVATE_MODE, is_same_file, open_own_file, opened_directory

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator

# Filesystems that cannot sync a directory fail with one of these.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
# How opening fails if the temporary name of a private file is taken by something else than such a file.
_NOT_OURS = frozenset({errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EACCES})


def replace_file(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    mode: int = 0o666,
    umask: bool = True,
    replace_special: bool = False,
) -> None:
    """Make `data` the content of the file at `path`, outside of pkgjail's own directories.

    The data is on the disk before the file gets its name. The file gets `mode`, less the umask unless
    `umask` is false. On any failure the old file stays and the new one is removed. A SIGKILL or a power
    failure may leave a file `.pkgjail-*`, which the next writer of the same file removes.

    A symbolic link at `path` is never followed. A link or a device is replaced only with
    `replace_special`.

    Raises:
        InputError: `path` is not a regular file.
        OSError: it cannot be written.

    """
    with new_file(path, mode=mode, replace_special=replace_special) as descriptor:
        write_all(descriptor, data)
        if not umask:
            os.fchmod(descriptor, mode)


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str], *, mode: int = 0o666, replace_special: bool = False
) -> Iterator[int]:
    """Yield a descriptor of an empty file, which gets the name `path` when the block has filled it.

    The arguments, the errors and what is left by a failure are those of `replace_file`. An error of the block
    that names a file of its own passes unchanged.
    """
    from pkgjail.storage.beside import make_beside

    parent, name = os.path.split(path)
    directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not replace_special:
            _refuse_special(name, directory, os.fspath(path))
        new, descriptor = make_beside(directory, name, mode)
        try:
            with _renamed(directory, new, name):
                yield descriptor
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync(directory)
    except OSError as error:
        _name_path(error, path)
        raise
    finally:
        os.close(directory)


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the path of an empty directory, private to the user, which gets the name `path` after the block.

    At `path` there may be an empty directory, which is replaced. On any failure the new one is removed with
    all that is in it. What a SIGKILL or a power failure leaves, as `replace_file` says, is a directory.

    Raises:
        InputError: there is something else at `path`.
        OSError: it cannot be made.

    """
    from pkgjail.storage.beside import make_beside
    from pkgjail.storage.removal import remove_tree

    parent, name = os.path.split(os.path.normpath(path))
    directory = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_filled(name, directory, os.fspath(path))
        new, descriptor = make_beside(directory, name, is_directory=True)
        try:
            yield os.path.join(parent, new)
            umask = os.umask(0o777)
            os.umask(umask)
            os.chmod(new, 0o777 & ~umask, dir_fd=directory)
            os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(directory, new)
            raise
        finally:
            os.close(descriptor)
        _sync(directory)
    except OSError as error:
        _name_path(error, path)
        raise
    finally:
        os.close(directory)


def write_own_file(path: str, content: bytes) -> None:
    """Make `content` one of pkgjail's own files, at `path`; its directory is made if it is missing.

    If a writer was killed, the next one continues with the file that it left half-written.

    Raises:
        OSError: it cannot be written, or the directory is not the user's alone; nothing new is left.

    """
    parent, name = os.path.split(path)
    with opened_directory(parent, make=True) as directory:
        write_own_file_in(directory, name, content)


def write_own_file_in(directory: int, name: str, content: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write a file of `mode` as `write_own_file` does, in a directory that `open_directory` opened.

    Whoever can open a file can lock it, and so make the next writer wait. A file that others may read is
    therefore not waited for: each writer makes a new one.
    """
    while not _write_own_file(directory, name, content, mode):
        pass


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_own_file(directory: int, name: str, content: bytes, mode: int) -> bool:
    """Write the file; returns False if another writer has just finished with the temporary one."""
    import fcntl

    new = f"{NEW_PREFIX}{name}" if mode == PRIVATE_MODE else f"{NEW_PREFIX}{name}-{os.urandom(8).hex()}"
    try:
        descriptor = open_own_file(directory, new, os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        os.unlink(new, dir_fd=directory)
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not is_same_file(descriptor, directory, new):
            return False
        with _renamed(directory, new, name):
            os.ftruncate(descriptor, 0)
            write_all(descriptor, content)
            if mode != PRIVATE_MODE:
                os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def _renamed(directory: int, new: str, name: str) -> Iterator[None]:
    """Give the file `new` its `name` once the block has filled it; remove it if the block raises."""
    try:
        yield
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise


def _refuse_special(name: str, directory: int, path: str) -> None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        from pkgjail.core.errors import InputError, Problem

        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise InputError([Problem("", f"cannot write to {path}: it is {what}; name another path")])


def _name_path(error: OSError, path: str | os.PathLike[str]) -> None:
    """Name `path` in an error that names nothing, as that of a full disk, or the temporary name."""
    from pkgjail.storage.beside import PREFIX

    if error.filename is None or isinstance(error.filename, int) or str(error.filename).startswith(PREFIX):
        error.filename = os.fspath(path)


def _refuse_filled(name: str, directory: int, path: str) -> None:
    """Raise `InputError` unless there is nothing at a name, or an empty directory."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            if not os.listdir(descriptor):
                return
        finally:
            os.close(descriptor)
    from pkgjail.core.errors import InputError, Problem

    raise InputError(
        [Problem("", f"cannot write to {path}: it exists and is not an empty directory; name another path")]
    )


def _sync(directory: int) -> None:
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
