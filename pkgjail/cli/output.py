"""Errors, warnings and results: text for people or, with `--json`, one JSON object a line for programs."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.flags import with_flags
from pkgjail.cli.verbosity import is_quiet, is_verbose, wants_traceback
from pkgjail.core.errors import (
    DriftError,
    InputError,
    ModifiedEnvironmentError,
    NamesError,
    UsageError,
    describe_changes,
    os_error_text,
)
from pkgjail.core.text import printable_lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pkgjail.core.errors import PkgjailError

JSON_ERRORS = "print pkgjail's own errors and warnings as JSON, one object a line, on standard error"


def wants_json(arguments: argparse.Namespace) -> bool:
    """Return whether the arguments ask for JSON, by `--json` or `--format json`."""
    return getattr(arguments, "json", False) or getattr(arguments, "format", None) == "json"


def argv_wants_json(words: Sequence[str]) -> bool:
    """Return the same for an unparsed command line; what follows `--` belongs to another program."""
    ours = words[: words.index("--")] if "--" in words else words
    return "--json" in ours or "--format=json" in ours or ("--format", "json") in zip(ours, ours[1:])


def print_warning(message: str, *, as_json: bool) -> None:
    """Print a warning on standard error, unless -q is given; as JSON, an object on a line of its own."""
    if is_quiet():
        return
    message = with_flags(message)
    text = json.dumps({"warning": message}) if as_json else f"pkgjail: warning: {printable_lines(message)}"
    print(text, file=sys.stderr)


def write_result(data: bytes) -> None:
    """Write a result to standard output, unchanged.

    Raises:
        UsageError: standard output is a terminal, and the result has control characters.

    """
    if sys.stdout.isatty() and not _is_safe(data):
        raise UsageError(
            "cannot write to standard output: it is a terminal, and the output has control characters; name "
            "a file with -o, or pipe the output to a program"
        )
    sys.stdout.buffer.write(data)


def _is_safe(data: bytes) -> bool:
    """Return whether these bytes are safe on a terminal: no control characters but newlines and tabs."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return text.translate({ord("\n"): None, ord("\t"): None}).isprintable()


def stream_fault(error: OSError) -> str:
    """Explain why a standard stream could not be read or written."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def print_error(error: PkgjailError | OSError, status: int, *, as_json: bool) -> None:
    """Print on standard error why the command ends with `status`.

    As text, each problem of an input is a line, as compilers print them, so that editors find the
    place. As JSON, the object has `error` (its class), `message`, `exit_status` and, if there are any,
    all `problems` (`origin`, `message`) with a likely `cause`, or all `changes` (`path`, `found`). With
    --debug, the traceback comes first; with -v, text has the errors that led to this one behind it.
    """
    if wants_traceback():
        import traceback

        lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        print(printable_lines(lines.rstrip()), file=sys.stderr)
    if as_json:
        facts = {"error": type(error).__name__, "message": _message(error), "exit_status": status}
        print(json.dumps({**facts, **_causes(error)}), file=sys.stderr)
    else:
        text = printable_lines(_message(error))
        print(text if isinstance(error, InputError) else f"pkgjail: {text}", file=sys.stderr)
        for cause in _led_to(error) if is_verbose() else ():
            print(f"  because of {type(cause).__name__}: {printable_lines(str(cause))}", file=sys.stderr)


def _led_to(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that led to this one, the nearest first."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _message(error: PkgjailError | OSError) -> str:
    return os_error_text(error) if isinstance(error, OSError) else with_flags(str(error))


def _causes(error: PkgjailError | OSError) -> dict[str, Any]:
    """Return the causes that an error carries, as JSON has them."""
    if isinstance(error, InputError):
        cause = {"cause": with_flags(error.cause)} if isinstance(error, NamesError) and error.cause else {}
        problems = [{"origin": origin, "message": with_flags(text)} for origin, text in error.problems]
        return {"problems": problems, **cause}
    if isinstance(error, (DriftError, ModifiedEnvironmentError)):
        from pkgjail.core.text import text_path

        changes = describe_changes(error.changes)
        return {"changes": [{"path": text_path(path), "found": found} for path, found in changes]}
    return {}
