"""The command line: one module a verb, each a thin shell over a public function.

A verb's module has `add_parser` (its arguments and help) and `run` (its work), and imports what is
slow to import inside `run`, so that `run` and `shell` start quickly.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from pkgjail import __version__
from pkgjail.cli.output import explain_loss, tell_error, tell_warning, wants_json, words_want_json
from pkgjail.cli.parser import Parser
from pkgjail.cli.streams import is_reader_gone, lost_output
from pkgjail.core.errors import CommandError, OutputError, PkgjailError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

VERBS = (
    "resolve",
    "show",
    "why",
    "diff",
    "graph",
    "check",
    "verify",
    "report",
    "run",
    "shell",
    "build",
    "enter",
    "remove",
    "plan",
    "backends",
    "cache",
    "export",
    "completion",
    "man",
)

_TAKE_COMMANDS = ("run", "enter")

_EPILOG = """\
exit status:
  0    done
  1    the work could not be done (unmet requirements, a file that cannot be
       read or written); check: there are findings; verify: differences
  2    bad usage or bad input (whitelist, blacklist, manifest); every problem
       is printed, up to 200
  3    this host cannot (no package database)
  130  interrupted
'run', 'shell' and 'enter' end as the command in the jail does (128 + n after
signal n), or with
  125  whatever pkgjail could not do: bad usage, bad input, no package
       database, no user namespaces, the host has changed since the manifest
       was made
  126  the command cannot be executed
  127  there is no such command in the jail
  137  the jail was killed, having reached its --memory (or by signal 9)

start here:
  pkgjail resolve spack -o spack.manifest.jsonl
  pkgjail show spack.manifest.jsonl
  pkgjail run --cwd spack.manifest.jsonl -- gcc hello.c
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    return make_parsers()[0]


def make_parsers(
    wanted: Sequence[str] = VERBS,
) -> tuple[Parser, Mapping[str, Parser]]:
    """The parser of the command line, and those of its verbs: all of them, or those that are `wanted`."""
    parser = Parser(
        prog="pkgjail",
        description="Jails that show exactly the files of whitelisted packages, for honest builds.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"pkgjail {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)
    for verb in wanted:
        module = import_module(f"pkgjail.cli.verbs.{verb}")
        module.add_parser(verbs)
        verbs.choices[verb].set_defaults(refuse_unknown=verbs.choices[verb].refuse_unknown)
    return parser, verbs.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see `pkgjail --help`).

    Raises `SystemExit`, as argparse does, for bad usage, `--help` and `--version`; `KeyboardInterrupt`.
    """
    parsed = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = parsed.run(parsed)
    except (PkgjailError, OSError) as error:
        return _failed(error, parsed)
    return _done(status, parsed)


def report_changes(arguments: Sequence[str], status: int) -> int:
    """Report what changed on the host while the command of these words ran; returns the exit status."""
    parsed = _parse(arguments)
    try:
        parsed.report_changes(parsed, status)
    except (PkgjailError, OSError) as error:
        return _failed(error, parsed)
    return status


def tell_failure(error: OSError, arguments: Sequence[str]) -> int:
    """Tell what stopped these words on another way than `main`; returns the exit status."""
    return _failed(error, _parse(arguments))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed arguments. None at all ask for help."""
    completing = "_ARGCOMPLETE" in os.environ
    # The parsers of the other verbs take longer to make than some verbs take to work.
    alone = not completing and bool(arguments) and arguments[0] in VERBS
    parser, verbs = make_parsers(arguments[:1] if alone else VERBS)
    for each in (parser, *verbs.values()):
        each.as_json = words_want_json(arguments)
    if completing:
        import argcomplete  # pyright: ignore[reportMissingImports]  (perhaps the system's)

        argcomplete.autocomplete(parser)
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    parsed, unknown = parser.parse_known_args(_explicit(arguments))
    parsed.words = arguments
    if unknown:
        # By the verb's own parser, which knows its usage and its exit status.
        parsed.refuse_unknown(unknown)
    return parsed


def _explicit(arguments: Sequence[str]) -> list[str]:
    """`--verify` alone written out, for argparse would take the next word for its value.

    Only what is before `--` can be ours, or, where there is none, what belongs to a verb that takes no
    command.
    """
    words = list(arguments)
    end = len(words)
    if "--" in words:
        end = words.index("--")
    elif words[0] in _TAKE_COMMANDS:
        end = 0
    return ["--verify=all" if word == "--verify" else word for word in words[:end]] + words[end:]


def _done(status: int, parsed: argparse.Namespace) -> int:
    """The status of work that is done; a failure where its result is output that could not be written.

    A reader that has had enough, as `head`, is no failure.
    """
    lost = lost_output()
    if lost is None or is_reader_gone(lost):
        return status
    error = OutputError(explain_loss(lost))
    if parsed.result_is_output(parsed):
        return _failed(error, parsed)
    with contextlib.suppress(OSError):
        tell_warning(f"{error}; the work is done", as_json=wants_json(parsed))
    return status


def _failed(error: PkgjailError | OSError, parsed: argparse.Namespace) -> int:
    """Tell the error; returns the exit status. A command's own comes before the verb's."""
    status: int = getattr(error, "exit_status", 1)
    if not isinstance(error, CommandError):
        status = parsed.failure or status
    with contextlib.suppress(OSError):  # standard error is on a full disk, say: the status tells it
        tell_error(error, status, as_json=wants_json(parsed))
        sys.stderr.flush()
    return status
