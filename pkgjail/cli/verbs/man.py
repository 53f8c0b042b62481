"""`pkgjail man`: print the manual page, made from the texts of `--help`."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Print pkgjail's manual page, made from the texts of --help.
"""
_EPILOG = """\
examples:
  pkgjail man | man -l -                                    read it
  pkgjail man > /usr/local/share/man/man1/pkgjail.1         install it
"""
_WIDTH = 78


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("man", help="print the manual page", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print the page in a JSON object")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the page."""
    page = "\n".join(_page())
    print(json.dumps({"page": page}) if arguments.json else page)
    return 0


def _page() -> Iterator[str]:
    """Yield the page's lines in man(7)'s macros. Each verb's help is verbatim, so that nothing is lost."""
    from pkgjail import __version__
    from pkgjail.cli.main import make_parsers

    parser, verbs = make_parsers()
    yield f'.TH PKGJAIL 1 "" "pkgjail {__version__}" "User Commands"'
    yield from (".SH NAME", rf"pkgjail \- {_escaped(str(parser.description))}")
    yield from (".SH SYNOPSIS", ".B pkgjail", r"\fICOMMAND\fR [\fIARGUMENT\fR ...]")
    yield ".SH DESCRIPTION"
    yield from _help(parser)
    yield ".SH COMMANDS"
    for name, verb in verbs.items():
        yield f".SS pkgjail {name}"
        yield from _help(verb)


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a parser's help at a fixed width, independent of the terminal."""
    formatter: Any = parser.formatter_class  # a class of argparse; each takes a width
    parser.formatter_class = partial(formatter, width=_WIDTH)
    yield from (".EX", *map(_escaped, parser.format_help().rstrip().splitlines()), ".EE")


def _escaped(line: str) -> str:
    """Escape a line for roff: no escapes, no requests, and hyphens that can be copied."""
    text = line.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{text}" if text.startswith((".", r"\(aq")) else text
