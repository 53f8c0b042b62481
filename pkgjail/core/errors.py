"""The errors of pkgjail: every failure that it foresees is a `PkgjailError`.

A message reads "cannot do X to PATH: why; do Y". An error carries its causes as data, so that a caller can
act on them; text is made only in `__str__`. Advice names the library's parameters
(`pkgjail.core.parameters`); the command line shows its flags instead, and chooses the exit status.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.parameters import parameter
from pkgjail.core.text import counted, first_of, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pkgjail.core.entries import Mismatch

    Change = tuple[bytes, Mismatch]


# Errors that mean that a limit of the process is reached; setrlimit(2).
_LIMITS = {
    errno.EAGAIN: "a limit on processes is reached; end some, or raise it (ulimit -u, or a control group's)",
    errno.EFBIG: "a limit forbids this process such a large file; raise it (ulimit -f)",
    errno.EMFILE: "a limit on open files is reached; raise it (ulimit -n)",
}


def limit_at_fault(number: int) -> str:
    """Return which limit of the process an error of fork(2), open(2) or write(2) means, or ""."""
    return _LIMITS.get(number, "")


def os_error_text(error: OSError, otherwise: object = "") -> str:
    """Return an error of the system as "FILE: WHY".

    `otherwise` is used for the file if the error names none, or only a descriptor.
    """
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    name = os.fsdecode(error.filename) if named else str(otherwise)
    limit = "" if named and error.errno == errno.EAGAIN else limit_at_fault(error.errno or 0)
    return ": ".join(filter(None, (name, error.strerror or str(error), limit)))


class Problem(NamedTuple):
    """One thing wrong with an input: its place (`file:line`), and what to do about it."""

    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}" if self.origin else self.message


class PkgjailError(Exception):
    """The base of all errors that pkgjail raises on purpose."""


# Each is a line of its own, which an editor can jump to.
_MOST_PROBLEMS = 200


class InputError(PkgjailError):
    """An input that cannot be used; `problems` has everything that is wrong with it, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(first_of(list(map(str, self.problems)), _MOST_PROBLEMS))


class NamesError(InputError):
    """Something that cannot be done with several `names`, for one reason.

    `doing` says what cannot be done, with "{}" in the place of the name. `cause` is the likely cause if
    there are many names.
    """

    def __init__(self, doing: str, names: Sequence[bytes], why: str, cause: str = "") -> None:
        super().__init__([Problem("", f"cannot {doing.format(printable(name))}: {why}") for name in names])
        self.names = tuple(names)
        self.doing = doing
        self.why = why
        self.cause = cause

    def __str__(self) -> str:
        if len(self.names) == 1:
            lines = [str(self.problems[0])]
        else:
            lines = [f"cannot {self.doing.format(counted(len(self.names), 'name'))}: {self.why}:"]
            lines += [f"  {row}" for row in first_of(list(map(printable, self.names)))]
        return "\n".join([self.cause, *lines] if self.cause else lines)


class PolicyError(InputError):
    """A whitelist or a blacklist that cannot be used."""


class SettingsError(InputError):
    """Settings of the site or of the user that cannot be used; each problem has its file and line."""


class ManifestError(InputError):
    """A manifest that is truncated, reordered, edited by hand, or newer than this pkgjail."""


class ImageError(InputError):
    """An image that is refused as a whole: each problem names a member and says what is wrong with it."""


class ClosureError(InputError):
    """Requirements that no installed package satisfies; each problem names what requires it."""


class UsageError(PkgjailError):
    """Arguments that contradict each other, are incomplete, or are unknown."""


class ArgumentError(UsageError, TypeError):
    """An argument of a wrong type, such as one text where a sequence of texts is wanted."""


class SourceError(UsageError):
    """A manifest that was made from another source: from a host, a directory or an image."""


class NoImageError(UsageError):
    """A store has no image of this name or digest."""


class OutputError(PkgjailError):
    """The result could not be written to standard output; `why` is the system's reason."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"cannot write to standard output: {self.why}"


class UnreadableError(PkgjailError, OSError):
    """A file that was named and cannot be read. It is an `OSError`, too, with its number, reason and file."""

    def __str__(self) -> str:
        return os_error_text(self)


class MissingFileError(UnreadableError, FileNotFoundError):
    """A file that was named and is not there."""


class ForbiddenFileError(UnreadableError, PermissionError):
    """A file that was named and that this process may not read."""


class UnwritableError(PkgjailError, OSError):
    """A file that was named and cannot be written. It is an `OSError`, too, with number, reason and file."""

    def __str__(self) -> str:
        return os_error_text(self)


class MissingDirectoryError(UnwritableError, FileNotFoundError):
    """The directory of a file that was named for writing is not there."""


class ForbiddenTargetError(UnwritableError, PermissionError):
    """A file that was named and that this process may not write."""


def unwritable(error: OSError, path: str) -> UnwritableError:
    """Return the error for a file that the caller named for writing, from the system's."""
    kind: type[UnwritableError] = UnwritableError
    if isinstance(error, FileNotFoundError):
        kind = MissingDirectoryError
    elif isinstance(error, PermissionError):
        kind = ForbiddenTargetError
    return kind(error.errno, error.strerror or str(error), error.filename or path)


def unreadable(error: OSError, path: str | os.PathLike[str]) -> UnreadableError:
    """Return the error for a file that the caller named, from the system's."""
    kind: type[UnreadableError] = UnreadableError
    if isinstance(error, FileNotFoundError):
        kind = MissingFileError
    elif isinstance(error, PermissionError):
        kind = ForbiddenFileError
    return kind(error.errno, error.strerror or str(error), os.fspath(path))


class QuestionError(PkgjailError):
    """A question that no manifest can answer."""


class DatabaseError(PkgjailError):
    """The host's package database cannot be read, or there is none."""


class JailError(PkgjailError):
    """The jail cannot be set up on this host, or the host no longer matches the manifest."""


class DriftError(JailError):
    """Drift: entries of the manifest differ on the host; `changes` pairs each path with the mismatch.

    Drift that the caller `accepted` is reported too. `cause` says how the host differs from the one that the
    manifest was made on; "" if it is the same.
    """

    _refused = "cannot enter the jail"
    _advice = (
        "make the manifest again with 'pkgjail resolve' and review what differs, or accept the host as it is "
        f"with {parameter('allow_drift=True')}"
    )

    def __init__(
        self,
        changes: tuple[Change, ...],
        *,
        accepted: bool = False,
        cause: str = "",
    ) -> None:
        super().__init__(changes)
        self.changes = changes
        self.accepted = accepted
        self.cause = cause

    def _headline(self) -> str:
        what = "entered all the same" if self.accepted else self._refused
        return f"{what}: {self.cause or 'the host has changed since the manifest was made'}"

    def __str__(self) -> str:
        lines = [f"{self._headline()}:"]
        lines += [f"  {row}" for row in first_of(list(_rows(self.changes)))]
        if not self.accepted:
            lines.append(self._advice)
        return "\n".join(lines)


class ExitDriftError(DriftError):
    """Entries of the manifest changed on the host while a command ran, which ended with `status`."""

    _advice = "the command may have seen some files as they were and others as they are now; run it again"

    def __init__(self, changes: tuple[Change, ...], status: int) -> None:
        super().__init__(changes)
        self.args = (changes, status)
        self.status = status

    def _headline(self) -> str:
        return f"the host changed while the command ran, which ended with status {self.status}"


class BuildDriftError(DriftError):
    """Drift that was found while an environment was built from a manifest; it was not built."""

    _refused = "cannot build the environment"
    _advice = "make the manifest again with 'pkgjail resolve', and review what differs"


class ExportDriftError(DriftError):
    """Drift that was found while a manifest's files were exported; nothing was written."""

    _refused = "cannot export the files"
    _advice = "make the manifest again with 'pkgjail resolve', and review what differs"


class ModifiedEnvironmentError(PkgjailError):
    """An environment is not as `build` left it; `changes` pairs each path with the mismatch.

    `attempt` says what was attempted, with the environment's directory; `advice` says what to do.
    """

    _maker = "build"

    def __init__(self, attempt: str, changes: tuple[Change, ...], advice: str) -> None:
        super().__init__(attempt, changes, advice)
        self.attempt = attempt
        self.changes = changes
        self.advice = advice

    def __str__(self) -> str:
        lines = [f"cannot {self.attempt}: it is not as 'pkgjail {self._maker}' left it:"]
        rows = [f"{printable(path)} {words}" for path, words in describe_changes(self.changes)]
        lines += [f"  {row}" for row in first_of(rows)]
        return "\n".join([*lines, self.advice])


class ModifiedImageError(ModifiedEnvironmentError):
    """An image of a store is not as it was imported; `changes` pairs each path with the mismatch."""

    _maker = "image import"


class CommandError(JailError):
    """The command ended without a status of its own; `status` is what a shell would report.

    126: it cannot be executed; 127: it does not exist in the jail; 137: see `OutOfMemoryError`.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class OutOfMemoryError(CommandError):
    """The jail reached its memory limit, and the kernel killed all processes in it."""

    def __init__(self) -> None:
        super().__init__(
            "the command was killed: the jail had used all of the memory that its limit allows; "
            f"raise {parameter('Limits.memory')}, or run fewer jobs at once",
            128 + 9,
        )


def describe_changes(changes: Sequence[Change]) -> list[tuple[bytes, str]]:
    """Return each path with the words for what was found there."""
    from pkgjail.core.entries import describe  # only if there are any to be shown

    return [(path, describe(mismatch)) for path, mismatch in changes]


def _rows(changes: Sequence[Change]) -> Iterator[str]:
    """Yield a row for each change; names missing below a missing directory are counted in its row."""
    gone = {path for path, mismatch in changes if mismatch.what == "missing"}
    below = Counter(top for path in gone if (top := _topmost(path, gone)) != path)
    for path, found in describe_changes(changes):
        if path in gone and _topmost(path, gone) != path:
            continue
        also = f", with {counted(below[path], 'name')} below it" if below[path] else ""
        yield f"{printable(path)} {found}{also}"


def _topmost(path: bytes, gone: Collection[bytes]) -> bytes:
    """Return the topmost directory above `path` that is gone too, or `path` itself."""
    ends = (end for end in range(1, len(path)) if path[end : end + 1] == b"/")
    return next((path[:end] for end in ends if path[:end] in gone), path)
