"""`pkgjail remove`: remove an environment, and nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pkgjail.cli.results import never
from pkgjail.cli.verbosity import print_note
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Remove an environment that 'pkgjail build' made, or what an interrupted build or removal left of one.
Nothing else is lost: a mount below it, a name that 'build' did not make, a file with other content, or a
directory that was replaced by a link is reported, and then nothing is deleted.
"""
_EPILOG = """\
examples:
  pkgjail remove ~/envs/spack

An empty directory is removed too: an interrupted removal may leave one.
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "remove",
        help="remove an environment",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("directory", metavar="DIR", help="the environment's directory")
    parser.add_argument("--json", action="store_true", help="print what was deleted as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=never)


def run(arguments: argparse.Namespace) -> int:
    """Remove the environment, and print the number of deleted names."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.environments.remove import remove_environment

    with ConsoleReporter(as_json=arguments.json) as reporter:
        removed = remove_environment(os.fsencode(arguments.directory), reporter=reporter)
    if arguments.json:
        print(json.dumps(removed._asdict(), indent=2))
    else:
        before = f"; {removed.gone:,} had gone before" if removed.gone else ""
        print_note(f"{printable(arguments.directory)}: {counted(removed.deleted, 'name')} deleted{before}")
    return 0
