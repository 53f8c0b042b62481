"""`pkgjail completion`: print shell completion code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Print the code with which a shell completes 'pkgjail' command lines.
"""
_EPILOG = """\
examples:
  eval "$(pkgjail completion bash)"     in ~/.bashrc; zsh likewise, in ~/.zshrc
  pkgjail completion fish | source      in fish
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "completion", help="print shell completion code", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    parser.add_argument("--json", action="store_true", help="print the code in a JSON object")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the code."""
    from argcomplete.shell_integration import shellcode

    code = shellcode(["pkgjail"], shell=arguments.shell)
    print(json.dumps({"shell": arguments.shell, "code": code}) if arguments.json else code)
    return 0
