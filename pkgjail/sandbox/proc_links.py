"""Refuse to execute what is no file of the jail: what the links of proc(5) lead to.

The process that becomes the command is still pkgjail's own. So /proc/self/exe is the host's Python
until then, and /proc/self/fd has what the caller opened: as a command, along a symbolic link, as the
interpreter that a script (`#!`) or a program (PT_INTERP) names. See execve(2), elf(5).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from pkgjail.sandbox import syscalls as sc

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # whatever kind of file it is
_DEPTH = 6  # of scripts that are interpreters of scripts; the kernel takes five (fs/exec.c)
_LINE = 256  # bytes of a script's first line that the kernel reads
_TABLE = 1 << 16  # bytes of program headers, of which the kernel reads no more
_LONGEST = 4096  # bytes of a path
_PT_INTERP = 3
# By class: of the file header where the table is, the size and the number of its entries; of an entry
# its type, and where in the file and how long is what it describes.
_FORMS = {1: ("28xI10xHH", "II8xI"), 2: ("32xQ14xHH", "I4xQ16xQ")}


def refuse_links_of_proc(path: str | bytes) -> None:
    """Raise unless `path` is a name in the jail, and so is the interpreter that its file asks for.

    Raises:
        OSError: with the name; ELOOP where a link of proc(5) is on the way, or the file cannot be opened.

    """
    name = os.fsencode(path)
    for depth in range(_DEPTH):
        try:
            name = _interpreter(name)
        except OSError as error:
            # What an interpreter lacks besides, execve(2) tells.
            if depth == 0 or error.errno == errno.ELOOP:
                raise
            return
        if not name:
            return


def _interpreter(path: bytes) -> bytes:
    """What the file at `path` is executed by; nothing where that is the kernel, or not to be read."""
    try:
        opened = sc.openat2(sc.AT_FDCWD, path, _READING, sc.RESOLVE_NO_MAGICLINKS)
    except PermissionError:
        os.close(sc.openat2(sc.AT_FDCWD, path, os.O_PATH, sc.RESOLVE_NO_MAGICLINKS))
        return b""
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return b""
        start = os.pread(opened, _LINE, 0)
        if start.startswith(b"#!"):
            words = start[2:].partition(b"\n")[0].split(b"\0")[0].split()
            return words[0] if words else b""
        return _of_program(opened, start) if start.startswith(b"\x7fELF") else b""
    except (struct.error, IndexError, OverflowError):  # no whole header
        return b""
    finally:
        os.close(opened)


def _of_program(opened: int, start: bytes) -> bytes:
    """The interpreter of an ELF file, its dynamic loader."""
    order = "<>"[start[5] == 2]  # noqa: PLR2004 - ELFDATA2MSB
    if start[4] not in _FORMS:
        return b""
    header, entry = (order + form for form in _FORMS[start[4]])
    place, size, count = struct.unpack_from(header, start)
    table = os.pread(opened, min(size * count, _TABLE), place)
    for offset in range(0, len(table) - struct.calcsize(entry) + 1, size or _TABLE):
        kind, where, length = struct.unpack_from(entry, table, offset)
        if kind == _PT_INTERP:
            return os.pread(opened, min(length, _LONGEST), where).split(b"\0")[0]
    return b""
