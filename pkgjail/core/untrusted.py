"""Read files that somebody else wrote: only regular ones, and only up to a limit.

A root of another system, a list, a manifest or a repository's metadata can have anything in place of a file:
a FIFO that nobody writes to, a device, a sparse file, a link that leads out of the root. None of these is
opened, so that none can make pkgjail wait, fill its memory, or act on a device. The error is an `OSError`
with the file's name and the reason, like those of the kernel.

Within a root, links are followed as that system would follow them: an absolute link starts at the root, and
`..` stops there. The kernel does that (openat2(2), RESOLVE_IN_ROOT); if it cannot, `walk_in` does. Both
keep the directories open that they pass, so that no name can be exchanged meanwhile: for this reason it is
a walk of its own beside `pkgjail.core.paths.follow`, which looks names up by their paths.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from pkgjail.core.entries import noun_of
from pkgjail.core.errors import PkgjailError
from pkgjail.core.paths import MAXSYMLINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.core.model import FileEntry

MIB = 1 << 20

SETTINGS = MIB
"""The most bytes of a settings file: os-release(5), pacman.conf(5), a record of alternatives."""
LIST = MIB
"""The most bytes of a whitelist or a blacklist."""
DATABASE = 64 * MIB
"""The most bytes of one text file of a package database: dpkg's status file, a package's file list."""
RPM_DATABASE = 2048 * MIB
"""The most bytes of rpm's database, which is copied and not read."""
METADATA = 256 * MIB
"""The most bytes of a repository's file, compressed and decompressed."""
FILE_LISTS = 1024 * MIB
"""The most bytes of a repository's file lists, decompressed."""
MANIFEST = 512 * MIB
"""The most bytes of a manifest."""

# Do not wait, and do not take a terminal: the file may be exchanged between the check and the opening.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Names of descriptors that this process was started with, such as `<(…)` of a shell.
_DESCRIPTOR = re.compile(r"/dev/(?:stdin|fd/([0-9]{1,9}))|/proc/self/fd/([0-9]{1,9})")
_NULL_DEVICE = os.makedev(1, 3)
_PIECE = 1 << 16  # bytes
_ALWAYS_OPENED, _LEAST_BETWEEN = 1_000_000, 16  # brackets, and characters on the average between two
_MOST_DIGITS = 4300
_MOST_SAID = 1000  # characters


@contextmanager
def parsing(problem: Callable[[str], Exception]) -> Iterator[None]:
    """Turn every exception of a parser into `problem(WHY)`.

    A parser raises `ValueError` on purpose, with a text for people. Any other exception is caused by an
    input that nobody thought of, and must not end the program without a message. Errors of pkgjail's own and
    of the system pass.
    """
    try:
        yield
    except (PkgjailError, OSError):
        raise
    except Exception as error:
        raise problem(shortened(_why(error))) from error


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return str(error) if isinstance(error, ValueError) else f"it cannot be understood ({error!r})"


def shortened(text: str, most: int = _MOST_SAID) -> str:
    """Return `text` for a message, without its middle if it has more than `most` characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def is_nested(text: str) -> bool:
    """Check whether a JSON text has far more objects and lists than pkgjail would write in its length.

    In memory each takes dozens of times the room of its text, so that a file of megabytes could fill it.
    """
    return text.count("[") + text.count("{") > _ALWAYS_OPENED + len(text) // _LEAST_BETWEEN


def _short_number(digits: str) -> int:
    """Refuse long numbers, as `int` does since Python 3.11: thousands of digits would take minutes."""
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


PARSE_INT = None if hasattr(sys, "get_int_max_str_digits") else _short_number
"""The function by which json reads whole numbers; None for its own."""


def in_memory(data: bytes) -> BinaryIO:
    """Return `data` as a file that has a descriptor and no name, at its beginning."""
    file = os.fdopen(os.memfd_create("pkgjail", os.MFD_CLOEXEC), "w+b")
    file.write(data)
    file.seek(0)
    return file


def read_below(root: bytes, path: bytes, limit: int = DATABASE) -> bytes:
    """Return the content of the regular file `path`, whose name begins with that of the directory `root`.

    Raises `OSError`, also if it is no regular file, or has more than `limit` bytes.
    """
    with opened_below(root, path) as descriptor:
        return read_descriptor(descriptor, path, limit)


@contextmanager
def opened_below(root: bytes, path: bytes) -> Iterator[int]:
    """Open the regular file `path` below `root` for reading; yields a descriptor. Raises `OSError`."""
    looked = _open_below(root, path, _LOOK)
    try:
        refuse_irregular(os.fstat(looked), path)
    finally:
        os.close(looked)
    descriptor = _open_below(root, path, _READ)
    try:
        refuse_irregular(os.fstat(descriptor), path)
        yield descriptor
    finally:
        os.close(descriptor)


def names_below(root: bytes, directory: bytes) -> list[bytes]:
    """Return the names in the `directory` below `root`. Raises `OSError`."""
    descriptor = _open_below(root, directory, _DIRECTORY)
    try:
        return list(map(os.fsencode, os.listdir(descriptor)))
    finally:
        os.close(descriptor)


def real_directories(entries: Iterable[FileEntry], root: bytes) -> frozenset[bytes]:
    """Return the directories of a manifest that are directories below `root` too; b"" is the root itself.

    A name in any other is not in the root: the directory may have become a link that leads out of it.
    """
    found, prefix = {b"", b"/"}, root.rstrip(b"/")
    for entry in entries:  # by path: a directory comes before what is in it
        if entry.kind == "directory" and entry.path.rpartition(b"/")[0] in found:
            with suppress(OSError):
                if stat.S_ISDIR(os.lstat(prefix + entry.path).st_mode):
                    found.add(entry.path)
    return frozenset(found)


def read_named(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a file that the user named: a regular one, or a descriptor of this process.

    `/dev/stdin` and a shell's `<(…)` are read to their end, however long that takes. A named FIFO is
    refused, because nobody may ever write to it. The null device is empty. Raises `OSError`.
    """
    name = os.fspath(path)
    match = _DESCRIPTOR.fullmatch(name)
    if match is not None:
        descriptor = int(match[1] or match[2] or 0)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return read_descriptor(descriptor, name, limit)
    found = os.stat(name)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL_DEVICE:
        return b""
    if stat.S_ISFIFO(found.st_mode):
        why = "it is a FIFO, and not a regular file; write to a file, or have the shell pass it: <(cat FIFO)"
        raise OSError(errno.EINVAL, why, name)
    with opened_below(b"/", os.fsencode(name)) as opened:
        return read_descriptor(opened, name, limit)


def read_descriptor(descriptor: int, name: str | bytes, limit: int) -> bytes:
    """Read `descriptor` to its end. Raises `OSError`, with `name`, for more than `limit` bytes."""
    pieces, count = [], 0
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise too_large(name, limit)
        while piece := os.read(descriptor, min(max(size + 1, _PIECE), limit + 1 - count)):
            pieces.append(piece)
            count += len(piece)
            if count > limit:
                raise too_large(name, limit)
    except OSError as error:
        error.filename = name
        raise
    return b"".join(pieces)


def too_large(name: str | bytes, limit: int) -> OSError:
    """Return the error for a file that has more than `limit` bytes."""
    most = f"{limit // MIB} MiB" if limit >= MIB else f"{limit} bytes"
    return OSError(errno.EFBIG, f"it has more than {most}, the most that is read of such a file", name)


def refuse_irregular(found: os.stat_result, name: str | bytes) -> None:
    """Raise `OSError` unless the file `name`, with the state `found`, is a regular one."""
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    raise OSError(errno.EINVAL, f"it is a {noun_of(found.st_mode)}, and not a regular file", name)


def _open_below(root: bytes, path: bytes, flags: int) -> int:
    """Open `path`, with links followed within `root`. Raises `OSError` with the name `path`."""
    if root == b"/":  # no link leads out of it
        return os.open(path, flags)
    relative = path[len(root) :].lstrip(b"/")
    directory = os.open(root, _LOOK | os.O_DIRECTORY)
    try:
        return _open_in(directory, relative or b".", flags)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(directory)


def _open_in(root: int, path: bytes, flags: int) -> int:
    from pkgjail.sandbox.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2  # loads ctypes

    try:
        return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        # Linux before 5.6, a filter that does not know the call, or a path that changed meanwhile.
        if error.errno not in {errno.ENOSYS, errno.EPERM, errno.EAGAIN}:
            raise
    return walk_in(root, path, flags)


def walk_in(root: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory `root` name by name, as openat2(2) does with RESOLVE_IN_ROOT."""
    pending, links = [name for name in path.split(b"/") if name not in {b"", b"."}][::-1], 0
    above: list[int] = []  # the directories on the way, which `..` leads back to
    try:
        while pending:
            name, here = pending.pop(), above[-1] if above else root
            if name == b"..":
                if above:
                    os.close(above.pop())
                continue
            found = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=here)
            above.append(found)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                continue
            links += 1
            if links > MAXSYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(b"", dir_fd=found)
            os.close(above.pop())
            if target.startswith(b"/"):
                while above:
                    os.close(above.pop())
            pending.extend(name for name in target.split(b"/")[::-1] if name not in {b"", b"."})
        return _reopen(above.pop() if above else os.dup(root), flags)
    finally:
        for descriptor in above:
            os.close(descriptor)


def _reopen(descriptor: int, flags: int) -> int:
    """Open the same file with other `flags`; `descriptor`, which has O_PATH alone, is closed."""
    try:
        return os.open(b"/proc/self/fd/%d" % descriptor, flags)
    finally:
        os.close(descriptor)
