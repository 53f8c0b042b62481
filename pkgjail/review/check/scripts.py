"""Interpreters of scripts: execve(2)'s first lines, and env(1) in them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names

_SEARCH = (b"/usr/local/sbin", b"/usr/local/bin", b"/usr/sbin", b"/usr/bin", b"/sbin", b"/bin")
_EXECUTABLE = 0o111
_MODULES = (b".py", b".pm")


def script_wants(names: Names, scripts: Mapping[bytes, bytes]) -> Iterator[Want]:
    """What the executable ones of `scripts` (path to first line, without `#!`) want and do not get.

    One that is not executable is read by a program that was started for it, whatever it begins with.
    A module of Python's or Perl's that is executable besides makes a note, since it is loaded by name.
    """
    for path, line in scripts.items():
        if names.entries[path].mode & _EXECUTABLE:
            for want in _wants(names, path, line):
                yield replace(want, optional=path.endswith(_MODULES) and path.startswith(b"/usr/lib/"))


def _wants(names: Names, path: bytes, line: bytes) -> Iterator[Want]:
    # The kernel cuts at the first blank or NUL, and hands over what is behind a blank as one word.
    line = line.partition(b"\0")[0]
    interpreter, _, rest = line.strip(b" \t\r").replace(b"\t", b" ").partition(b" ")
    shown = line.strip().decode("utf-8", "backslashreplace")
    if not interpreter.startswith(b"/"):
        cause = f"the interpreter in '#!{shown}' is no absolute path, so it depends on where one is"
        yield Want(path=path, kind="interpreter", wanted=interpreter, cause=cause, places=())
    elif (why := _lack(names, interpreter)) is not None:
        cause = f"'#!{shown}' asks for it, and {why}"
        yield Want(path=path, kind="interpreter", wanted=interpreter, cause=cause, places=(interpreter,))
    elif interpreter.rpartition(b"/")[2] == b"env" and (name := env_program(rest)):
        places = (name,) if b"/" in name else tuple(place + b"/" + name for place in _SEARCH)
        if all(_lack(names, place) is not None for place in places):
            cause = f"'#!{shown}' asks env(1) for it, and it is nowhere in the jail's PATH"
            yield Want(path=path, kind="interpreter", wanted=name, cause=cause, places=places)


def env_program(arguments: bytes) -> bytes:
    """The program that `env ARGUMENTS` starts, b"" for none; without -S all is one word to env(1)."""
    words = arguments.split()
    if words and not words[0].startswith(b"-") and b"=" not in words[0]:
        return arguments.strip()
    for word in words:
        # -S may have its text joined on, and other short options before it.
        text = (
            word[2:]
            if word.startswith(b"-S")
            else word.partition(b"=")[2]
            if word.startswith(b"--split")
            else word
        )
        if text and not text.startswith(b"-") and b"=" not in text:
            return text
    return b""


def _lack(names: Names, path: bytes) -> str | None:
    """Why `path` cannot be executed, or None."""
    found = names.find(path)
    if found.loop:
        return "its links go round in a circle"
    if found.entry is None:
        return f"{found.place.decode('utf-8', 'backslashreplace')} is not in the set"
    if found.entry.kind != "regular" or not found.entry.mode & _EXECUTABLE:
        return f"{found.place.decode('utf-8', 'backslashreplace')} is no executable file"
    return None
