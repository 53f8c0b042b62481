"""`pkgjail help`: print the help of the command line or of a command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pkgjail.cli.results import always
from pkgjail.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Print the same as 'pkgjail COMMAND --help'; without a command, the list of commands.
"""
_EPILOG = """\
examples:
  pkgjail help
  pkgjail help run
  pkgjail help image import
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "help", help="print the help of a command", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("topic", nargs="*", metavar="COMMAND", help="a command, and one of its own commands")
    parser.add_argument("--json", action="store_true", help="print the text in a JSON object")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the help.

    Raises:
        UsageError: there is no such command.

    """
    from pkgjail.cli.main import RENAMED, make_parsers
    from pkgjail.cli.parser import near

    parser, verbs = make_parsers()
    topic = " ".join(arguments.topic)
    topic = RENAMED.get(topic, topic)
    if topic and topic not in verbs:
        hint = near(topic, verbs) or "; 'pkgjail help' lists the commands"
        raise UsageError(f"there is no command {topic!r}{hint}")
    text = (verbs[topic] if topic else parser).format_help().rstrip("\n")
    print(json.dumps({"help": text}) if arguments.json else text)
    return 0
