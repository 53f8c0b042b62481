"""`pkgjail backends`: which package managers this host has, and which serves."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = "Show which package managers' databases pkgjail reads here, and which one 'auto' takes."


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "backends", help="show the package databases of this host", description=_DESCRIPTION
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="look at this root")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0)


def run(arguments: argparse.Namespace) -> int:
    """Print a table, the backend that serves first; exit 3 where none does."""
    from pkgjail.api import available

    found = available(os.fsencode(os.path.realpath(arguments.root)))
    serving = next((status.name for status in found if status.usable), None)
    if arguments.json:
        rows = [
            {"name": s.name, "usable": s.usable, "serves": s.name == serving, "reason": s.reason}
            for s in found
        ]
        json.dump(rows, sys.stdout, indent=2)
        print()
    else:
        for status in found:
            mark = "serves" if status.name == serving else "usable" if status.usable else "no"
            print(f"{status.name:8} {mark:8} {status.reason}")
    return 0 if serving else 3
