"""Parse the command line and dispatch to a verb.

A verb's module (`pkgjail.cli.verbs`) has `add_parser` (arguments and help) and `run` (the work). It imports
slow modules inside `run`, so that `pkgjail run` and `pkgjail shell` start quickly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING

from pkgjail import __version__
from pkgjail.cli.exit_status import exit_status
from pkgjail.cli.output import argv_wants_json, print_error, print_warning, stream_fault, wants_json
from pkgjail.cli.parser import PACKAGES_ALONE, PROJECT, WHOLE_IMAGE, Parser
from pkgjail.cli.streams import is_reader_gone, output_fault
from pkgjail.cli.verbosity import VERBOSITY_OPTIONS, is_verbose, take_verbosity
from pkgjail.core.errors import CommandError, OutputError, PkgjailError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

VERBS = (
    "init",
    "resolve",
    "lock",
    "show",
    "browse",
    "why",
    "diff",
    "graph",
    "check",
    "verify",
    "report",
    "audit",
    "learn",
    "minimise",
    "run",
    "shell",
    "build",
    "enter",
    "remove",
    "mounts",
    "doctor",
    "stages",
    "backends",
    "image",
    "cache",
    "export",
    "completion",
    "man",
    "help",
)

RENAMED = {"plan": "mounts"}
"""Commands that had other names, which still work: a plan is a package plan, and nothing else."""

_TAKE_COMMANDS = ("run", "enter")

_EPILOG = """\
exit status:
  0    done
  1    the work could not be done (unmet requirements, a file that cannot be
       read or written); check: findings; verify: differences
  2    bad usage or bad input (whitelist, blacklist, manifest); every problem
       is printed, up to 200
  3    this host has no package database, has changed since the manifest was
       made, or cannot make a jail
  130  interrupted
'run', 'shell' and 'enter' exit with the status of the command in the jail
(128 + n after signal n), or with
  125  pkgjail failed: bad usage, bad input, no package database, no user
       namespaces, or the host has changed since the manifest was made
  126  the command cannot be executed
  127  there is no such command in the jail
  137  the jail was killed, having reached its --memory (or by signal 9)

start here:
  pkgjail resolve spack -o spack.manifest.jsonl
  pkgjail show spack.manifest.jsonl
  pkgjail run --cwd spack.manifest.jsonl -- gcc hello.c
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    return make_parsers()[0]


def make_parsers(
    wanted: Sequence[str] = VERBS,
) -> tuple[Parser, Mapping[str, Parser]]:
    """Return the parser of the command line and those of its verbs: all verbs, or those `wanted`.

    A verb that has commands of its own is followed by those, each with the verb before its name.
    """
    parser = Parser(
        prog="pkgjail",
        description="Jails that show exactly the files of whitelisted packages, for honest builds.",
        epilog=_EPILOG,
    )
    parser.add_argument("-V", "--version", action="version", version=f"pkgjail {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="verb", required=True)
    for verb in wanted:
        module = import_module(f"pkgjail.cli.verbs.{verb}")
        module.add_parser(verbs)
    found: dict[str, Parser] = {}
    for verb, each in verbs.choices.items():
        found[verb] = each
        found.update({f"{verb} {name}": inner for name, inner in each.inner.items()})
    for each in found.values():
        each.set_defaults(refuse_unknown=each.refuse_unknown)
    return parser, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (see `pkgjail --help`).

    Raises:
        SystemExit: bad usage, `--help` or `--version`, as from argparse.
        KeyboardInterrupt: the user interrupted the work.

    """
    parsed = _parse(sys.argv[1:] if arguments is None else arguments)
    began = time.monotonic()
    try:
        status: int = parsed.run(parsed)
    except (PkgjailError, OSError) as error:
        return _failed(error, parsed)
    except Exception as error:  # noqa: BLE001 - whatever it is, a user gets one line
        return _failed(_unexpected(error), parsed)
    finally:
        for descriptor in getattr(parsed, "locks", ()):
            os.close(descriptor)
    status = _done(status, parsed)
    if is_verbose() and not wants_json(parsed):
        with contextlib.suppress(OSError):
            print(f"pkgjail: {parsed.verb}: done in {time.monotonic() - began:.2f} s", file=sys.stderr)
    return status


class InternalError(PkgjailError):
    """An error that pkgjail does not foresee: a fault of its own."""


def _unexpected(error: Exception) -> InternalError:
    """Return an unexpected error as one line that says where it happened and how to report it."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    what = " ".join(traceback.format_exception_only(type(error), error)[-1].split())
    found = InternalError(
        f"an unexpected error at {place}: {what}; this is a fault of pkgjail {__version__}: report it with "
        "what the same command prints with --debug"
    )
    found.__cause__ = error
    return found


def report_changes(arguments: Sequence[str], status: int) -> int:
    """Report host files that changed while the command of this command line ran; return the exit status."""
    parsed = _parse(arguments)
    try:
        parsed.report_changes(parsed, status)
    except (PkgjailError, OSError) as error:
        return _failed(error, parsed)
    return status


def report_failure(error: OSError, arguments: Sequence[str]) -> int:
    """Report an error that stopped this command line outside `main`; return the exit status."""
    return _failed(error, _parse(arguments))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; without any, print the help and exit."""
    given = arguments = _verb_first(arguments)
    arguments = _as_called_now(arguments)
    completing = "_ARGCOMPLETE" in os.environ
    # Making the parsers of all verbs takes longer than the work of some verbs.
    alone = not completing and bool(arguments) and arguments[0] in VERBS
    parser, verbs = make_parsers(arguments[:1] if alone else VERBS)
    for each in (parser, *verbs.values()):
        each.as_json = argv_wants_json(arguments)
    if completing:
        import argcomplete  # pyright: ignore[reportMissingImports]  (perhaps the system's)

        from pkgjail.cli.completers import attach

        attach((parser, *verbs.values()), VERBS)
        argcomplete.autocomplete(parser)
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    parsed, unknown = parser.parse_known_args(_explicit(with_place_of_manifest(arguments, verbs)))
    parsed.words = arguments
    take_verbosity(parsed)
    for old, new in zip(given, arguments):
        if old != new:
            print_warning(f"the command {old!r} is now called {new!r}", as_json=wants_json(parsed))
    if unknown:
        # The verb's own parser knows its usage and its exit status.
        parsed.refuse_unknown(unknown)
    return parsed


def _verb_first(words: Sequence[str]) -> Sequence[str]:
    """Put the options that stand before the verb behind it, where they mean the same.

    What a command line means depends on its verb, and on what stands before `--`.
    """
    place = next((number for number, word in enumerate(words) if word not in VERBOSITY_OPTIONS), 0)
    return [words[place], *words[:place], *words[place + 1 :]] if place else words


def _as_called_now(arguments: Sequence[str]) -> Sequence[str]:
    """Replace a command's former name, which may stand behind options such as -q."""
    place = next((number for number, word in enumerate(arguments) if word[:1] != "-"), None)
    if place is None or arguments[place] not in RENAMED:
        return arguments
    return [*arguments[:place], RENAMED[arguments[place]], *arguments[place + 1 :]]


def with_place_of_manifest(words: Sequence[str], verbs: Mapping[str, Parser]) -> Sequence[str]:
    """Add the argument that stands for the manifest, if `run` or `shell` has none.

    It is for the packages or, in `run`, for the source that are named, and otherwise for the project here.

    argparse would take the command for the manifest.
    """
    if words[0] not in {"run", "shell"} or ("--" not in words and words[0] == "run"):
        return words
    end = words.index("--") if "--" in words else len(words)
    ours = words[1:end]
    given = {word.partition("=")[0] for word in ours}
    if given & {"-h", "--help"} or verbs[words[0]].has_positional(ours):
        return words
    place = WHOLE_IMAGE if words[0] == "run" and "--source" in given else PROJECT
    place = PACKAGES_ALONE if "--package" in given else place
    return [*words[:end], place, *words[end:]]


def _explicit(arguments: Sequence[str]) -> list[str]:
    """Write a bare `--verify` as `--verify=all`: argparse would take the next word for its value.

    Only options before `--` can be pkgjail's. Without `--`, all are, unless the verb takes a command.
    """
    words = list(arguments)
    end = len(words)
    if "--" in words:
        end = words.index("--")
    elif words[0] in _TAKE_COMMANDS:
        end = 0
    return ["--verify=all" if word == "--verify" else word for word in words[:end]] + words[end:]


def _done(status: int, parsed: argparse.Namespace) -> int:
    """Return the status of finished work: a failure if its result is output that could not be written.

    A reader that closes the pipe early, such as `head`, is no failure.
    """
    fault = output_fault()
    if fault is None or is_reader_gone(fault):
        return status
    error = OutputError(stream_fault(fault))
    if parsed.result_is_output(parsed):
        return _failed(error, parsed)
    with contextlib.suppress(OSError):
        print_warning(f"{error}; the work is done", as_json=wants_json(parsed))
    return status


def _is_working_directory_gone() -> bool:
    try:
        os.getcwdb()
    except FileNotFoundError:
        return True
    return False


def _failed(error: PkgjailError | OSError, parsed: argparse.Namespace) -> int:
    """Print the error; return the exit status. The command's own status takes precedence over the verb's."""
    status = exit_status(error)
    if os.strerror(errno.ENOENT) in str(error) and _is_working_directory_gone():
        error = PkgjailError("cannot find the working directory: it was deleted; change to another one (cd)")
    if not isinstance(error, CommandError):
        status = parsed.failure or status
    with contextlib.suppress(
        OSError
    ):  # standard error may be on a full disk; the status still reports the failure
        print_error(error, status, as_json=wants_json(parsed))
        sys.stderr.flush()
    return status
