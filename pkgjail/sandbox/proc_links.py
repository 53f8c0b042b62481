"""Refuse to execute files outside of the jail, to which the links of proc(5) lead.

Until execve(2), the process that becomes the command is pkgjail's own: its /proc/self/exe is the host's
Python, and its /proc/self/fd has files that the caller opened. Such a link must not be the command, be on the
way to it, or be the interpreter of a script (`#!`) or a program (PT_INTERP). See execve(2), elf(5).
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from pkgjail.sandbox import syscalls as sc

_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY  # for any kind of file
_MOST_INTERPRETERS = 6  # scripts can be interpreters of scripts; the kernel allows five (fs/exec.c)
_FIRST_LINE = 256  # the kernel reads so many bytes of a script's first line
_MOST_HEADERS = 1 << 16  # the kernel reads so many bytes of program headers
_MOST_PATH = 4096  # PATH_MAX
_PT_INTERP = 3
# By ELF class, the formats of two structures. Of the file header: the table's offset, and the size and number
# of its entries. Of an entry: its type, and the offset and length of what it describes.
_ELF_FORMATS = {1: ("28xI10xHH", "II8xI"), 2: ("32xQ14xHH", "I4xQ16xQ")}


def refuse_links_of_proc(path: str | bytes) -> None:
    """Raise an error unless `path` and the interpreters of its file are files of the jail.

    Raises:
        OSError: it has the path; ELOOP if a link of proc(5) is on the way, or why the file cannot be opened.

    """
    name = os.fsencode(path)
    for depth in range(_MOST_INTERPRETERS):
        try:
            name = interpreter_of(name)
        except OSError as error:
            # execve(2) reports all other problems with an interpreter.
            if depth == 0 or error.errno == errno.ELOOP:
                raise
            return
        if not name:
            return


def interpreter_of(path: bytes) -> bytes:
    """Return the interpreter of the file at `path`, or nothing if it has none or cannot be read."""
    try:
        opened = sc.openat2(sc.AT_FDCWD, path, _READ_FLAGS, sc.RESOLVE_NO_MAGICLINKS)
    except PermissionError:
        os.close(sc.openat2(sc.AT_FDCWD, path, os.O_PATH, sc.RESOLVE_NO_MAGICLINKS))
        return b""
    try:
        return interpreter_of_file(opened)
    finally:
        os.close(opened)


def interpreter_of_file(opened: int) -> bytes:
    """Return the interpreter of a file that is open for reading, or nothing if it has none."""
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return b""
        start = os.pread(opened, _FIRST_LINE, 0)
        if start.startswith(b"#!"):
            line = start[2:].partition(b"\n")[0].split(b"\0")[0].replace(b"\t", b" ")
            # Only blanks and tabs separate words (fs/binfmt_script.c): a name may end with a carriage return.
            return line.lstrip(b" ").partition(b" ")[0]
        return _elf_interpreter(opened, start) if start.startswith(b"\x7fELF") else b""
    except (struct.error, IndexError, OverflowError):  # the header is incomplete
        return b""


def _elf_interpreter(opened: int, start: bytes) -> bytes:
    """Return the interpreter of an ELF file, which is its dynamic loader."""
    order = "<>"[start[5] == 2]  # noqa: PLR2004 - ELFDATA2MSB
    if start[4] not in _ELF_FORMATS:
        return b""
    header, entry = (order + layout for layout in _ELF_FORMATS[start[4]])
    start_of_table, size, count = struct.unpack_from(header, start)
    table = os.pread(opened, min(size * count, _MOST_HEADERS), start_of_table)
    for offset in range(0, len(table) - struct.calcsize(entry) + 1, size or _MOST_HEADERS):
        kind, position, length = struct.unpack_from(entry, table, offset)
        if kind == _PT_INTERP:
            return os.pread(opened, min(length, _MOST_PATH), position).split(b"\0")[0]
    return b""
