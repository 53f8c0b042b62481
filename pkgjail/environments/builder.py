"""Make the names of an environment such that whatever ends the work, it is known what was made.

Each name is announced in a journal before it is made. A regular file gets its name when it is whole.
The record appears last, at one stroke; the environment is there when the journal is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import InputError, PkgjailError, Problem
from pkgjail.core.model import text_path
from pkgjail.environments.directory import is_lock_alone, locked, make_lock, opened, split
from pkgjail.environments.file_copy import write_all
from pkgjail.environments.record import (
    JOURNAL,
    LOCK,
    RECORD,
    REMOVING,
    SCRATCH,
    TREE,
    Head,
    Made,
    Record,
    head_line,
    made_line,
    record_bytes,
)
from pkgjail.environments.remove import clear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from pkgjail.environments.directory import Place
    from pkgjail.export.skeleton import Piece

    # Gets a descriptor of an empty file, and returns the SHA-256 of what it put there; None to leave
    # the file out.
    Fill = Callable[[int], "str | None"]

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Built(NamedTuple):
    """What was built: the number of names below the directory, and bytes of their content."""

    names: int
    bytes: int


@contextlib.contextmanager
def started(directory: bytes, head: Head) -> Iterator[Builder]:
    """A builder in `directory`; if the block raises, all is as it was before."""
    parent, name = split(directory)
    path = parent.rstrip(b"/") + b"/" + name
    try:
        os.mkdir(path, 0o755)
        new = True
    except FileExistsError:
        new = False
    except FileNotFoundError:
        why = f"{text_path(parent)} is not there; make it with 'mkdir -p'"
        raise InputError([Problem("", f"cannot build {text_path(path)}: {why}")]) from None
    try:
        with opened(directory, "build") as place:
            _refuse_occupied(place)
            make_lock(place)
            with locked(place, "build", alone=True):
                _refuse_occupied(place)  # by another build, that was quicker
                builder = Builder(place, replace(head, inode=os.fstat(place.directory).st_ino))
                try:
                    with builder:
                        yield builder
                except BaseException as failure:
                    left = _cleaned_up(builder, new=new)
                    if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise _no_room(place, failure, left=left) from failure
                    raise
    except BaseException:
        if new:
            _remove_new(path)
        raise


def _remove_new(path: bytes) -> None:
    """Remove a directory that was just made, and a lock that was left in it, where there is nothing else."""
    with contextlib.suppress(OSError):
        if os.listdir(path) == [LOCK]:
            os.unlink(path + b"/" + LOCK)
        os.rmdir(path)


def _refuse_occupied(place: Place) -> None:
    names = set(map(os.fsencode, found := os.listdir(place.directory)))
    if is_lock_alone(place, found):
        names = set()
    why = None
    if RECORD in names and JOURNAL not in names:
        why = "it is an environment already; enter it, or remove it with 'pkgjail remove'"
    elif {JOURNAL, REMOVING} & names:
        why = "what is left of an interrupted 'pkgjail' is there; take it away with 'pkgjail remove'"
    elif names:
        why = "it is not empty; name another"
    elif os.fstat(place.directory).st_uid != os.geteuid():
        why = "it belongs to another user; name another"
    if why is not None:
        raise InputError([Problem("", f"cannot build {text_path(place.path)}: {why}")])


def _cleaned_up(builder: Builder, *, new: bool) -> bool:
    """Take away what was made, and the directory where it is `new`; whether anything is left."""
    try:
        clear(builder.place, tuple(builder.made), JOURNAL, keep=not new)
    except (OSError, PkgjailError):
        return True
    return False


def _no_room(place: Place, failure: OSError, *, left: bool) -> PkgjailError:
    rest = (
        f"take away what is left with 'pkgjail remove {text_path(place.path)}'"
        if left
        else "nothing of it is left"
    )
    return PkgjailError(
        f"cannot build {text_path(place.path)}: {failure.strerror}; {rest}; make room, or name a directory "
        "on another filesystem"
    )


class Builder:
    """Makes names in an environment's directory, each announced in the journal first."""

    def __init__(self, place: Place, head: Head) -> None:
        self.place = place
        self.made: list[Made] = []
        self._head = head
        self._modes: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._journal = os.open(JOURNAL, os.O_WRONLY | _NEW, 0o644, dir_fd=self.place.directory)
        write_all(self._journal, head_line(self._head))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._journal)

    def tree(
        self,
        mode: int,
        pieces_of_tree: Iterator[Piece],
        files: Mapping[bytes, Fill] | None = None,
    ) -> None:
        """Make the tree; `files` fill those that they name."""
        self._directory(TREE, mode)
        for piece in pieces_of_tree:
            path = TREE + piece.path
            if piece.kind == "directory":
                self._directory(path, piece.mode)
            elif piece.kind == "symlink":
                self._announce(Made(path, "symlink", target=piece.target))
                os.symlink(piece.target, path, dir_fd=self.place.directory)
            elif files and piece.path in files:
                self.regular(path, piece.mode, files[piece.path])
            else:
                self.regular(path, piece.mode, holding(piece.content))

    def regular(self, path: bytes, mode: int, fill: Fill) -> None:
        """Make a file of what `fill` puts into it."""
        directory = self.place.directory
        descriptor = os.open(SCRATCH, os.O_RDWR | _NEW, 0o600, dir_fd=directory)
        try:
            digest = fill(descriptor)
            os.fchmod(descriptor, mode)
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if digest is not None:
            self._announce(
                Made(path, "regular", found.st_ino, found.st_size, found.st_mtime_ns, sha256=digest)
            )
            # A link and not a rename, which would replace what stands there.
            os.link(SCRATCH, path, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        os.unlink(SCRATCH, dir_fd=directory)

    def finish(self) -> Built:
        """Give directories their modes, write the record, and end the journal."""
        whole = Record(head=self._head, made=tuple(self._settled()))
        self.regular(RECORD, 0o644, holding(record_bytes(whole), sync=True))
        os.unlink(JOURNAL, dir_fd=self.place.directory)
        os.fsync(self.place.directory)
        return Built(len(whole.made), sum(one.size for one in whole.made))

    def _directory(self, path: bytes, mode: int) -> None:
        self._announce(Made(path, "directory"))
        os.mkdir(path, 0o700, dir_fd=self.place.directory)
        self._modes[path] = mode

    def _settled(self) -> Iterator[Made]:
        """All that was made, with what identifies it from now on.

        Directories get their modes on the way, the inner ones first: some may not be searched then.
        """
        for one in reversed(self.made):
            if one.kind == "directory":
                descriptor = self.place.open_directory(one.path)
                try:
                    os.fchmod(descriptor, self._modes[one.path])
                    found = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                yield one._replace(inode=found.st_ino, ctime=found.st_ctime_ns)
            else:
                found = os.stat(one.path, dir_fd=self.place.directory, follow_symlinks=False)
                ctime = found.st_ctime_ns if one.kind == "regular" else 0
                yield one._replace(inode=found.st_ino, ctime=ctime)

    def _announce(self, made: Made) -> None:
        write_all(self._journal, made_line(made))
        self.made.append(made)


def holding(data: bytes, *, sync: bool = False) -> Fill:
    """What fills a file with `data`, and if wanted has it on the disk."""

    def fill(descriptor: int) -> str:
        """Write it."""
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
        return hashlib.sha256(data).hexdigest()

    return fill
