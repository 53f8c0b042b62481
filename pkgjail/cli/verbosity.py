"""How much the command line says besides its results: the options -q, -v and --debug of every verb.

Whoever prints looks here, so that no function passes the options on. The process has one command line.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    import argparse
    from typing import TextIO

_QUIET, _USUAL, _VERBOSE = -1, 0, 1
VERBOSITY_OPTIONS = ("-q", "--quiet", "-v", "--verbose", "--debug")
"""The options that `add_verbosity_options` adds."""


class _Said:
    """The options of this process's command line."""

    level = _USUAL
    debug = False


def add_verbosity_options(parser: argparse.ArgumentParser, absent: str) -> None:
    """Add the options; one that is not given is set to nothing if `absent` is `argparse.SUPPRESS`.

    A verb's parser would otherwise undo an option before the verb.
    """
    group = parser.add_argument_group("messages")
    for flags, level, words in (
        (("-q", "--quiet"), _QUIET, "print results and errors only: no progress, notes or warnings"),
        (("-v", "--verbose"), _VERBOSE, "print more: each step's work and time, and the causes of an error"),
    ):
        group.add_argument(
            *flags, dest="verbosity", action="store_const", const=level, default=absent, help=words
        )
    group.add_argument(
        "--debug", action="store_true", default=absent, help="print the traceback of an error, for a report"
    )


def take_verbosity(arguments: argparse.Namespace) -> None:
    """Let the options of parsed arguments apply from now on."""
    _Said.level = getattr(arguments, "verbosity", _USUAL)
    _Said.debug = getattr(arguments, "debug", False)


def is_quiet() -> bool:
    """Return whether only results and errors are printed."""
    return _Said.level == _QUIET


def is_verbose() -> bool:
    """Return whether steps, their times and causes are printed."""
    return _Said.level == _VERBOSE


def wants_traceback() -> bool:
    """Return whether an error's traceback is printed."""
    return _Said.debug


def print_note(text: str, file: TextIO | None = None) -> None:
    """Print what only says that the work is done, such as where a file was written; not with -q.

    `file` is by default standard output.
    """
    if not is_quiet():
        print(text, file=file or sys.stdout)
