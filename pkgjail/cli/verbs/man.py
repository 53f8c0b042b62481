"""`pkgjail man`: print the manual page, made from the texts of `--help`."""

from __future__ import annotations

import json
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Print pkgjail's manual page, made from the texts of --help, with the environment variables and files that
pkgjail reads.
"""
_EPILOG = """\
examples:
  pkgjail man | man -l -                                    read it
  pkgjail man > /usr/local/share/man/man1/pkgjail.1         install it
"""
_WIDTH = 78
_DATE = "2026-12-01"  # of the sections below
_ENVIRONMENT = (
    ("COLUMNS", "The width of help texts. Tables in a pipe ignore it."),
    ("PKGJAIL_SHARED_DIR", "Where what users share is kept, instead of /var/tmp."),
    ("PKGJAIL_STAGE", "The stage that commands run in, unless --stage names one."),
    ("PKGJAIL_STORE", "The store of images, unless --store names one."),
    ("SOURCE_DATE_EPOCH", "The time of files in images that 'pkgjail image create' makes."),
    ("TERM", "Passed on to commands in a jail, as the only one of the caller's variables."),
    (
        "XDG_CACHE_HOME, XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_RUNTIME_DIR",
        "The directories that hold what FILES names.",
    ),
)
_FILES = (
    ("pkgjail.toml", "What the jail of a project has, in its directory."),
    ("/etc/pkgjail.toml", "The site's settings: which stages may be used."),
    ("~/.config/pkgjail.toml", "The user's settings."),
    ("~/.cache/pkgjail", "What is kept between runs and may be removed at any time; see 'pkgjail cache'."),
    ("~/.local/share/pkgjail", "The user's store of images; see 'pkgjail image'."),
    ("/dev/shm/pkgjail-UID", "Layers of jails, without XDG_RUNTIME_DIR."),  # noqa: S108 - a text
)
_EXAMPLES = (
    (
        "Resolve a whitelist, look at the manifest, and compile in its jail:",
        (
            "pkgjail resolve spack -o spack.manifest.jsonl",
            "pkgjail show spack.manifest.jsonl",
            "pkgjail run --cwd spack.manifest.jsonl -- gcc -o hello hello.c",
        ),
    ),
    (
        "See why a file is in it, and what changed since an older one:",
        (
            "pkgjail why spack.manifest.jsonl /usr/bin/awk",
            "pkgjail diff old.manifest.jsonl spack.manifest.jsonl",
        ),
    ),
    (
        "Run with some packages and no list:",
        ("pkgjail run --package gcc --package zlib1g-dev --cwd -- make",),
    ),
)
_SEE_ALSO = (
    ("apt", 8),
    ("bwrap", 1),
    ("dpkg", 1),
    ("gitignore", 5),
    ("ld.so", 8),
    ("pacman", 8),
    ("podman", 1),
    ("rpm", 8),
    ("unshare", 1),
    ("update-alternatives", 1),
    ("user_namespaces", 7),
)


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
    yield f'.TH PKGJAIL 1 "{_DATE}" "pkgjail {__version__}" "User Commands"'
    yield from (".SH NAME", *_filled(f"pkgjail - {parser.description}"))
    yield from (".SH SYNOPSIS", ".B pkgjail", r"\fICOMMAND\fR [\fIARGUMENT\fR ...]")
    yield ".SH DESCRIPTION"
    yield from _help(parser)
    yield ".SH COMMANDS"
    for name, verb in verbs.items():
        yield f".SS pkgjail {name}"
        yield from _help(verb)
    yield from _sections(parser)


def _sections(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the sections that no verb's help has, in the order of man-pages(7)."""
    yield ".SH EXIT STATUS"
    told = str(parser.epilog).partition("start here:")[0]
    yield from (".EX", *map(_escaped, told.strip().splitlines()), ".EE")
    for title, rows in (("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        yield f".SH {title}"
        for name, words in rows:
            yield from (".TP", f".B {_escaped(name)}", *_filled(words))
    yield ".SH EXAMPLES"
    for number, (words, commands) in enumerate(_EXAMPLES):
        yield from (
            *((".PP",) if number else ()),
            *_filled(words),
            ".PP",
            ".EX",
            *map(_escaped, commands),
            ".EE",
        )
    yield ".SH SEE ALSO"
    for name, section in _SEE_ALSO:
        comma = "" if (name, section) == _SEE_ALSO[-1] else " ,"
        yield f".BR {_escaped(name)} ({section}){comma}".replace(") ,", "),")


def _help(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a parser's help at a fixed width, independent of the terminal."""
    formatter: Any = parser.formatter_class  # a class of argparse; each takes a width
    parser.formatter_class = partial(formatter, width=_WIDTH)
    yield from (".EX", *map(_escaped, parser.format_help().rstrip().splitlines()), ".EE")


def _filled(text: str) -> Iterator[str]:
    """Yield a text that roff fills, in lines as short as mandoc(1) wants them."""
    yield from map(_escaped, wrap(text, _WIDTH - 10, break_long_words=False, break_on_hyphens=False))


def _escaped(line: str) -> str:
    """Escape a line for roff: no escapes, no requests, and hyphens that can be copied."""
    text = line.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{text}" if text.startswith((".", r"\(aq")) else text
