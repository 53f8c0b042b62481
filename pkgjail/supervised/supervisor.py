"""Answer the calls of a supervised command: what is not in its view is not there for it.

The kernel carries a call out itself if its path leads to a name of the view. A program of several threads can
put another path there meanwhile, so for such a program names are no secret; content is, which Landlock or the
supervisor's own opening keeps away, and so is the right to change anything outside of writable binds.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.notices import (
    AT_FDCWD,
    GO_ON,
    absolute,
    error_answer,
    read_memory,
    read_path,
    serve,
    write_memory,
)
from pkgjail.sandbox.proc_links import interpreter_of_file
from pkgjail.supervised import metadata
from pkgjail.supervised.listing import Listing
from pkgjail.supervised.metadata import Metadata, follows
from pkgjail.supervised.names import (
    ABSENT,
    BIND,
    DEVICE,
    DIRECTORY,
    FILE,
    LINK,
    MADE,
    NEW_TERMINAL,
    OPEN_FILE,
    PROC,
    TERMINALS,
)
from pkgjail.supervised.opening import Opener, is_device
from pkgjail.supervised.sockets import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.sandbox.notices import Answer
    from pkgjail.supervised.calls import Call, Calls
    from pkgjail.supervised.view import Place, View

    Handler = Callable[[int, int, list[int], Call], Answer]

_WORD = 0xFFFFFFFF
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_TMPFILE = 0o20000000
_OPEN_HOW = struct.Struct("=3Q")
_RESOLVE_CACHED = 0x20
_HARMLESS_RESOLVE = sc.RESOLVE_NO_XDEV | sc.RESOLVE_NO_MAGICLINKS
_MOST_INTERPRETERS = 6
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_ACCESS = os.R_OK | os.W_OK | os.X_OK
_LONGEST_LINK = 4096
_STATS = ("stat", "lstat", "newfstatat", "statx")
_ACCESS = {"access": 1, "faccessat": 2, "faccessat2": 2}
_OF_THE_SET = (FILE, DIRECTORY, LINK)
_MAKES = ("mkdir", "mkdirat", "symlink", "symlinkat", "mknod", "mknodat")
_REMOVES = ("rmdir", "unlink", "unlinkat")
_MOVES = ("rename", "renameat", "renameat2", "link", "linkat")
_OPENS = ("open", "openat", "openat2", "creat")
_EXECS = ("execve", "execveat")
_AT_EMPTY_PATH = sc.AT_EMPTY_PATH


class Supervisor:
    """Answers the calls of one run. `run` returns when all processes of it have ended."""

    def __init__(self, listener: int, view: View, calls: Calls, has_ended: Callable[[], bool]) -> None:
        self._listener = listener
        self._view = view
        self._has_ended = has_ended
        self._opener = Opener(listener, view.names, calls.numbers, calls.size_of_stat)
        self._listing = Listing(view)
        self._sockets = Sockets(view)
        self._metadata = Metadata(view)
        self._handlers = {number: (self._handler(call.name), call) for number, call in calls.paths.items()}
        self._done = calls.done
        self._on_processes = calls.on_processes
        self._interpreters: dict[bytes, int] = {}

    def run(self) -> None:
        """Receive and answer calls until nobody is left."""
        serve(self._listener, self.answer, _nothing, self._has_ended)

    def answer(
        self, number: int, process: int, _architecture: int, call: int, arguments: list[int]
    ) -> Answer:
        """Return the answer of a call, or None if it was sent."""
        found = self._handlers.get(call)
        try:
            if found is not None:
                return found[0](number, process, arguments, found[1])
            if call in self._done:
                return self._do(self._done[call], call, process, arguments)
            return self._on_process(call, process, arguments)
        except OSError as error:  # the process has ended, or its memory cannot be read
            return error_answer(_error_of(error))

    def _handler(self, name: str) -> Handler:
        groups: tuple[tuple[tuple[str, ...] | frozenset[str], Handler], ...] = (
            (_OPENS, self._open),
            (_EXECS, self._execute),
            (_MAKES, self._make),
            (_REMOVES, self._remove),
            (_MOVES, self._move),
            (("truncate",), self._truncate),
            (("readlink", "readlinkat"), self._read_link),
            (metadata.NAMES, self._change),
        )
        return next((handler for names, handler in groups if name in names), self._look)

    def _find(
        self, process: int, arguments: list[int], call: Call, index: int = 0, *, follow: bool | None = None
    ) -> Place | None:
        """Return what a path of a call leads to; None for an empty path, which is an open file's."""
        directory, position = call.places[index]
        path = read_path(process, arguments[position])
        if not path:
            return None
        if path[:1] != b"/":
            path = absolute(process, arguments[directory] if directory >= 0 else AT_FDCWD, path)
        if follow is None:
            follow = call.follows if call.position < 0 else follows(call, arguments)
        return self._view.find(path, process, follow=follow)

    # --- looking ----------------------------------------------------------------------------------

    def _look(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        """Answer stat(2), access(2), chdir(2) and all others that change nothing."""
        if call.name == "statx" and not arguments[1]:
            return GO_ON  # of an open file, since Linux 6.11
        place = self._find(process, arguments, call)
        if place is None:
            return GO_ON
        if fault := _fault_of_look(place, call.name, arguments):
            return error_answer(fault)
        if place.what == MADE or place.differs:
            return self._look_for(process, arguments, call.name, place)
        return GO_ON

    def _look_for(self, process: int, arguments: list[int], name: str, place: Place) -> Answer:
        """Look at what the kernel would not find: a file made at entry, or behind a link that differs."""
        source = self._opener.source_of(place)
        try:
            if name in _STATS:
                return self._opener.stat(name, source, process, arguments)
            if name in _ACCESS:
                mode = arguments[_ACCESS[name]] & _MOST_ACCESS
                is_allowed = os.access(f"/proc/self/fd/{source}", mode) and not (
                    place.what == MADE and mode & os.X_OK
                )
                return (0, 0, 0) if is_allowed else error_answer(errno.EACCES)
        finally:
            os.close(source)
        if "xattr" in name:
            return error_answer(errno.EOPNOTSUPP)
        return error_answer(errno.EACCES)

    def _read_link(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        place = self._find(process, arguments, call)
        if place is None or (place.what in {LINK, BIND, PROC, DIRECTORY, FILE} and not place.differs):
            return GO_ON
        if place.what != LINK:
            return error_answer(place.error if place.what == ABSENT else errno.EINVAL)
        position = call.places[0][1] + 1
        size = arguments[position + 1]
        text = self._view.target(place.path)[: min(size, _LONGEST_LINK)]
        write_memory(process, arguments[position], text)
        return (len(text), 0, 0) if size else error_answer(errno.EINVAL)

    # --- opening ----------------------------------------------------------------------------------

    def _open(self, number: int, process: int, arguments: list[int], call: Call) -> Answer:
        follow = True
        if call.name == "openat2":
            how = read_memory(process, arguments[2], _OPEN_HOW.size)
            flags, _, resolve = _OPEN_HOW.unpack(how)
            if resolve & ~_HARMLESS_RESOLVE:
                return error_answer(errno.EAGAIN if resolve & _RESOLVE_CACHED else errno.ENOSYS)
        elif call.name == "creat":
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        else:
            flags = arguments[2 if call.name == "openat" else 1] & _WORD
        if flags & os.O_PATH:
            flags &= os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        if flags & os.O_NOFOLLOW or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL:
            follow = False
        place = self._find(process, arguments, call, follow=follow)
        if place is None:
            return error_answer(errno.ENOENT)
        return self._open_place(number, place, flags)

    def _open_place(self, number: int, place: Place, flags: int) -> Answer:
        """Open what the path leads to, for the process, or let the kernel do it."""
        what, opener = place.what, self._opener
        if fault := _fault_of_open(place, flags, writes=bool(flags & (_WRITES | _TMPFILE))):
            return error_answer(fault)
        if flags & os.O_PATH:
            return GO_ON  # it gives no content; and the kernel hands over no such descriptors
        if place.bind is not None:
            by_us = place.bind.is_read_by_us
            if by_us:
                return opener.open_in_bind(number, place.bind, place.path, flags)
            return error_answer(errno.EACCES) if is_device(place.path) else GO_ON
        if what in {DEVICE, OPEN_FILE, MADE}:
            return self._open_other(number, place, flags)
        return opener.open(number, place.path, flags | (os.O_NOFOLLOW if what in _OF_THE_SET else 0))

    def _open_other(self, number: int, place: Place, flags: int) -> Answer:
        if place.what == MADE:
            return self._opener.open_made(number, place.path, flags)
        if place.path == NEW_TERMINAL:
            return self._opener.open_new_terminal(number, place.path, flags)
        if place.what == OPEN_FILE and self._view.names.is_given(place.path):
            return self._opener.open_given(number, place.path, flags)
        return GO_ON

    # --- executing --------------------------------------------------------------------------------

    def _execute(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        place = self._find(process, arguments, call)
        if place is None:
            if call.name != "execveat" or not arguments[4] & _AT_EMPTY_PATH:
                return GO_ON  # which fails
            opened = b"/proc/%d/fd/%d" % (process, arguments[0] & _WORD)
            return _answered(self._fault_of_file(opened, process, 0))
        return _answered(self._fault_of(place, process, 0))

    def _fault_of(self, place: Place, process: int, depth: int) -> int:
        """Return the error with which a file, or an interpreter of it, cannot be executed; 0 for none."""
        if place.what == ABSENT:
            return place.error
        if place.what not in {FILE, BIND, PROC, OPEN_FILE} or place.differs:
            return errno.EACCES
        if place.what != FILE or depth:
            return self._fault_of_file(place.path, process, depth)
        fault = self._interpreters.get(place.path)
        if fault is None:
            fault = self._interpreters[place.path] = self._fault_of_file(place.path, process, depth)
        return fault

    def _fault_of_file(self, path: bytes, process: int, depth: int) -> int:
        try:
            opened = os.open(path, _READ)
        except OSError:
            return 0  # the kernel says why
        try:
            interpreter = interpreter_of_file(opened)
        finally:
            os.close(opened)
        if not interpreter or depth >= _MOST_INTERPRETERS:
            return 0
        place = self._view.find(absolute(process, AT_FDCWD, interpreter), process, follow=True)
        return self._fault_of(place, process, depth + 1)

    # --- changing ---------------------------------------------------------------------------------

    def _make(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        """Answer mkdir(2), symlink(2), mknod(2)."""
        place = self._find(process, arguments, call)
        if place is None:
            return GO_ON
        if place.what == ABSENT:
            return error_answer(errno.EROFS if place.is_new else place.error)
        if place.what != BIND or place.bind is None:
            return error_answer(errno.EEXIST)
        if place.bind.writable or os.path.lexists(place.path):
            return GO_ON
        parent = place.path.rpartition(b"/")[0]
        return error_answer(errno.EROFS if os.path.isdir(parent) else errno.ENOENT)

    def _remove(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        place = self._find(process, arguments, call)
        if place is None or _is_writable(place):
            return GO_ON
        return error_answer(_error_of_change(place))

    def _move(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        """Answer rename(2) and link(2)."""
        old = self._find(process, arguments, call)
        new = self._find(process, arguments, call, 1, follow=False)
        for place, may_be_new in ((old, False), (new, True)):
            if place is not None and place.what == ABSENT and not (may_be_new and place.is_new):
                return error_answer(place.error)
        if new is not None and not _is_writable(new):
            return error_answer(errno.EROFS)
        if old is not None and not _is_writable(old) and old.what != OPEN_FILE:
            return error_answer(errno.EXDEV)
        return GO_ON

    def _truncate(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        place = self._find(process, arguments, call)
        if place is None or _is_writable(place):
            return GO_ON
        return error_answer(_error_of_change(place))

    def _change(self, _number: int, process: int, arguments: list[int], call: Call) -> Answer:
        """Answer chmod(2), chown(2), utimensat(2), setxattr(2)."""
        directory, position = call.places[0]
        if not arguments[position]:
            if directory < 0:
                return error_answer(errno.EFAULT)
            return self._metadata.change_open(call.name, arguments[directory], process, arguments)
        place = self._find(process, arguments, call)
        if place is None:
            flags = arguments[call.position] if call.position >= 0 else 0
            if not flags & _AT_EMPTY_PATH:
                return error_answer(errno.ENOENT)
            return self._metadata.change_open(call.name, arguments[directory], process, arguments)
        if place.bind is not None and place.bind.writable:
            return self._metadata.change(call, place.bind, place, process, arguments)
        return error_answer(errno.EPERM if place.what in {DEVICE, TERMINALS} else _error_of_change(place))

    # --- others -----------------------------------------------------------------------------------

    def _do(self, name: str, call: int, process: int, arguments: list[int]) -> Answer:
        if name in {"getdents", "getdents64"}:
            return self._listing.answer(call, process, arguments, is_old=name == "getdents")
        if name in {"connect", "bind"}:
            return self._sockets.answer(name, process, arguments)
        return self._metadata.change_open(name, arguments[0], process, arguments)

    def _on_process(self, call: int, process: int, arguments: list[int]) -> Answer:
        """Answer a call on another process, which must be one of this run's."""
        other = arguments[self._on_processes[call]] & _WORD
        is_own = other == self._view.thread_group(process) or self._view.is_ours(other)
        return GO_ON if is_own else error_answer(errno.ESRCH)


def _nothing() -> None:
    return None


def _answered(fault: int) -> Answer:
    return error_answer(fault) if fault else GO_ON


def _error_of(error: OSError) -> int:
    """Return the error to answer if the supervisor itself cannot look at a process."""
    if error.errno == errno.ENOENT:
        return errno.EBADF  # there is no such descriptor to start at
    return errno.EACCES if error.errno in {errno.EPERM, None} else error.errno or errno.EACCES


def _fault_of_look(place: Place, name: str, arguments: list[int]) -> int:
    """Return the error of a call that changes nothing, as far as the view decides that; 0 otherwise."""
    if place.what == ABSENT:
        return place.error
    if name in _ACCESS and arguments[_ACCESS[name]] & os.W_OK and _is_read_only(place):
        return errno.EROFS
    # A watch on a directory would tell of every name that comes and goes there.
    return errno.EACCES if name == "inotify_add_watch" and place.what == DIRECTORY else 0


def _fault_of_open(place: Place, flags: int, *, writes: bool) -> int:
    """Return the error with which open(2) fails, as far as the view alone decides that; 0 otherwise."""
    what, makes = place.what, flags & os.O_CREAT
    if what == ABSENT:
        return errno.EROFS if makes and place.is_new else place.error
    if what == BIND:
        return _fault_in_bind(place, makes=bool(makes), writes=writes)
    if flags & os.O_PATH:
        return errno.EACCES if place.differs or what == MADE else 0
    if makes and flags & os.O_EXCL:
        return errno.EEXIST
    if writes and what not in {DEVICE, TERMINALS, OPEN_FILE} and not _is_of_process(place):
        return errno.EISDIR if what == DIRECTORY and not flags & _TMPFILE else errno.EROFS
    return 0


def _fault_in_bind(place: Place, *, makes: bool, writes: bool) -> int:
    if place.differs:
        return errno.EACCES
    if _is_writable(place) or not (writes or makes):
        return 0
    if not os.path.lexists(place.path):
        return errno.EROFS if makes else errno.ENOENT
    return errno.EROFS if writes else 0


def _is_writable(place: Place) -> bool:
    return place.bind is not None and place.bind.writable


def _is_read_only(place: Place) -> bool:
    return place.what in {FILE, DIRECTORY, MADE} or (place.bind is not None and not place.bind.writable)


def _is_of_process(place: Place) -> bool:
    return place.what == PROC and place.path.split(b"/")[2:3] != [] and place.path.split(b"/")[2].isdigit()


def _error_of_change(place: Place) -> int:
    """Return the error for a change of what is not in a writable bind."""
    if place.what == ABSENT:
        return place.error
    if place.what == BIND and not os.path.lexists(place.path):
        return errno.ENOENT
    return errno.EROFS
