"""Files that the supervisor opens for a process, and what stat(2) says of those made at entry.

What the manifest has, and what is in /proc and /sys, a process cannot open itself: Landlock has no rule that
allows it. So no other file can be put in its place while the supervisor looks. A descriptor is handed over by
SECCOMP_IOCTL_NOTIF_ADDFD; see seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import SYS_BUSES, SYS_ROOT_ONLY
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.notices import add_descriptor, error_answer, write_memory
from pkgjail.supervised.names import LINK, MADE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.sandbox.notices import Answer
    from pkgjail.supervised.names import Bind, Names
    from pkgjail.supervised.view import Place

_TIOCGPTN = 0x80045430
_SIZE_OF_STATX = 256
_BENEATH = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS
_KEPT_FLAGS = ~(os.O_CREAT | os.O_EXCL | os.O_NOCTTY)
_FLAGS_OF_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Opener:
    """Opens files for processes."""

    def __init__(self, listener: int, names: Names, numbers: Mapping[str, int], size_of_stat: int) -> None:
        self._listener = listener
        self._names = names
        self._made = {path: _make(mode, content) for path, (mode, content) in names.made.items()}
        self._stat, self._statx = numbers["newfstatat"], numbers["statx"]
        self._size_of_stat = size_of_stat

    def open(self, number: int, path: bytes, flags: int) -> Answer:
        """Open a file by its real path and hand it over."""
        return self._hand_over(number, lambda: os.open(path, flags & _KEPT_FLAGS | os.O_NOCTTY), flags)

    def open_in_bind(self, number: int, bind: Bind, path: bytes, flags: int) -> Answer:
        """Open a file below a bind and hand it over."""

        def open_it() -> int:
            opened = open_below(bind, path, flags & _KEPT_FLAGS)
            if not os.geteuid() and is_for_root_alone(os.readlink(f"/proc/self/fd/{opened}".encode())):
                os.close(opened)
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return opened

        return self._hand_over(number, open_it, flags)

    def open_made(self, number: int, path: bytes, flags: int) -> Answer:
        """Open a file that was made at entry and hand it over."""
        if flags & os.O_DIRECTORY:
            return error_answer(errno.ENOTDIR)
        return self.open(number, b"/proc/self/fd/%d" % self._made[path], flags & ~os.O_NOFOLLOW)

    def open_given(self, number: int, link: bytes, flags: int) -> Answer:
        """Open anew the file that a link leads to, if it is one of the caller's; None if it is none."""
        descriptor = self._names.given_descriptor(link)
        return self.open(number, b"/proc/self/fd/%d" % descriptor, flags & ~os.O_NOFOLLOW)

    def open_new_terminal(self, number: int, path: bytes, flags: int) -> Answer:
        """Make a terminal, note its name, and hand its leader over."""

        def make() -> int:
            leader = os.open(path, flags & _KEPT_FLAGS | os.O_NOCTTY)
            if not flags & os.O_PATH:
                name = struct.unpack("=I", fcntl.ioctl(leader, _TIOCGPTN, bytes(4)))[0]
                self._names.terminals.add(b"%d" % name)
            return leader

        return self._hand_over(number, make, flags)

    def _hand_over(self, number: int, make: object, flags: int) -> Answer:
        try:
            opened: int = make()  # type: ignore[operator]
        except OSError as error:
            return error_answer(error.errno or errno.EACCES)
        try:
            return add_descriptor(self._listener, number, opened, cloexec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(opened)

    # --- files that the kernel does not find ------------------------------------------------------

    def source_of(self, place: Place) -> int:
        """Open what stands for a place that the host does not have in this way, to look at; see open(2)."""
        if place.what == MADE:
            return os.dup(self._made[place.path])
        path = self._names.differing.get(place.path, place.path) if place.what == LINK else place.path
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def stat(self, name: str, source: int, process: int, arguments: list[int]) -> Answer:
        """Answer a call of stat(2)'s family for an open file."""
        start = (ctypes.c_int(source), ctypes.c_char_p(b""))
        if name == "statx":
            address, buffer = arguments[4], ctypes.create_string_buffer(_SIZE_OF_STATX)
            mask = ctypes.c_uint(arguments[3] & 0xFFFFFFFF)
            flags = ctypes.c_int(sc.AT_EMPTY_PATH)
            result = _libc.syscall(ctypes.c_long(self._statx), *start, flags, mask, buffer)
        else:
            address = arguments[2 if name == "newfstatat" else 1]
            buffer = ctypes.create_string_buffer(self._size_of_stat)
            flags = ctypes.c_int(sc.AT_EMPTY_PATH)
            result = _libc.syscall(ctypes.c_long(self._stat), *start, buffer, flags)
        if result < 0:
            return error_answer(ctypes.get_errno())
        write_memory(process, address, buffer.raw)
        return 0, 0, 0


def is_for_root_alone(path: bytes) -> bool:
    """Return whether a real path is one of those in /sys that root alone may read: root's command may not."""
    below = path[len(b"/sys/") :]
    hidden = any((below + b"/").startswith(name + b"/") for name in SYS_ROOT_ONLY)
    return path.startswith(b"/sys/") and (hidden or below.startswith(SYS_BUSES.rstrip(b"*")))


def is_device(path: bytes) -> bool:
    """Return whether a path below a bind leads to a device. Only /dev has devices for a command."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def open_below(bind: Bind, path: bytes, flags: int) -> int:
    """Open a path of a bind, which is below it by its text, and return the descriptor.

    Raises:
        OSError: EXDEV, it leads out of the bind; and as open(2).

    """
    rest = path[len(bind.path) :].lstrip(b"/")
    if not bind.is_directory:
        return os.open(b"/proc/self/fd/%d" % bind.opened, flags & ~os.O_NOFOLLOW | os.O_NOCTTY)
    flags = flags & _FLAGS_OF_PATH if flags & os.O_PATH else flags | os.O_NOCTTY
    return sc.openat2(bind.opened, rest or b".", flags, _BENEATH)


def _make(mode: int, content: bytes) -> int:
    """Return a descriptor of a file in memory that nobody can change."""
    made = os.memfd_create("pkgjail-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(made), "wb") as file:
        file.write(content)
    os.fchmod(made, mode)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
    return made
