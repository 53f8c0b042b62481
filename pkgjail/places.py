"""Where pkgjail keeps what it needs only as long as the host runs, and how it keeps a file.

On the way into a jail, so light.
"""

from __future__ import annotations

import errno
import os
import stat


def runtime_directory() -> str:
    """`$XDG_RUNTIME_DIR/pkgjail`, or `/dev/shm/pkgjail-UID`: in memory, and gone at the next boot.

    It may not be there. A relative XDG_RUNTIME_DIR is ignored (XDG Base Directory Specification).
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return f"{base}/pkgjail"
    return f"/dev/shm/pkgjail-{os.geteuid()}"  # noqa: S108 - see is_private


def is_private(directory: str) -> bool:
    """Whether a directory is the user's alone: theirs, and not to be written to by others.

    In a place like /dev/shm anybody may have made it. Raises `OSError` where there is none.
    """
    found = os.lstat(directory)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def read_kept(path: str) -> bytes:
    """The content of a file that `keep` made for this user.

    Where the home directory is another user's, as with some ways to become root, or the runtime
    directory is, that user may have put a file there, or put one in its place.

    Raises:
        OSError: it cannot be read; `PermissionError` where it, or its directory, is not the user's alone.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
        if not (own and is_private(os.path.dirname(path))):
            raise PermissionError(errno.EPERM, "is not this user's alone", path)
        return file.read()


def keep(path: str, content: bytes, *, mode: int = 0o600) -> None:
    """Make `content` the file at `path`, at one stroke, and its directory where it is not there.

    What a writer that was killed left half-written is taken over by the next one.

    Raises `OSError`, also where the directory is not the user's alone; nothing new is left then.
    """
    import fcntl

    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if not is_private(directory):
        raise PermissionError(errno.EPERM, "is not this user's alone", directory)
    new = f"{directory}/.new-{name}"
    kept = False
    while not kept:
        flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(new, flags, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            kept = _is_at(file.fileno(), new)  # else another writer has just finished with it
            if kept:
                os.fchmod(file.fileno(), mode)
                _write(file.fileno(), content, new, path)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _write(descriptor: int, content: bytes, new: str, path: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        while content:
            content = content[os.write(descriptor, content) :]
        os.rename(new, path)
    except BaseException:
        if os.path.lexists(new):
            os.unlink(new)
        raise
