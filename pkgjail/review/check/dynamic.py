"""The dynamic part of a check: run the compilers and other languages of the set in a jail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.errors import JailError
from pkgjail.core.paths import Names
from pkgjail.core.programs import UnansweredError
from pkgjail.core.untrusted import parsing
from pkgjail.review.check.comparison import whole_host
from pkgjail.review.check.compiler import compiler_gaps
from pkgjail.review.check.findings import Gap
from pkgjail.review.check.languages import language_gaps
from pkgjail.review.check.modules import perl_gaps, python_gaps
from pkgjail.review.check.runner import JailRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter
    from pkgjail.review.check.findings import FindingKind
    from pkgjail.review.check.runner import Runner

    _Search = Callable[[Names, Runner], Iterator[Gap]]

_CHECKS: tuple[tuple[FindingKind, _Search], ...] = (
    ("compiler", compiler_gaps),
    ("module", python_gaps),
    ("module", perl_gaps),
    ("module", language_gaps),
)


def dynamic_gaps(manifest: Manifest, names: Names, root: bytes, reporter: Reporter) -> list[Gap]:
    """Return what compilers and other languages of the set need and the set lacks.

    Raises:
        JailError: the jail cannot be set up here, or the host has changed.

    """
    runner = JailRunner(manifest, root)
    gaps: list[Gap] = []
    for done, (kind, check) in enumerate(_CHECKS):
        reporter.progress("running programs", done, len(_CHECKS))
        found = list(catch_unanswered(kind, check(names, runner), runner))
        if any(_is_of_a_module(gap) for gap in found):
            found = _excuse(found, _gaps_of_the_host(kind, check, manifest, root))
        gaps += found
    reporter.progress("running programs", len(_CHECKS), len(_CHECKS))
    return gaps


def _is_of_a_module(gap: Gap) -> bool:
    """Return whether a module fails, and not because another one that is named is lacking."""
    return gap.kind == "module" and not gap.only_if_attributed


def _gaps_of_the_host(kind: FindingKind, check: _Search, manifest: Manifest, root: bytes) -> list[Gap]:
    """Return what the same programs lack in a jail with all files of the host."""
    try:
        whole = whole_host(manifest, root)
        runner = JailRunner(whole, root)
        return list(catch_unanswered(kind, check(Names(whole.files), runner), runner))
    except (JailError, OSError):
        return []  # such as a host that changes meanwhile; then nothing is excused


def _excuse(gaps: Sequence[Gap], gaps_of_the_host: Sequence[Gap]) -> list[Gap]:
    """Return `gaps`; a module that fails in the same way with all of the host's files makes a note."""
    same = {(gap.path, gap.wanted, gap.cause) for gap in gaps_of_the_host if _is_of_a_module(gap)}
    return [
        replace(gap, optional=True, cause=f"{gap.cause}, with all files of the host too")
        if (gap.path, gap.wanted, gap.cause) in same
        else gap
        for gap in gaps
    ]


def catch_unanswered(kind: FindingKind, gaps: Iterator[Gap], runner: Runner) -> Iterator[Gap]:
    """Yield `gaps`, and one more if a program gives no answer, or one that cannot be understood."""
    try:
        with parsing(UnansweredError):
            yield from gaps
    except UnansweredError as error:
        cause = f"what it needs is not known: {error}"
        yield Gap(path=runner.last_program, kind=kind, wanted=b"", cause=cause, candidates=())
