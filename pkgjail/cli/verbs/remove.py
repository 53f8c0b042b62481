"""`pkgjail remove`: take an environment away, and nothing else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pkgjail.cli.results import never
from pkgjail.core.text import counted, shown

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Remove an environment that 'pkgjail build' made, or what an interrupted build or removal left of one.
Nothing else is lost: if there is a mount below, a name that 'build' did not make, a file that has other
content now, or a directory that was replaced by a link, it is reported and nothing is deleted.
"""
_EPILOG = """\
examples:
  pkgjail remove ~/envs/spack

An empty directory is removed too: it is what may be left of an environment.
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
    """Remove it, and print how much that was."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.environments.remove import remove_environment

    with ConsoleReporter(as_json=arguments.json) as reporter:
        removed = remove_environment(os.fsencode(arguments.directory), reporter=reporter)
    if arguments.json:
        print(json.dumps(removed._asdict(), indent=2))
    else:
        before = f"; {removed.gone:,} had gone before" if removed.gone else ""
        print(f"{shown(arguments.directory)}: {counted(removed.deleted, 'name')} deleted{before}")
    return 0
