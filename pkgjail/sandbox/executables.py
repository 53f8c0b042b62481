"""Say why a file cannot be executed: which other file it needs, or what is wrong with it.

The kernel answers ENOENT if the file is there and its interpreter is not, and ENOEXEC for anything that it
does not know; execve(2). This runs in the jail, before anything else has changed.
"""

from __future__ import annotations

import errno
import os
import stat

from pkgjail.sandbox.proc_links import interpreter_of

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Literal

    Fault = Literal[
        "", "absent", "link", "directory", "special", "search", "mode", "noexec", "line end", "interpreter",
        "loader", "interpreter link", "interpreter mode", "empty", "script", "machine", "format",
    ]  # fmt: skip

_MOST_LINKS = 40  # path_resolution(7)
_ELF = b"\x7fELF"


def find_fault(path: bytes, number: int) -> tuple[Fault, bytes]:
    """Return why execve(2) failed with the error `number`, and the other file that is concerned.

    - "absent": there is nothing at the path;
    - "link": it is a symbolic link, at last to what is named, which is missing;
    - "directory", "special": it is no regular file; "search": a directory on the way may not be searched;
    - "mode": nobody, or not the caller, may execute it; "noexec": the mount forbids it;
    - "interpreter", "loader": a script's first line, or an ELF file, names what is missing; "line end": only
      a carriage return at its end keeps it from being found; "interpreter link", "interpreter mode":
      likewise, if it is a link to what is missing, or may not be executed;
    - "empty", "script" (text without `#!`), "machine" (ELF for another one), "format": the kernel does not
      know the content;
    - "": nothing was found, or the file cannot be read.
    """
    try:
        return _find(path, number)
    except OSError:  # it changes, or its file system fails
        return "", b""


def _find(path: bytes, number: int) -> tuple[Fault, bytes]:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ("link", _end(path)) if os.path.islink(path) else ("absent", path)
    except PermissionError:
        return "search", path
    if stat.S_ISREG(mode) and os.access(path, os.X_OK):
        return _fault_of_program(path, number)
    if stat.S_ISREG(mode):
        return ("noexec" if os.statvfs(path).f_flag & os.ST_NOEXEC else "mode"), path
    return ("directory" if stat.S_ISDIR(mode) else "special"), path


def _fault_of_program(path: bytes, number: int) -> tuple[Fault, bytes]:
    interpreter = interpreter_of(path)
    with open(path, "rb") as file:
        start = file.read(4096)
    if interpreter and (fault := _fault_of_interpreter(interpreter, is_elf=start.startswith(_ELF))):
        return fault
    return _fault_of_content(start) if number == errno.ENOEXEC else ("", b"")


def _fault_of_interpreter(path: bytes, *, is_elf: bool) -> tuple[Fault, bytes] | None:
    if os.path.exists(path):
        return None if os.access(path, os.X_OK) else ("interpreter mode", path)
    if os.path.islink(path):
        return "interpreter link", path
    if path.endswith(b"\r") and os.path.exists(path[:-1]):
        return "line end", path[:-1]
    return ("loader" if is_elf else "interpreter"), path


def _fault_of_content(start: bytes) -> tuple[Fault, bytes]:
    """Judge the first bytes of a file whose interpreter is no problem."""
    if not start:
        return "empty", b""
    if start.startswith(_ELF):
        with open("/proc/self/exe", "rb") as own:
            same = own.read(20)[18:20] == start[18:20]  # e_machine, elf(5)
        return ("format" if same else "machine"), b""
    if start.startswith(b"#!"):
        return "", b""
    return ("format" if b"\0" in start else "script"), b""


def _end(path: bytes) -> bytes:
    """Return the path that a dangling link leads to at last."""
    for _ in range(_MOST_LINKS):
        if not os.path.islink(path):
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
    return path
