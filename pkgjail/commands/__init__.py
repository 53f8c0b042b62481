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
from pkgjail.commands.parser import Parser
from pkgjail.commands.telling import tell_error, wants_json
from pkgjail.errors import CommandError, PkgjailError

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
       is printed
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
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its verbs: all of them, or those that are `wanted`."""
    parser = Parser(
        prog="pkgjail",
        description="Jails that show exactly the files of whitelisted packages, for honest builds.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"pkgjail {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)
    for verb in wanted:
        module = import_module(f"pkgjail.commands.{verb}")
        module.add_parser(verbs)
        verbs.choices[verb].set_defaults(complain=verbs.choices[verb].error)
    return parser, verbs.choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see `pkgjail --help`).

    Raises `SystemExit`, as argparse does, for bad usage, `--help` and `--version`; `KeyboardInterrupt`.
    """
    parsed = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has gone, as with `| head`; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PkgjailError, OSError) as error:
        return _failed(error, parsed)
    return status


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
    parser, _ = make_parsers(arguments[:1] if alone else VERBS)
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
        parsed.complain(f"unrecognized arguments: {' '.join(unknown)}")
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


def _failed(error: PkgjailError | OSError, parsed: argparse.Namespace) -> int:
    """Tell the error; returns the exit status. A command's own comes before the verb's."""
    status: int = getattr(error, "exit_status", 1)
    if not isinstance(error, CommandError):
        status = parsed.failure or status
    with contextlib.suppress(OSError):  # standard error is on a full disk, say: the status tells it
        tell_error(error, status, as_json=wants_json(parsed))
        sys.stderr.flush()
    return status
