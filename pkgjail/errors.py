"""The one error tree: every failure that pkgjail foresees is a `PkgjailError`.

A message reads "cannot do X to PATH: why; do Y". The causes travel as data on the error, so that
a caller can act on them; text is made only in `__str__`. `exit_status` is what the command line
ends with (see the table in README.md).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


def told(error: OSError, otherwise: object = "") -> str:
    """What an error of the system's says, as "FILE: WHY".

    `otherwise` stands for the file where the error names none, or a descriptor by its number.
    """
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    name = os.fsdecode(error.filename) if named else str(otherwise)
    return f"{name}: {error.strerror or error}" if name else error.strerror or str(error)


class Problem(NamedTuple):
    """One thing wrong with an input: where it stands (`file:line`) and what to do about it."""

    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}" if self.origin else self.message


class PkgjailError(Exception):
    """Base of all errors that pkgjail raises on purpose."""

    exit_status: int = 1


class InputError(PkgjailError):
    """An input that cannot be used; `problems` holds everything wrong with it, not the first only."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class PolicyError(InputError):
    """A whitelist or a blacklist that cannot be used."""


class ManifestError(InputError):
    """A manifest that is truncated, reordered, edited by hand, or newer than this pkgjail."""


class ClosureError(InputError):
    """Requirements that nothing installed satisfies; each problem names who asked."""

    exit_status = 1


class QuestionError(PkgjailError):
    """A question that a manifest cannot answer, whatever is in it."""

    exit_status = 2


class DatabaseError(PkgjailError):
    """The host's package database cannot be read, or none is there."""

    exit_status = 3


class JailError(PkgjailError):
    """The jail cannot be set up on this host, or the host no longer matches the manifest."""

    exit_status = 3


class DriftError(JailError):
    """Entries of the manifest differ on the host; `changes` pairs each path with what was found.

    `accepted` changes are reported all the same. `release` has the release that the manifest was made for
    and the host's, where these differ.
    """

    _refused = "cannot enter the jail"
    _advice = (
        "make the manifest again with 'pkgjail resolve' and review what differs, or accept the host as it is "
        "with '--allow-drift'"
    )
    _shown = 20

    def __init__(
        self,
        changes: tuple[tuple[bytes, str], ...],
        *,
        accepted: bool = False,
        release: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(changes)
        self.changes = changes
        self.accepted = accepted
        self.release = release

    def _headline(self) -> str:
        what = "entered all the same" if self.accepted else self._refused
        if self.release is None:
            return f"{what}: the host has changed since the manifest was made"
        made, here = self.release
        return f"{what}: the manifest was made for {made}, and this host is {here}"

    def __str__(self) -> str:
        lines = [f"{self._headline()}:"]
        for path, found in self.changes[: self._shown]:
            lines.append(f"  {_on_one_line(path)} {found}")
        if len(self.changes) > self._shown:
            lines.append(f"  and {len(self.changes) - self._shown} more")
        if not self.accepted:
            lines.append(self._advice)
        return "\n".join(lines)


class ExitDriftError(DriftError):
    """Entries of the manifest changed on the host while a command ran, which ended with `status`."""

    _advice = "the command may have seen some files as they were and others as they are now; run it again"

    def __init__(self, changes: tuple[tuple[bytes, str], ...], status: int) -> None:
        super().__init__(changes)
        self.args = (changes, status)
        self.status = status

    def _headline(self) -> str:
        return f"the host changed while the command ran, which ended with status {self.status}"


class BuildDriftError(DriftError):
    """The same, found while an environment was built of that manifest; it was not built."""

    _refused = "cannot build the environment"
    _advice = "make the manifest again with 'pkgjail resolve', and review what differs"


class SurpriseError(PkgjailError):
    """An environment is not as `build` left it; `surprises` pairs each path with what was found.

    `doing` is what was asked for, with the environment's directory; `advice` what to do about it.
    """

    _shown = 20

    def __init__(self, doing: str, surprises: tuple[tuple[bytes, str], ...], advice: str) -> None:
        super().__init__(doing, surprises, advice)
        self.doing = doing
        self.surprises = surprises
        self.advice = advice

    def __str__(self) -> str:
        lines = [f"cannot {self.doing}: it is not as 'pkgjail build' left it:"]
        for path, found in self.surprises[: self._shown]:
            lines.append(f"  {_on_one_line(path)} {found}")
        if len(self.surprises) > self._shown:
            lines.append(f"  and {len(self.surprises) - self._shown} more")
        return "\n".join([*lines, self.advice])


class CommandError(JailError):
    """The command has no status of its own; `exit_status` is what a shell would say.

    126: it cannot be executed; 127: there is none in the jail; 137: see `OutOfMemoryError`.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class OutOfMemoryError(CommandError):
    """The jail reached its limit of memory, and the kernel killed all that ran in it."""

    def __init__(self) -> None:
        super().__init__(
            "the command was killed: the jail had used all of the memory that its limit allows; "
            "raise --memory, or run fewer jobs at once",
            128 + 9,
        )


def _on_one_line(path: bytes) -> str:
    """A path as it may stand in a list of paths, whatever it holds."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
