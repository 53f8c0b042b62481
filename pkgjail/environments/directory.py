"""The directory of an environment, opened by descriptor: no link is followed and no mount is crossed.

Every directory below it is opened by openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
RESOLVE_NO_XDEV: the kernel refuses a symbolic link, a mount, and a way out in any component.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from pkgjail.core.errors import InputError, Problem, os_error_text
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import MANIFEST, read_descriptor, refuse_irregular
from pkgjail.environments.record import PHASE_FILES, parse_journal, parse_record
from pkgjail.sandbox import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.environments.record import Header, Phase, Record

Verb = Literal["build", "enter", "remove"]
"""The name of what is being done with an environment, for messages."""

_BENEATH = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# What these errors of openat2(2) mean here.
_OPEN_ERRORS = {
    errno.EXDEV: "it is a mount point; unmount it, or name a directory in it",
    errno.ENOTDIR: "it is not a directory",
}
_INTERRUPTED = {"building": "its build was interrupted", "removing": "its removal was interrupted"}


class EnvironmentDirectory(NamedTuple):
    """The open directory of an environment.

    `parent` is the descriptor of its parent, `name` its name there, `descriptor` its own, and `path` its
    real path.
    """

    parent: int
    name: bytes
    descriptor: int
    path: bytes

    def open_directory(self, path: bytes) -> int:
        """Return a descriptor of the directory `path` (relative; empty for the environment's own).

        Raises:
            OSError: `ELOOP` for a symbolic link on the way, `EXDEV` for a mount, and others.

        """
        return sc.openat2(self.descriptor, path or b".", _DIRECTORY, _BENEATH)

    def open_path(self, path: bytes) -> int:
        """As `open_directory`, by O_PATH, for a directory that may not be readable."""
        return sc.openat2(self.descriptor, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, _BENEATH)


class State(NamedTuple):
    """The phase of an environment, and its record.

    `record` is None if a build was interrupted before it created anything.
    """

    phase: Phase
    record: Record | None


def parent_and_name(directory: bytes) -> tuple[bytes, bytes]:
    """Return the real path of a directory's parent, and its name there; the directory need not exist.

    Raises:
        InputError: it has no name of its own, as `/` and `..`.

    """
    parent, name = os.path.split(directory.rstrip(b"/"))
    if name in (b"", b".", b".."):
        raise InputError([Problem("", f"cannot use {text_path(directory)}: name the directory itself")])
    return os.path.realpath(parent or b"."), name


@contextlib.contextmanager
def open_environment(directory: bytes, verb: Verb) -> Iterator[EnvironmentDirectory]:
    """Open the directory of an environment.

    Raises:
        InputError: there is no such directory, or it is a symbolic link or a mount point.

    """
    parent, name = parent_and_name(directory)
    path = parent.rstrip(b"/") + b"/" + name
    try:
        above = os.open(parent, _DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(verb, path, error) from error
    try:
        try:
            descriptor = sc.openat2(above, name, _DIRECTORY, _BENEATH)
        except OSError as error:
            raise _cannot_open(verb, path, error) from error
        try:
            yield EnvironmentDirectory(above, name, descriptor, path)
        finally:
            close(descriptor)
    finally:
        close(above)


def is_environment(directory: bytes) -> bool:
    """Return whether a directory seems to be an environment: it has one of the files that mark its phase."""
    return any(os.path.lexists(os.path.join(directory, file)) for file in PHASE_FILES.values())


def close(descriptor: int) -> None:
    """Close a descriptor by which nothing was written, so that an error of close(2) loses nothing."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _cannot_open(verb: Verb, path: bytes, error: OSError) -> InputError:
    if os.path.islink(path):
        why: str | None = "it is a symbolic link; name the directory itself"
    else:
        why = _OPEN_ERRORS.get(error.errno or 0, error.strerror)
    return InputError([Problem("", f"cannot {verb} {text_path(path)}: {why}")])


def read_state(environment: EnvironmentDirectory, verb: Verb) -> State:
    """Return the phase of the environment, and its record.

    Raises:
        InputError: the directory is not an environment, or its record cannot be read.

    """
    for phase, file in PHASE_FILES.items():
        data = read_file(environment, file)
        if data is None:
            continue
        name = text_path(environment.path + b"/" + file)
        record = parse_journal(data, name) if phase == "building" else parse_record(data, name)
        if record is not None and record.header.inode != os.fstat(environment.descriptor).st_ino:
            raise _refusal(
                verb,
                environment,
                "it is a copy of an environment, and not the one that was built; build one with "
                "'pkgjail build'",
            )
        return State(phase, record)
    raise _refusal(verb, environment, "it is not an environment; build one with 'pkgjail build MANIFEST DIR'")


def _refusal(verb: Verb, environment: EnvironmentDirectory, why: str) -> InputError:
    return InputError([Problem("", f"cannot {verb} {text_path(environment.path)}: {why}")])


def read_file(environment: EnvironmentDirectory, name: bytes) -> bytes | None:
    """Return the content of a file in the environment's own directory; None if there is none.

    Raises:
        InputError: it is not a regular file, or larger than any that pkgjail writes.

    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=environment.descriptor)
    except FileNotFoundError:
        return None
    path = environment.path + b"/" + name
    try:
        refuse_irregular(os.fstat(descriptor), path)
        return read_descriptor(descriptor, path, MANIFEST)
    except OSError as error:
        raise InputError(
            [Problem("", f"cannot read a file of an environment: {os_error_text(error)}")]
        ) from error
    finally:
        os.close(descriptor)


def read_record(environment: EnvironmentDirectory) -> Record:
    """Return the record of an environment that can be entered.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted.

    """
    state = read_state(environment, "enter")
    if state.record is None or state.phase in _INTERRUPTED:
        raise _refusal(
            "enter",
            environment,
            f"{_INTERRUPTED[state.phase]}; remove what is left with "
            f"'pkgjail remove {text_path(environment.path)}', and build it again",
        )
    return state.record


def read_header(directory: bytes) -> Header:
    """Return the header of an environment's record, with the options that it was built with.

    Raises:
        InputError: there is no environment, or its build or removal was interrupted.

    """
    with open_environment(directory, "enter") as environment:
        return read_record(environment).header
