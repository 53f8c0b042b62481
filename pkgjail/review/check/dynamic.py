"""The dynamic part of a check: run the compilers, Python and Perl of the set in a jail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.programs import UnansweredError
from pkgjail.core.untrusted import parsing
from pkgjail.review.check.compiler import compiler_gaps
from pkgjail.review.check.findings import Gap
from pkgjail.review.check.modules import perl_gaps, python_gaps
from pkgjail.review.check.runner import JailRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.core.paths import Names
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.check.findings import FindingKind
    from pkgjail.review.check.runner import Runner

_CHECKS: tuple[tuple[FindingKind, Callable[[Names, Runner], Iterator[Gap]]], ...] = (
    ("compiler", compiler_gaps),
    ("module", python_gaps),
    ("module", perl_gaps),
)


def dynamic_gaps(manifest: Manifest, names: Names, root: bytes, reporter: Reporter) -> list[Gap]:
    """Return what compilers, Python and Perl of the set need and the set lacks.

    Raises:
        JailError: the jail cannot be set up here, or the host has changed.

    """
    runner = JailRunner(manifest, root)
    gaps: list[Gap] = []
    for done, (kind, check) in enumerate(_CHECKS):
        reporter.progress("running programs", done, len(_CHECKS))
        gaps += catch_unanswered(kind, check(names, runner), runner)
    reporter.progress("running programs", len(_CHECKS), len(_CHECKS))
    return gaps


def catch_unanswered(kind: FindingKind, gaps: Iterator[Gap], runner: Runner) -> Iterator[Gap]:
    """Yield `gaps`, and one more if a program gives no answer, or one that cannot be understood."""
    try:
        with parsing(UnansweredError):
            yield from gaps
    except UnansweredError as error:
        cause = f"what it needs is not known: {error}"
        yield Gap(path=runner.last_program, kind=kind, wanted=b"", cause=cause, candidates=())
