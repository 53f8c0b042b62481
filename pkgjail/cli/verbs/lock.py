"""`pkgjail lock`: make the manifest of a project, and keep it beside its file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter, human_size
from pkgjail.cli.project import find_project
from pkgjail.cli.results import never
from pkgjail.cli.summary import summarize
from pkgjail.core.text import counted

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Resolve what the pkgjail.toml of this directory asks for, and write the manifest to pkgjail.lock.jsonl beside
it, for 'pkgjail run -- COMMAND'. Keep both in version control, and review what differs with 'pkgjail diff'.
"""
_EPILOG = """\
'pkgjail run' and 'pkgjail shell' do this themselves if the file asks for something else than the lock has.
So call this when the packages of the host are newer. In CI, 'pkgjail run --locked' never changes the lock.
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "lock", help="make the manifest of a project", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("--json", action="store_true", help="print the summary, and errors, as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=never)


def run(arguments: argparse.Namespace) -> int:
    """Write the lock, and print a summary."""
    from pkgjail.api import dump_manifest, manifest_digest
    from pkgjail.project.lock import lock_project
    from pkgjail.project.model import LOCK

    project = find_project()
    with ConsoleReporter(as_json=arguments.json) as reporter:
        manifest = lock_project(project, reporter=reporter)
    summary = summarize(manifest, manifest_digest(dump_manifest(manifest)))
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return 0
    packages, names = counted(summary["packages"], "package"), counted(summary["names"], "name")
    print(f"{packages}, {names}, {human_size(summary['bytes'])}")
    print(f"{summary['digest']}\nwritten to {LOCK}")
    return 0
