"""Find the interpreters of scripts: in the first line, by execve(2), and by env(1) in that line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.review.check.findings import Gap
from pkgjail.review.check.links import is_documentation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.paths import Names

_DIRECTORIES = tuple(SEARCH_PATH.encode().split(b":"))
_EXECUTABLE = 0o111
_MODULES = (b".py", b".pm")


def script_gaps(names: Names, scripts: Mapping[bytes, bytes]) -> Iterator[Gap]:
    """Yield the interpreters that `scripts` (path to first line, without `#!`) need and the set lacks.

    A file that is not executable is ignored: a program that was started otherwise reads it. An executable
    module of Python or Perl makes a note, because it is loaded by name. So does an example in documentation.
    A script that is not a command, such as a test's input, makes a note if the packages of the set do not
    require its interpreter.
    """
    for path, line in scripts.items():
        if names.entries[path].mode & _EXECUTABLE:
            for gap in _gaps(names, path, line):
                module = path.endswith(_MODULES) and path.startswith(b"/usr/lib/")
                yield replace(
                    gap,
                    optional=module or is_documentation(path),
                    optional_if_outside=path.rpartition(b"/")[0] not in _DIRECTORIES,
                )


def _gaps(names: Names, path: bytes, line: bytes) -> Iterator[Gap]:
    # The kernel reads up to a NUL. The first blank ends the interpreter; the rest is one argument.
    line = line.partition(b"\0")[0]
    interpreter, _, argument = line.strip(b" \t\r").replace(b"\t", b" ").partition(b" ")
    shown = line.strip().decode("utf-8", "backslashreplace")
    if not interpreter.startswith(b"/"):
        cause = (
            f"the interpreter in '#!{shown}' is not an absolute path, so it depends on the working directory"
        )
        yield Gap(path=path, kind="interpreter", wanted=interpreter, cause=cause, candidates=())
    elif (problem := _execution_problem(names, interpreter)) is not None:
        cause = f"'#!{shown}' names it, and {problem}"
        yield Gap(path=path, kind="interpreter", wanted=interpreter, cause=cause, candidates=(interpreter,))
    elif interpreter.rpartition(b"/")[2] == b"env" and (program := env_program(argument)):
        candidates = (
            (program,) if b"/" in program else tuple(place + b"/" + program for place in _DIRECTORIES)
        )
        if all(_execution_problem(names, candidate) is not None for candidate in candidates):
            cause = f"'#!{shown}' has env(1) start it, and it is nowhere in the jail's PATH"
            yield Gap(path=path, kind="interpreter", wanted=program, cause=cause, candidates=candidates)


def env_program(argument: bytes) -> bytes:
    """Return the program that `env ARGUMENT` starts, b"" for none.

    Without -S, env(1) takes the whole argument for the program's name.
    """
    words = argument.split()
    if words and not words[0].startswith(b"-") and b"=" not in words[0]:
        return argument.strip()
    for word in words:
        # The text of -S may be joined to it, and other short options may come before it.
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


def _execution_problem(names: Names, path: bytes) -> str | None:
    """Return why `path` cannot be executed, or None."""
    found = names.find(path)
    if found.loop:
        return "its links lead round in a circle"
    if found.entry is None:
        return f"{found.place.decode('utf-8', 'backslashreplace')} is not in the set"
    if found.entry.kind != "regular" or not found.entry.mode & _EXECUTABLE:
        return f"{found.place.decode('utf-8', 'backslashreplace')} is not an executable file"
    return None
