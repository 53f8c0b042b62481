"""`pkgjail init`: begin a project, by a file that says what its jail has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pkgjail.cli.results import never
from pkgjail.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Write a commented pkgjail.toml into this directory, to begin with. It says which lists and packages the
project's jail has; then 'pkgjail run -- COMMAND' is enough. A file that is there already is not changed.
"""
_EPILOG = """\
examples:
  pkgjail init                                     compilers and make (the list build)
  pkgjail init --package gcc --package zlib1g-dev  these packages, and what they require
  pkgjail init --list spack --package cmake
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("init", help="begin a project", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="LIST",
        dest="lists",
        help="a whitelist (may be repeated)",
    )
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="PACKAGE",
        dest="packages",
        help="a package (likewise)",
    )
    parser.add_argument("--json", action="store_true", help="print what was written, and errors, as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=never)


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from pkgjail.api import load_policy, open_database
    from pkgjail.project.begin import beginning
    from pkgjail.project.model import FILE

    lists = arguments.lists or ([] if arguments.packages else ["build"])
    # Before anything is written: what cannot be found is an error.
    load_policy(lists, packages=arguments.packages, database=open_database(b"/"))
    try:
        with open(FILE, "x", encoding="utf-8") as file:
            file.write(beginning(lists, arguments.packages))
    except FileExistsError:
        raise UsageError(f"{FILE} is there already; change it with an editor") from None
    if arguments.json:
        print(json.dumps({"written": FILE, "lists": lists, "packages": arguments.packages}, indent=2))
    else:
        print(f"written {FILE}; now run a command with: pkgjail run -- COMMAND")
    return 0
