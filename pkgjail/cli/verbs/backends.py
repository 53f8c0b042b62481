"""`pkgjail backends`: list the package databases of this host, and the backend that is used."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import always
from pkgjail.core.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pkgjail.backends import BackendStatus
    from pkgjail.cli.parser import Verbs

_DESCRIPTION = "List the package databases that pkgjail can read here, and the one that 'auto' uses."


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "backends", help="show the package databases of this host", description=_DESCRIPTION
    )
    add_source_options(parser, "examine the system below DIR, not the host")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print a table, the backend that is used first; return 3 if there is none."""
    from pkgjail.api import available

    found = available(root_of(arguments))
    serving = next((status.name for status in found if status.usable), None)
    if arguments.json:
        rows = [
            {
                "name": s.name,
                "aliases": list(s.aliases),
                "usable": s.usable,
                "serves": s.name == serving,
                "reason": s.reason,
            }
            for s in found
        ]
        json.dump(rows, sys.stdout, indent=2)
        print()
    else:
        for status in found:
            mark = "serves" if status.name == serving else "usable" if status.usable else "no"
            also = f" (also called {', '.join(status.aliases)})" if status.aliases else ""
            print(f"{status.name:8} {mark:8} {printable(status.reason)}{also}")
        print(f"'auto' takes {_choice(found)}")
    return 0 if serving else 3


def _choice(found: Sequence[BackendStatus]) -> str:
    """Explain which backend is chosen."""
    usable = [status.name for status in found if status.usable]
    if not usable:
        return "none: there is no database here that can be read"
    if len(usable) == 1:
        return f"{usable[0]}: no other backend can read what is here"
    others = " and ".join(usable[1:])
    return f"{usable[0]} before {others}: os-release names its family, or it reads the same database faster"
