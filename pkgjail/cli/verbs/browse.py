"""`pkgjail browse`: walk through a manifest on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.output import JSON_ERRORS
from pkgjail.cli.results import never
from pkgjail.cli.why_text import text
from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import printable, shell_quote

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Walk through a manifest on a terminal: the packages by size or by cost (the bytes that would leave the jail
with a package), what each requires and brings, what needs it, why it is there, and its files with the sizes
of their directories. The key ? lists the keys, and q quits.

The library Textual is needed, in the environment of the Python that runs pkgjail: the extra 'browse',
as in pip install '.[browse]' in the clone.
"""
_EPILOG = """\
examples:
  pkgjail browse spack.manifest.jsonl
  pkgjail resolve spack | pkgjail browse -
"""
_TERMINAL = "/dev/tty"


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "browse", help="walk through a manifest on a terminal", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_manifest()
    parser.add_argument("--json", action="store_true", help=JSON_ERRORS)
    parser.set_defaults(run=run, failure=0, result_is_output=never)


def run(arguments: argparse.Namespace) -> int:
    """Show the manifest until the user quits."""
    from pkgjail.browse import browse
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.review.why import why

    manifest = read_manifest(arguments.manifest)
    _need_terminal(arguments.manifest)

    def explain(asked: str) -> list[str]:
        return [line for answer in why(manifest, [asked]) for line in text(answer)]

    browse(manifest, explain)
    return 0


def _need_terminal(name: str) -> None:
    """Refuse to browse without a terminal; read keys from it if standard input is something else."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        if sys.stdin.isatty():
            return
        try:
            terminal = os.open(_TERMINAL, os.O_RDWR)
        except OSError:
            pass
        else:
            os.dup2(terminal, sys.stdin.fileno())
            os.close(terminal)
            return
    quoted = printable(shell_quote(name))
    raise PkgjailError(
        "cannot browse the manifest: standard input, output and error must be a terminal; "
        f"print it with 'pkgjail show {quoted}' or 'pkgjail why {quoted} NAME'"
    )
