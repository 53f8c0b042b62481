"""`pkgjail backends`: which package managers this host has, and which serves."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.results import always
from pkgjail.core.text import shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pkgjail.backends import BackendStatus
    from pkgjail.cli.parser import Verbs

_DESCRIPTION = "Show which package managers' databases pkgjail reads here, and which one 'auto' takes."


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "backends", help="show the package databases of this host", description=_DESCRIPTION
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="look at this root")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print a table, the backend that serves first; exit 3 where none does."""
    from pkgjail.api import available

    found = available(os.fsencode(os.path.realpath(arguments.root)))
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
            print(f"{status.name:8} {mark:8} {shown(status.reason)}{also}")
        print(f"'auto' takes {_choice(found)}")
    return 0 if serving else 3


def _choice(found: Sequence[BackendStatus]) -> str:
    """Which backend is chosen, and why."""
    usable = [status.name for status in found if status.usable]
    if not usable:
        return "none: there is no database here that can be read"
    if len(usable) == 1:
        return f"{usable[0]}: no other can read what is here"
    others = " and ".join(usable[1:])
    return f"{usable[0]} before {others}: os-release speaks for it, or it is the faster for the same database"
