"""Bring back what commands of a guest changed in a copied directory, and believe nothing of it.

All is received into a directory of our own below the copied one before the first name changes. Then each name
changes by itself: a file is renamed into its place, so that others see the old one or the new one. A name
that the host changed meanwhile stays as it is, and what the guest has of it stays where it was received; the
error names both.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

from pkgjail.core.errors import os_error_text
from pkgjail.core.text import counted, first_of, printable
from pkgjail.core.untrusted import shortened
from pkgjail.machine.applying import DELETED, DIRECTORIES, FILE, LINK, Applying, Change
from pkgjail.machine.copies import open_directory
from pkgjail.machine.model import MachineError
from pkgjail.storage.atomic import write_all
from pkgjail.storage.beside import make_beside
from pkgjail.storage.locations import temporary_directory
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from typing_extensions import Self

    from pkgjail.core.reporter import Reporter
    from pkgjail.machine.copies import Copy

KEPT = ".pkgjail-changes-"
"""The beginning of the name of a directory with what could not be brought back."""

_MOST_CHANGES, _MOST_BYTES = 1_000_000, 1 << 28
_MOST_NAME, _MOST_TARGET = 255, 4095
_OWNER = 0o700
_FIELDS = struct.Struct(
    "<cIqQ"
)  # the kind, the mode, the time, the size; then two texts, each after its size
_LENGTH = struct.Struct("<I")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def read_change(content: bytes) -> Change:
    """Return the change that the content of an agent's message says.

    Raises:
        MachineError: it is none.

    """
    try:
        kind, mode, mtime_ns, size = _FIELDS.unpack_from(content)
        path, after = _text(content, _FIELDS.size)
        target, end = _text(content, after)
    except struct.error as error:
        raise MachineError("the guest sent a change that is too short") from error
    if end != len(content):
        raise MachineError("the guest sent a change that is too long")
    return Change(kind.decode("latin-1"), path, mode, mtime_ns, size, target)


def _text(content: bytes, at: int) -> tuple[bytes, int]:
    """Return a text, and where it ends."""
    (length,) = _LENGTH.unpack_from(content, at)
    end = at + _LENGTH.size + length
    if end > len(content):
        raise struct.error
    return content[at + _LENGTH.size : end], end


class Changes:
    """The changes of a copied directory: `add` each, and its `content`, and then `apply` all.

    Use it as a context: what was received, and was not applied because of an error, is removed at its end.
    """

    def __init__(self, copy: Copy, kept: Collection[bytes], reporter: Reporter) -> None:
        """Prepare; `kept` are paths in the directory that must not change, nor anything below them."""
        self._copy = copy
        self._kept = frozenset(kept)
        self._reporter = reporter
        self._records: dict[bytes, Change] = {}
        self._file, self._left, self._bytes = -1, 0, 0

    def __enter__(self) -> Self:
        """Make the directory that the changes are received into.

        Raises:
            MachineError: it cannot be made.

        """
        with self._errors(), contextlib.ExitStack() as stack:
            self._top = os.open(self._copy.directory, _TOP)
            stack.callback(os.close, self._top)
            # A user may write only further down.
            is_writable = os.access(self._copy.directory, os.W_OK | os.X_OK)
            self._place = os.fsencode(self._copy.directory if is_writable else temporary_directory())
            self._parent = os.open(self._place, _TOP)
            stack.callback(os.close, self._parent)
            self._name, self._received = make_beside(self._parent, "pkgjail-changes", is_directory=True)
            stack.callback(os.close, self._received)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_file()
        if self._name:
            with contextlib.suppress(OSError):
                remove_tree(self._parent, self._name)
        self._stack.close()

    def add(self, change: Change) -> None:
        """Receive a change; those of a directory come after it.

        Raises:
            MachineError: the guest says something that cannot be, or there is no room.

        """
        self._refuse_wrong(change)
        self._end_file()
        self._records[change.path] = change
        with self._errors():
            if change.kind in DIRECTORIES:
                with self._in_received(change.path) as (directory, name):
                    os.mkdir(name, _OWNER, dir_fd=directory)
            elif change.kind == FILE:
                with self._in_received(change.path) as (directory, name):
                    self._file, self._left = os.open(name, _NEW, 0o600, dir_fd=directory), change.size

    def content(self, block: bytes) -> None:
        """Receive a part of the content of the file that was added last.

        Raises:
            MachineError: it is more than the guest said, or there is no room.

        """
        if self._file < 0 or len(block) > self._left:
            raise MachineError("the guest sent more of a file than it has")
        self._left -= len(block)
        with self._errors():
            write_all(self._file, block)

    def apply(self) -> None:
        """Change the directory.

        Raises:
            MachineError: some names cannot be changed, since the host changed them meanwhile or an error
                occurred; it lists them, and where what the guest has of them is. The others were changed.

        """
        if self._left:
            raise MachineError("the guest sent less of a file than it has")
        self._end_file()
        kept = f"{KEPT}{os.urandom(4).hex()}"  # nothing removes it, if this process is killed now
        try:
            with self._errors():
                os.rename(self._name, kept, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            self._name = ""
            applying = Applying(self._copy, self._top, self._received, self._kept, self._reporter)
            problems = applying.run(self._records)
        except BaseException:
            if os.path.lexists(self._path(kept)):
                self._reporter.warn(
                    f"what commands changed in {self._where()} is in {printable(self._path(kept))}, not there"
                )
            raise
        if not problems:
            with contextlib.suppress(OSError):
                remove_tree(self._parent, kept)
            return
        listed = "; ".join(first_of([f"{printable(path)}: {why}" for path, why in problems]))
        raise MachineError(
            f"cannot bring back {counted(len(problems), 'change')} of {self._where()}, of "
            f"{len(self._records):,}: {listed}; files that the machine has of them are in "
            f"{printable(self._path(kept))}"
        )

    def _refuse_wrong(self, change: Change) -> None:
        """Refuse what no walk of a directory gives."""
        above, _, name = change.path.rpartition(b"/")
        parent = self._records.get(above)
        wrong = (
            name in (b"", b".", b"..")
            or b"\0" in name
            or len(name) > _MOST_NAME
            or change.path in self._records
            or (above != b"" and (parent is None or parent.kind not in DIRECTORIES))
            or change.path.startswith(b"/")
        )
        if wrong:
            said = shortened(printable(change.path), _MOST_NAME)
            raise MachineError(f"the guest sent a change of {said!r}, which cannot be a name in a directory")
        if change.kind not in (FILE, LINK, *DIRECTORIES, DELETED) or change.size < 0:
            raise MachineError(f"the guest sent a change of the unknown kind {change.kind!r}")
        if change.kind == LINK and (not 0 < len(change.target) <= _MOST_TARGET or b"\0" in change.target):
            raise MachineError("the guest sent a symbolic link that no file system can have")
        if self._left:
            raise MachineError("the guest sent less of a file than it has")
        self._bytes += len(change.path) + len(change.target)
        if len(self._records) >= _MOST_CHANGES or self._bytes > _MOST_BYTES:
            raise MachineError(
                f"the guest sent more than {_MOST_CHANGES:,} changes of {self._where()}, or longer names"
            )

    @contextlib.contextmanager
    def _in_received(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        above, _, name = path.rpartition(b"/")
        directory = open_directory(self._received, above)
        try:
            yield directory, name
        finally:
            os.close(directory)

    def _end_file(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the directory in errors of the system, before anything has changed in it."""
        try:
            yield
        except OSError as error:
            why = os_error_text(error, "")
            raise MachineError(
                f"cannot bring back what commands changed in {self._where()}: {why}; nothing is changed there"
            ) from error

    def _where(self) -> str:
        return printable(self._copy.directory)

    def _path(self, name: str) -> bytes:
        return os.path.join(self._place, os.fsencode(name))
