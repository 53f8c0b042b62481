"""`pkgjail doctor`: show what this host offers for jails, and what to do about what it does not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.results import always

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Try each stage, the kernel and the directories that pkgjail writes to. Show what each stage promises,
whether it works here and, if not, the setting, profile or file at fault, with the lines that an
administrator, or you, can paste.
"""
_EPILOG = """\
The exit status is 0 if commands can run here by default, and 3 otherwise: if the default stage (of
the settings, or namespaces) does not work, or its directories cannot be written to.
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "doctor",
        help="show what this host offers for jails, and how to get what it lacks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print the same as JSON")
    forms.add_argument(
        "--request", action="store_true", help="print a text by which to ask your administrators"
    )
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; return 3 if commands cannot run by default."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.doctor.examine import examine_host

    with ConsoleReporter(as_json=arguments.json) as reporter:
        report = examine_host(reporter)
    if arguments.json:
        from pkgjail.cli.doctor_text import as_json

        json.dump(as_json(report), sys.stdout, indent=2)
        print()
    elif arguments.request:
        from pkgjail.cli.flags import with_flags
        from pkgjail.doctor.request import request_text

        sys.stdout.write(with_flags(request_text(report)))
    else:
        from pkgjail.cli.doctor_text import print_report

        print_report(report)
    return 0 if report.works else 3
