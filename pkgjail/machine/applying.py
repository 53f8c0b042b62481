"""Make the changes of a copied directory: each where it belongs, unless the host changed the name meanwhile.

No link is followed: directories are opened name by name, and must be those that were copied, or that were
made here. A file is renamed into its place, so that others see the old one or the new one.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.machine.copies import open_directory, seen_as
from pkgjail.storage.beside import make_beside
from pkgjail.storage.copying import copy_content

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.copies import Copy, Seen

FILE, LINK, DIRECTORY, OPAQUE, DELETED = "f", "l", "d", "o", "x"
"""The kinds of changes. An opaque directory has none of the names that it had when it was copied."""
DIRECTORIES = (DIRECTORY, OPAQUE)
"""The kinds of changes of directories."""

_FILE_BITS, _DIRECTORY_BITS = 0o777, 0o3777
_OWNER = 0o700
_SECOND = 10**9


class Change(NamedTuple):
    """What a guest says of a name that commands changed; `path` is relative to the directory.

    `size` is that of a file's content, which follows, and `target` the text of a link.
    """

    kind: str
    path: bytes
    mode: int = 0o644
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""


class _ChangedError(Exception):
    """The host changed a name meanwhile, or it must not change; the text says why."""


class _GoneError(_ChangedError):
    """The host removed the directory that a name is in."""


_NOT_THERE = {errno.ENOENT: _GoneError, errno.ENOTDIR: _ChangedError, errno.ELOOP: _ChangedError}


class Applying:
    """The changes of a copy while they are made in the directory with the descriptor `top`.

    `received` is a descriptor of a directory with the content of changed files, by their paths. `kept` are
    paths that must not change.
    """

    def __init__(
        self, copy: Copy, top: int, received: int, kept: Collection[bytes], reporter: Reporter
    ) -> None:
        self._seen: Mapping[bytes, Seen] = copy.seen
        self._order = sorted(copy.seen)
        self._top, self._received = top, received
        self._kept = kept
        self._reporter = reporter
        self._made: dict[bytes, tuple[int, int]] = {}
        self._finish: list[Change] = []
        self.problems: list[tuple[bytes, str]] = []

    def run(self, records: Mapping[bytes, Change]) -> list[tuple[bytes, str]]:
        """Make all changes; returns those that cannot be made, each with the reason.

        Names are removed at the end: what was renamed is never at neither place.
        """
        work: dict[str, Callable[[Change], None]] = {
            FILE: self._file, LINK: self._link, DIRECTORY: self._directory, OPAQUE: self._directory,
        }  # fmt: skip
        changes = [each for each in records.values() if each.kind != DELETED]
        for done, change in enumerate(changes):
            self._reporter.progress("bringing back", done, len(changes))
            self._try(change.path, work[change.kind], change)
        self._reporter.progress("bringing back", len(changes), len(changes))
        deleted = [each.path for each in records.values() if each.kind == DELETED]
        for path in sorted({*deleted, *self._hidden(records)}, reverse=True):
            self._try(path, self._remove, path)
        for change in reversed(self._finish):
            self._try(change.path, self._finish_directory, change)
        return self.problems

    def _try(self, path: bytes, work: Callable[..., None], what: object) -> None:
        try:
            work(what)
        except _ChangedError as changed:
            self.problems.append((path, str(changed)))
        except OSError as error:
            self.problems.append((path, error.strerror or str(error)))

    def _hidden(self, records: Mapping[bytes, Change]) -> Iterator[bytes]:
        """Yield what opaque directories had and the guest did not send, the first name of each branch."""
        opaque = set[bytes]()
        for path, change in records.items():
            above = path.rpartition(b"/")[0]
            if change.kind == OPAQUE or (change.kind == DIRECTORY and above in opaque):
                opaque.add(path)
        for path in self._order:
            if path not in records and path.rpartition(b"/")[0] in opaque:
                yield path

    def _below(self, path: bytes) -> list[bytes]:
        """Return all names that were copied below a directory, in the order of their bytes."""
        start = path + b"/"
        first = bisect.bisect_left(self._order, start)
        last = bisect.bisect_left(self._order, path + b"0")  # "0" is the byte after "/"
        return self._order[first:last]

    # --- one name -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _parent_of(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the directory of a name, which must be the one that was copied, or made here."""
        above, _, name = path.rpartition(b"/")
        try:
            directory = open_directory(self._top, above)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            raise _NOT_THERE[error.errno]("the host changed the directory that it is in") from error
        try:
            if above and _identity(os.fstat(directory)) != self._identity_of(above):
                raise _ChangedError("the host changed the directory that it is in")
            yield directory, name
        finally:
            os.close(directory)

    def _identity_of(self, path: bytes) -> tuple[int, int] | None:
        seen = self._seen.get(path)
        return self._made.get(path) or (None if seen is None else (seen.device, seen.inode))

    def _check(self, path: bytes, directory: int, name: bytes) -> os.stat_result | None:
        """Return what is at a name, None if there is nothing; it must be as it was copied."""
        self._refuse_kept(path)
        found, seen = _look(directory, name), self._seen.get(path)
        if found is None and seen is None:
            return None
        if found is None or seen is None or not seen.is_same(found):
            raise _ChangedError("the host changed it meanwhile")
        return found

    def _refuse_kept(self, path: bytes) -> None:
        for kept in self._kept:
            if path == kept or path.startswith(kept + b"/") or kept.startswith(path + b"/"):
                raise _ChangedError("later runs depend on it")

    def _file(self, change: Change) -> None:
        with self._parent_of(change.path) as (directory, name):
            found = self._check(change.path, directory, name)
            above, _, received = change.path.rpartition(b"/")
            source = open_directory(self._received, above)
            try:
                self._prepare(source, received, change)
                self._clear(change.path, found)
                _move(source, received, directory, name)
            finally:
                os.close(source)

    def _prepare(self, directory: int, name: bytes, change: Change) -> None:
        """Give a received file its mode, its time and, from root, the owner of the file that it replaces."""
        seen = self._seen.get(change.path)
        if seen is not None and os.geteuid() == 0:
            os.chown(name, seen.uid, seen.gid, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, change.mode & _FILE_BITS, dir_fd=directory)
        os.utime(name, ns=_times(change, seen), dir_fd=directory, follow_symlinks=False)

    def _link(self, change: Change) -> None:
        with self._parent_of(change.path) as (directory, name):
            found = self._check(change.path, directory, name)
            above, _, received = change.path.rpartition(b"/")
            source = open_directory(self._received, above)
            try:
                os.symlink(change.target, received, dir_fd=source)
                times = _times(change, self._seen.get(change.path))
                os.utime(received, ns=times, dir_fd=source, follow_symlinks=False)
                self._clear(change.path, found)
                _move(source, received, directory, name)
            finally:
                os.close(source)

    def _clear(self, path: bytes, found: os.stat_result | None) -> None:
        """Remove a directory that a file replaces."""
        if found is not None and stat.S_ISDIR(found.st_mode):
            self._remove(path)

    def _directory(self, change: Change) -> None:
        path, seen = change.path, self._seen.get(change.path)
        with self._parent_of(path) as (directory, name):
            found = _look(directory, name)
            if found is not None and stat.S_ISDIR(found.st_mode):
                if seen is not None and not seen.is_same(found):
                    raise _ChangedError("the host changed it meanwhile")
                mode = found.st_mode
                if found.st_uid == os.geteuid() and mode & _OWNER != _OWNER:
                    _change_mode(directory, name, mode | _OWNER)
                if seen is not None and stat.S_IMODE(seen.mode) != change.mode:
                    mode = change.mode & _DIRECTORY_BITS
            else:
                if self._check(path, directory, name) is not None:
                    os.unlink(name, dir_fd=directory)
                os.mkdir(name, _OWNER, dir_fd=directory)
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                mode = change.mode & _DIRECTORY_BITS
            self._made[path] = _identity(found)
        self._finish.append(change._replace(mode=stat.S_IMODE(mode)))

    def _finish_directory(self, change: Change) -> None:
        """Give a directory its mode and, if it is new or its names were changed, its time."""
        seen = self._seen.get(change.path)
        with self._parent_of(change.path) as (directory, name):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if _identity(found) != self._made[change.path]:
                raise _ChangedError("the host changed it meanwhile")
            if change.mode != stat.S_IMODE(found.st_mode):
                _change_mode(directory, name, change.mode)
            if not _has_time_of(change, seen):
                times = _times(change, seen)
                os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def _remove(self, path: bytes) -> None:
        """Remove a name, and all that was copied below it. What the host made meanwhile keeps it there."""
        self._refuse_kept(path)
        for each in [*self._below(path)[::-1], path]:
            with contextlib.suppress(_GoneError), self._parent_of(each) as (directory, name):
                if _look(directory, name) is not None:
                    self._remove_one(each, directory, name)

    def _remove_one(self, path: bytes, directory: int, name: bytes) -> None:
        found = self._check(path, directory, name)
        if found is None or not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
            return
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise _ChangedError("the host has other names in it") from error


def _look(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    seen = seen_as(found)
    return seen.device, seen.inode


def _has_time_of(change: Change, seen: Seen | None) -> bool:
    """Check whether the guest left a time as it was; a copy has whole seconds."""
    return seen is not None and change.mtime_ns == seen.mtime_ns // _SECOND * _SECOND


def _times(change: Change, seen: Seen | None) -> tuple[int, int]:
    """Return the time twice, as utime(2) takes it."""
    time = seen.mtime_ns if seen is not None and _has_time_of(change, seen) else change.mtime_ns
    return time, time


def _change_mode(directory: int, name: bytes, mode: int) -> None:
    """Change the mode of a directory, and of no link: chmod(2) would follow it."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(mode))
    finally:
        os.close(descriptor)


def _move(source: int, name: bytes, directory: int, new: bytes) -> None:
    """Rename a file or a link to another directory; to another file system, by a copy of it there."""
    try:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=directory)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(source, name, directory, new)


def _move_across(source: int, name: bytes, directory: int, new: bytes) -> None:
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    beside, descriptor = make_beside(directory, os.fsdecode(new), 0o600)
    try:
        if stat.S_ISLNK(found.st_mode):
            os.unlink(beside, dir_fd=directory)
            os.symlink(os.readlink(name, dir_fd=source), beside, dir_fd=directory)
        else:
            original = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            try:
                copy_content(original, descriptor)
            finally:
                os.close(original)
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(beside, ns=times, dir_fd=directory, follow_symlinks=False)
        os.rename(beside, new, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    os.unlink(name, dir_fd=source)
