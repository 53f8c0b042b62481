"""What goes wrong, for people in words or, with `--json`, for programs: one JSON object a line."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING

from pkgjail.core.errors import DriftError, InputError, NamesError, SurpriseError, UsageError, told
from pkgjail.core.text import shown_lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from pkgjail.core.errors import PkgjailError

JSON_ERRORS = "print pkgjail's own errors and warnings as JSON, one object a line, on standard error"


def wants_json(arguments: argparse.Namespace) -> bool:
    """Whether these arguments ask for JSON, by `--json` or as a format."""
    return getattr(arguments, "json", False) or getattr(arguments, "format", None) == "json"


def words_want_json(words: Sequence[str]) -> bool:
    """The same of a command line that cannot be parsed; what follows `--` is another program's."""
    ours = words[: words.index("--")] if "--" in words else words
    return "--json" in ours or "--format=json" in ours or ("--format", "json") in zip(ours, ours[1:])


def tell_warning(message: str, *, as_json: bool) -> None:
    """Print a warning on standard error, in JSON as an object on a line of its own."""
    text = json.dumps({"warning": message}) if as_json else f"pkgjail: warning: {shown_lines(message)}"
    print(text, file=sys.stderr)


def write_result(data: bytes) -> None:
    """Write what was asked for to standard output, byte by byte.

    Raises:
        UsageError: it is for a program, and would act on the terminal that standard output is.

    """
    if sys.stdout.isatty() and not _is_tame(data):
        raise UsageError(
            "cannot write to standard output: it is a terminal, and there are control characters in what was "
            "asked for; name a file with -o, or pipe it to a program"
        )
    sys.stdout.buffer.write(data)


def _is_tame(data: bytes) -> bool:
    """Whether a terminal shows these bytes as they are: no control characters but line ends and tabs."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return text.translate({ord("\n"): None, ord("\t"): None}).isprintable()


def explain_loss(error: OSError) -> str:
    """Why a standard stream could not be read or written."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def tell_error(error: PkgjailError | OSError, status: int, *, as_json: bool) -> None:
    """Print why the command ends with `status`, on standard error.

    In words an input's problems are a line each, as compilers print them, so that editors find the
    place. In JSON it is `error` (its class), `message`, `exit_status` and, where there are any,
    `problems` (`origin`, `message`), all of them, with a likely `cause`, or `changes` (`path`, `found`).
    """
    if as_json:
        facts = {"error": type(error).__name__, "message": _words(error), "exit_status": status}
        print(json.dumps({**facts, **_parts(error)}), file=sys.stderr)
    else:
        words = shown_lines(_words(error))
        print(words if isinstance(error, InputError) else f"pkgjail: {words}", file=sys.stderr)


def _words(error: PkgjailError | OSError) -> str:
    return told(error) if isinstance(error, OSError) else str(error)


def _parts(error: PkgjailError | OSError) -> dict[str, Any]:
    """What is wrong, piece by piece."""
    if isinstance(error, InputError):
        cause = {"cause": error.cause} if isinstance(error, NamesError) and error.cause else {}
        return {"problems": [problem._asdict() for problem in error.problems], **cause}
    if isinstance(error, (DriftError, SurpriseError)):
        from pkgjail.core.model import text_path

        changes = error.changes if isinstance(error, DriftError) else error.surprises
        return {"changes": [{"path": text_path(path), "found": found} for path, found in changes]}
    return {}
