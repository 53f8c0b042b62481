"""Directories as the command may list them: without the names that are not in the view.

The supervisor reads the directory that a process has open, by a copy of its descriptor, so that both have the
same position in it, and writes the names to the process's memory. So no name gets there that the view lacks,
whatever the process does meanwhile. See getdents(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from pkgjail.sandbox.notices import error_answer, write_memory
from pkgjail.supervised.names import DIRECTORY, NEW_TERMINAL, PROC, TERMINALS
from pkgjail.supervised.processes import duplicate
from pkgjail.supervised.view import is_shown_in_proc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.sandbox.notices import Answer
    from pkgjail.supervised.view import View

# The inode, the position and the length of an entry, before its name; the new form has its type there, too.
_HEAD = struct.Struct("=QqH")
_NAME_OLD, _NAME_NEW = _HEAD.size, _HEAD.size + 1
_MOST = 1 << 16  # bytes for one call
_ALWAYS = (b".", b"..")
_DELETED = b" (deleted)"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Listing:
    """Answers getdents(2)."""

    def __init__(self, view: View) -> None:
        self._view = view

    def answer(self, call: int, process: int, arguments: Sequence[int], *, is_old: bool) -> Answer:
        """Return the answer of a call: the bytes that were written, or an error."""
        descriptor, address, size = arguments[0], arguments[1], arguments[2] & 0xFFFFFFFF
        try:
            copy = duplicate(process, descriptor)
        except OSError as error:
            return error_answer(error.errno or errno.EBADF)
        try:
            is_shown = self._rule(os.readlink(f"/proc/self/fd/{copy}".encode()))
            name = _NAME_OLD if is_old else _NAME_NEW
            data = _read(call, copy, min(size, _MOST), name, is_shown)
            if data:
                write_memory(process, address, data)
        except OSError as error:
            return error_answer(error.errno or errno.EIO)
        finally:
            os.close(copy)
        return len(data), 0, 0

    def _rule(self, path: bytes) -> Callable[[bytes], bool] | None:
        """Return the function that tells which names of a directory are shown; None for all.

        Raises:
            OSError: the directory is not in the view: a racing program opened it.

        """
        if path.endswith(_DELETED) or self._view.bind_of(path) is not None:
            return None
        kind = self._view.kind(path)
        if kind == DIRECTORY:
            return self._view.names.children(path).__contains__
        if kind == PROC:
            return self._is_shown_in_proc
        if path.startswith(b"/proc/"):
            first = path.split(b"/")[2]
            if not first.isdigit() or self._view.is_ours(int(first)):
                return None
        if kind == TERMINALS:
            return lambda name: name in self._view.names.terminals or name == NEW_TERMINAL[5:]
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _is_shown_in_proc(self, name: bytes) -> bool:
        return self._view.is_ours(int(name)) if name.isdigit() else is_shown_in_proc(name)


def _read(call: int, directory: int, size: int, name: int, is_shown: Callable[[bytes], bool] | None) -> bytes:
    """Read a part of a directory that has at least one name, and return it; b"" at the end."""
    buffer = ctypes.create_string_buffer(size)
    while True:
        arguments = (ctypes.c_int(directory), buffer, ctypes.c_uint(size))
        read = _libc.syscall(ctypes.c_long(call), *arguments)
        if read < 0:
            raise OSError(ctypes.get_errno(), "getdents")
        data = buffer.raw[:read]
        if is_shown is None or not data:
            return data
        shown = b"".join(entry for entry in _entries(data) if _is_shown(entry, name, is_shown))
        if shown:
            return shown


def _entries(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        length = _HEAD.unpack_from(data, position)[2]
        yield data[position : position + length]
        position += length


def _is_shown(entry: bytes, start: int, is_shown: Callable[[bytes], bool]) -> bool:
    name = entry[start:].split(b"\0", 1)[0]
    return name in _ALWAYS or is_shown(name)
