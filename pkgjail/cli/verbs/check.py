"""`pkgjail check`: prove that a manifest is closed, or say what is missing and who is responsible."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.host import database_or_none, warn_of_absence
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import as_json
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.review.check import Check, Finding

_DESCRIPTION = """\
Prove that a manifest is closed: it has every library, interpreter and link target that its files need,
found as the jail would find them; its compilers have everything that they start, include and link; and
its languages can load their standard libraries. Each finding names the file, the cause, the
blacklist rule or package that is responsible, and the fix.
"""
_EPILOG = """\
exit status: 0 the manifest is closed, 1 there are findings; notes do not count

examples:
  pkgjail check spack.manifest.jsonl
  pkgjail check --static --json spack.manifest.jsonl   # only reads files, runs nothing

docs/check.md says what is checked, and by which rules.
"""
_SHOWN = 50


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "check",
        help="prove that a manifest is closed, or say what is missing",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    add_source_options(parser, "where the manifest was resolved from")
    parser.add_argument(
        "--static",
        action="store_true",
        help="only read files; do not run the manifest's compilers and languages in a jail",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"print every line, not only the first {_SHOWN} of each kind"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=as_json)


def run(arguments: argparse.Namespace) -> int:
    """Check the manifest and print what was found; return 1 if there are findings."""
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.review.check import check_manifest

    manifest = read_manifest(arguments.manifest)
    root = root_of(arguments)
    refuse_other_source(manifest, root)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        warn_of_absence(manifest, root, reporter)
        database = database_or_none(root, reporter)
        check = check_manifest(
            manifest, root=root, database=database, run=not arguments.static, reporter=reporter
        )
    if arguments.json:
        json.dump(_facts(check), sys.stdout, indent=2)
        print()
    else:
        print_check(check, None if arguments.all else _SHOWN)
    return 1 if check.findings else 0


def _facts(check: Check) -> dict[str, Any]:
    return {
        "closed": not check.findings,
        "findings": [_row(finding) for finding in check.findings],
        "notes": [_row(note) for note in check.notes],
        "objects": check.objects,
        "scripts": check.scripts,
        "links": check.links,
    }


def _row(finding: Finding) -> dict[str, Any]:
    from pkgjail.core.text import text_path

    return {
        "path": text_path(finding.path),
        "kind": finding.kind,
        "wanted": text_path(finding.wanted),
        "cause": finding.cause,
        "owners": list(finding.owners),
        "responsible": finding.responsible,
        "fix": finding.fix,
    }


def print_check(check: Check, most: int | None) -> None:
    """Print findings and notes, at most so many of each (None: all), and the fixes of several findings."""
    for word, findings in (("note: ", check.notes), ("", check.findings)):
        for finding in findings[:most]:
            owners = f" ({', '.join(finding.owners)})" if finding.owners else ""
            wanted = printable(finding.wanted) or "something"
            where = f"{word}{printable(finding.path)}{owners}"
            print(f"{where}: {finding.kind} {wanted}: {printable(finding.cause)}")
            if finding.responsible:
                print(f"    responsible: {printable(finding.responsible)}")
            print(f"    fix: {printable(finding.fix)}")
        if most is not None and len(findings) > most:
            print(f"{word}and {len(findings) - most:,} more (--all)")
    for fix, settled in Counter(finding.fix for finding in check.findings).most_common(most):
        if settled > 1:
            print(f"{printable(fix)}: settles {settled:,} findings")
    looked = ", ".join(
        (
            counted(check.objects, "ELF file"),
            counted(check.scripts, "script"),
            counted(check.links, "link"),
        )
    )
    if check.findings:
        print(f"not closed: {counted(len(check.findings), 'finding')} in {looked}")
    else:
        print(f"closed: {looked}; {counted(len(check.notes), 'note')}")
