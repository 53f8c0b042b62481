"""Create the names of an environment so that an interrupted build leaves a record of what it created.

Each name is announced in a journal before it is created. A regular file gets its name when it is
complete. The record appears last, atomically; the environment exists once the journal is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, PkgjailError, Problem
from pkgjail.core.text import text_path
from pkgjail.environments.directory import open_environment, parent_and_name
from pkgjail.environments.lock import has_lock_alone, lock_environment, make_lock
from pkgjail.environments.record import (
    JOURNAL,
    LOCK,
    RECORD,
    REMOVING,
    SCRATCH,
    TREE,
    Header,
    Record,
    RecordEntry,
    dump_record,
    entry_line,
    header_line,
)
from pkgjail.environments.remove import clear
from pkgjail.storage.atomic import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.export.skeleton import Piece

    # Gets the descriptor of an empty file, and returns the SHA-256 of what it wrote there, or None to
    # omit the file.
    FileWriter = Callable[[int], "str | None"]

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAKE_ROOM = "make room, or name a directory on another filesystem"
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Built(NamedTuple):
    """The result of a build: the number of names below the directory, and the bytes of their content."""

    names: int
    bytes: int


@contextlib.contextmanager
def start_build(directory: bytes, header: Header) -> Iterator[JournaledBuild]:
    """Start a build in `directory`; if the block raises, everything is as it was before."""
    parent, name = parent_and_name(directory)
    path = parent.rstrip(b"/") + b"/" + name
    try:
        os.mkdir(path, 0o755)
        is_new = True
    except FileExistsError:
        is_new = False
    except FileNotFoundError:
        why = f"{text_path(parent)} does not exist; make it with 'mkdir -p'"
        raise InputError([Problem("", f"cannot build {text_path(path)}: {why}")]) from None
    except OSError as error:
        advice = _MAKE_ROOM if error.errno in _NO_ROOM else "name a directory that you may write to"
        raise PkgjailError(f"cannot build {text_path(path)}: {error.strerror}; {advice}") from error
    try:
        with open_environment(directory, "build") as environment:
            _refuse_occupied(environment)
            make_lock(environment)
            with lock_environment(environment, "build"):
                _refuse_occupied(environment)  # another build may have been faster
                inode = os.fstat(environment.descriptor).st_ino
                build = JournaledBuild(environment, replace(header, inode=inode))
                try:
                    with build:
                        yield build
                except BaseException as failure:
                    is_clean = _clean_up(build, keep_directory=not is_new)
                    if isinstance(failure, OSError) and failure.errno in _NO_ROOM:
                        raise _no_room(environment, failure, is_clean=is_clean) from failure
                    raise
    except BaseException:
        if is_new:
            _remove_new(path)
        raise


def _remove_new(path: bytes) -> None:
    """Remove a new directory, and the lock file in it, if it contains nothing else."""
    with contextlib.suppress(OSError):
        if os.listdir(path) == [LOCK]:
            os.unlink(path + b"/" + LOCK)
        os.rmdir(path)


def _refuse_occupied(environment: EnvironmentDirectory) -> None:
    found = os.listdir(environment.descriptor)
    names = set() if has_lock_alone(environment, found) else set(map(os.fsencode, found))
    why = None
    if RECORD in names and JOURNAL not in names:
        why = "it is already an environment; enter it, or remove it with 'pkgjail remove'"
    elif {JOURNAL, REMOVING} & names:
        why = "an interrupted 'pkgjail' left files there; remove them with 'pkgjail remove'"
    elif names:
        why = "it is not empty; name another"
    elif os.fstat(environment.descriptor).st_uid != os.geteuid():
        why = "it belongs to another user; name another"
    if why is not None:
        raise InputError([Problem("", f"cannot build {text_path(environment.path)}: {why}")])


def _clean_up(build: JournaledBuild, *, keep_directory: bool) -> bool:
    """Remove what was created, and the directory unless with `keep_directory`; return whether that worked."""
    try:
        clear(build.environment, build.entries, "building", keep_directory=keep_directory)
    except (OSError, PkgjailError):
        return False
    return True


def _no_room(environment: EnvironmentDirectory, failure: OSError, *, is_clean: bool) -> PkgjailError:
    path = text_path(environment.path)
    rest = "nothing of it is left" if is_clean else f"remove what is left with 'pkgjail remove {path}'"
    return PkgjailError(f"cannot build {path}: {failure.strerror}; {rest}; {_MAKE_ROOM}")


class JournaledBuild:
    """Creates names in an environment's directory, and announces each in the journal first."""

    def __init__(self, environment: EnvironmentDirectory, header: Header) -> None:
        self.environment = environment
        self.entries: list[RecordEntry] = []
        self._header = header
        self._modes: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._journal = os.open(JOURNAL, os.O_WRONLY | _NEW, 0o644, dir_fd=self.environment.descriptor)
        write_all(self._journal, header_line(self._header))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._journal)

    def make_tree(
        self,
        mode: int,
        pieces: Iterator[Piece],
        writers: Mapping[bytes, FileWriter] | None = None,
    ) -> None:
        """Create the tree; `writers` write the files that they name."""
        self._make_directory(TREE, mode)
        for piece in pieces:
            path = TREE + piece.path
            if piece.kind == "directory":
                self._make_directory(path, piece.mode)
            elif piece.kind == "symlink":
                self._announce(RecordEntry(path, "symlink", target=piece.target))
                os.symlink(piece.target, path, dir_fd=self.environment.descriptor)
            elif writers and piece.path in writers:
                self.make_file(path, piece.mode, writers[piece.path])
            else:
                self.make_file(path, piece.mode, write_bytes(piece.content))

    def make_file(self, path: bytes, mode: int, write: FileWriter) -> None:
        """Create a file with the content that `write` writes."""
        directory = self.environment.descriptor
        descriptor = os.open(SCRATCH, os.O_RDWR | _NEW, 0o600, dir_fd=directory)
        try:
            digest = write(descriptor)
            os.fchmod(descriptor, mode)
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if digest is not None:
            self._announce(
                RecordEntry(path, "regular", found.st_ino, found.st_size, found.st_mtime_ns, sha256=digest)
            )
            # A link and not a rename, which would replace what has this name.
            os.link(SCRATCH, path, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(SCRATCH, dir_fd=directory)

    def finish(self) -> Built:
        """Give directories their modes, write the record, and remove the journal."""
        record = Record(header=self._header, entries=tuple(self._final_entries()))
        self.make_file(RECORD, 0o644, write_bytes(dump_record(record), sync=True))
        os.unlink(JOURNAL, dir_fd=self.environment.descriptor)
        os.fsync(self.environment.descriptor)
        return Built(len(record.entries), sum(entry.size for entry in record.entries))

    def _make_directory(self, path: bytes, mode: int) -> None:
        self._announce(RecordEntry(path, "directory"))
        os.mkdir(path, 0o700, dir_fd=self.environment.descriptor)
        self._modes[path] = mode

    def _final_entries(self) -> Iterator[RecordEntry]:
        """Yield the entries with the inodes and times that identify them from now on.

        Directories get their modes on the way, the inner ones first: some may not be searched afterwards.
        """
        for entry in reversed(self.entries):
            if entry.kind == "directory":
                descriptor = self.environment.open_directory(entry.path)
                try:
                    os.fchmod(descriptor, self._modes[entry.path])
                    found = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                yield entry._replace(inode=found.st_ino, ctime=found.st_ctime_ns)
            else:
                found = os.stat(entry.path, dir_fd=self.environment.descriptor, follow_symlinks=False)
                ctime = found.st_ctime_ns if entry.kind == "regular" else 0
                yield entry._replace(inode=found.st_ino, ctime=ctime)

    def _announce(self, entry: RecordEntry) -> None:
        write_all(self._journal, entry_line(entry))
        self.entries.append(entry)


def write_bytes(data: bytes, *, sync: bool = False) -> FileWriter:
    """Return a writer of `data`, which with `sync` waits until that is on the disk."""

    def write(descriptor: int) -> str:
        """Write the data, and return its digest."""
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
        return hashlib.sha256(data).hexdigest()

    return write
