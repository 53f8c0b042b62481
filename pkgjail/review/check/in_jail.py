"""What the programs of the set say themselves: run in a jail of it, and listened to."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from pkgjail.core.model import JailOptions, raw_path
from pkgjail.core.programs import UnansweredError, listen
from pkgjail.core.untrusted import opened_below, parsing
from pkgjail.jail.run import default_environment, prepare_jail
from pkgjail.review.check.compiler import compiler_wants
from pkgjail.review.check.findings import Want
from pkgjail.review.check.modules import perl_wants, python_wants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.paths import Names
    from pkgjail.core.programs import Ran
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.check.compiler import Runner
    from pkgjail.review.check.findings import FindingKind

# Seconds for all that is asked, of which loading all modules of Perl takes a few, and bytes of a file.
_LONGEST = 300
_MOST_READ = 1 << 20


def running_wants(manifest: Manifest, names: Names, root: bytes, reporter: Reporter) -> list[Want]:
    """What compilers, Python and Perl of the set want, by their own word.

    Raises:
        JailError: the jail cannot be set up here, or the host has changed.

    """
    inside = Inside(manifest, root)
    wants: list[Want] = []
    for done, (kind, ask) in enumerate(_ASKED):
        reporter.progress("asking", done, len(_ASKED))
        wants += answered(kind, ask(names, inside), inside)
    reporter.progress("asking", len(_ASKED), len(_ASKED))
    return wants


def answered(kind: FindingKind, wants: Iterator[Want], inside: Runner) -> Iterator[Want]:
    """These wants, and one more where a program's answer cannot be had, or understood."""
    try:
        with parsing(UnansweredError):
            yield from wants
    except UnansweredError as error:
        cause = f"asked what it wants, {error}"
        yield Want(path=inside.asked, kind=kind, wanted=b"", cause=cause, places=())


class Inside:
    """Runs programs in a jail of one manifest, without network."""

    def __init__(self, manifest: Manifest, root: bytes) -> None:
        """Prepare the jail. Raises `JailError`."""
        options = JailOptions(network=False, environment=default_environment())
        self._jail = prepare_jail(manifest, options, root=root)
        self._root = root
        self._started: float | None = None
        self.asked = b""

    def run(self, argv: Sequence[str], given: bytes = b"") -> Ran:
        """Run a program with `given` as its standard input; a command that is not there has status 127.

        Raises:
            JailError: the jail cannot be set up here.
            UnansweredError: it writes too much, or does not end; or those before took all the time.

        """
        self.asked = raw_path(argv[0])
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        left = self._started + _LONGEST - now
        if left <= 0:
            raise UnansweredError(f"what is asked of the set does not end within {_LONGEST} s")
        return listen(lambda: self._jail.run(argv), given, seconds=left)

    def read(self, place: bytes) -> bytes:
        """The beginning of a file of the set, as the host has it: all of it, if it is what a person wrote."""
        with opened_below(self._root, self._root.rstrip(b"/") + place) as descriptor:
            return os.read(descriptor, _MOST_READ)


_ASKED: tuple[tuple[FindingKind, Callable[[Names, Runner], Iterator[Want]]], ...] = (
    ("compiler", compiler_wants),
    ("module", python_wants),
    ("module", perl_wants),
)
