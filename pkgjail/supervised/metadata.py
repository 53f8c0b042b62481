"""Modes, owners, times and extended attributes, which the supervisor changes for a process.

Landlock does not restrict these calls. So the kernel never carries them out for a supervised process, whose
path or descriptor could lead to another file by then. The supervisor opens the file in a writable bind,
or copies the descriptor, and changes what it has open; it has no more rights than the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

from pkgjail.sandbox.notices import error_answer, read_memory, read_path
from pkgjail.supervised.opening import open_below
from pkgjail.supervised.processes import duplicate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.sandbox.notices import Answer
    from pkgjail.supervised.calls import Call
    from pkgjail.supervised.names import Bind
    from pkgjail.supervised.view import Place, View

_AT_FDCWD = -100
_NOBODY = 0xFFFFFFFF
_MOST_ATTRIBUTE = 1 << 16  # XATTR_SIZE_MAX
_PAIR = struct.Struct("=4q")
# The calls with ids after their path or descriptor, and where; those with a mode.
_OWNERS = {"chown": 1, "lchown": 1, "fchown": 1, "fchownat": 2}
_MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
_TIMES = {"utime": 1, "utimes": 1, "futimesat": 2, "utimensat": 2}
_ATTRIBUTES = ("setxattr", "removexattr")
NAMES = frozenset(
    (*_OWNERS, *_MODES, *_TIMES, *(start + name for start in ("", "l", "f") for name in _ATTRIBUTES))
)
"""The calls that are done here, by name."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)


class Metadata:
    """Changes the metadata of files."""

    def __init__(self, view: View) -> None:
        self._view = view

    def change(self, call: Call, bind: Bind, place: Place, process: int, arguments: Sequence[int]) -> Answer:
        """Carry a call out on what is at a place in a writable bind."""
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follows(call, arguments) else os.O_NOFOLLOW)
        try:
            opened = open_below(bind, place.path, flags)
        except OSError as error:
            return error_answer(error.errno or errno.EACCES)
        return self._change(call.name, opened, process, arguments)

    def change_open(self, name: str, descriptor: int, process: int, arguments: Sequence[int]) -> Answer:
        """Carry a call out on an open file, which must be in a writable bind, or have no path."""
        try:
            opened = duplicate(process, descriptor)
            path = os.readlink(f"/proc/self/fd/{opened}".encode())
        except OSError as error:
            return error_answer(error.errno or errno.EBADF)
        if path[:1] == b"/" and not path.startswith(b"/memfd:"):
            bind = self._view.bind_of(path)
            if bind is None or not bind.writable:
                os.close(opened)
                return error_answer(errno.EROFS)
        return self._change(name, opened, process, arguments)

    def _change(self, name: str, opened: int, process: int, arguments: Sequence[int]) -> Answer:
        path = b"/proc/self/fd/%d" % opened
        try:
            if name in _MODES:
                os.chmod(path, arguments[_MODES[name]] & 0o7777)
            elif name in _OWNERS:
                at = _OWNERS[name]
                os.chown(path, *(_id(arguments[each]) for each in (at, at + 1)))
            elif name in _TIMES:
                _set_times(path, _times(name, process, arguments[_TIMES[name]]))
            else:
                _set_attribute(name, path, process, arguments)
        except OSError as error:
            return error_answer(error.errno or errno.EPERM)
        finally:
            os.close(opened)
        return 0, 0, 0


def follows(call: Call, arguments: Sequence[int]) -> bool:
    """Return whether a call follows a link at the end of its path."""
    if call.position < 0 or not arguments[call.position] & call.bit:
        return call.follows
    return not call.follows


def _id(value: int) -> int:
    value &= _NOBODY
    return -1 if value == _NOBODY else value


def _times(name: str, process: int, address: int) -> bytes | None:
    """Return the two times as utimensat(2) takes them, in any form that a call has them; None for now."""
    if not address:
        return None
    if name == "utime":
        accessed, modified = struct.unpack("=2q", read_memory(process, address, 16))
        return _PAIR.pack(accessed, 0, modified, 0)
    data = read_memory(process, address, _PAIR.size)
    if name == "utimensat":
        return data
    accessed, first, modified, second = _PAIR.unpack(data)
    return _PAIR.pack(accessed, first * 1000, modified, second * 1000)


def _set_times(path: bytes, times: bytes | None) -> None:
    if _libc.utimensat(_AT_FDCWD, path, times, 0):
        raise OSError(ctypes.get_errno(), "utimensat")


def _set_attribute(name: str, path: bytes, process: int, arguments: Sequence[int]) -> None:
    attribute = read_path(process, arguments[1])
    if "remove" in name:
        os.removexattr(path, attribute)
        return
    size = arguments[3]
    if size > _MOST_ATTRIBUTE:
        raise OSError(errno.E2BIG, "setxattr")
    os.setxattr(path, attribute, read_memory(process, arguments[2], size), arguments[4] & 0xFFFFFFFF)
