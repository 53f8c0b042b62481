"""`pkgjail report`: write a manifest as one page for reviewers."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.output import write_result
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import without_file
from pkgjail.cli.verbosity import print_note
from pkgjail.core.text import printable

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest
    from pkgjail.review.check import Finding

_DESCRIPTION = """\
Write a manifest as one HTML page for a browser: summary, sizes, what requires what, every name with its
reason, what was dropped and, with --against, what changed. The page needs no network and no other file.
"""
_EPILOG = """\
examples:
  pkgjail report spack.manifest.jsonl -o review.html
  pkgjail report --audit audit.jsonl spack.manifest.jsonl -o review.html
  pkgjail report --check --against old.manifest.jsonl new.manifest.jsonl -o review.html
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "report",
        help="write a manifest as a page to review",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    parser.add_argument("--against", metavar="OLD", help="an older manifest to compare with")
    parser.add_argument(
        "--check", action="store_true", help="check whether the manifest is closed, and show the findings"
    )
    parser.add_argument(
        "--audit",
        metavar="FILE",
        help="show what a command used and wanted: a record that 'run --audit' made",
    )
    add_source_options(parser, "where --check finds the manifest's files")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="write the page here; - for standard output"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=without_file)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and print where."""
    from pkgjail.backends import version_order
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.manifest import dump_manifest, manifest_digest
    from pkgjail.review.report import report_page
    from pkgjail.storage.atomic import replace_file

    manifest = read_manifest(arguments.manifest)
    against = None if arguments.against is None else read_manifest(arguments.against)
    findings = _findings(manifest, arguments) if arguments.check else None
    page = report_page(
        manifest,
        manifest_digest(dump_manifest(manifest)),
        against=against,
        compare=version_order(manifest.header.distribution),
        findings=findings,
        audit=_audit(manifest, arguments) if arguments.audit else "",
    )
    if arguments.output == "-":
        write_result(page)
        out = sys.stderr
    else:
        replace_file(arguments.output, page)
        out = sys.stdout
    facts: dict[str, Any] = {"file": arguments.output, "bytes": len(page)}
    if findings is not None:
        facts["findings"] = len(findings)
    if arguments.json:
        print(json.dumps(facts, indent=2), file=out)
    elif arguments.output != "-":
        print_note(f"written to {printable(arguments.output)}")
    return 0


def _audit(manifest: Manifest, arguments: argparse.Namespace) -> str:
    """Return the section of an audit."""
    from pkgjail.audit.advice import advise
    from pkgjail.audit.record import read_audit
    from pkgjail.audit.section import audit_section
    from pkgjail.audit.spack_names import load_spack_names
    from pkgjail.audit.wanted import used
    from pkgjail.cli.audit_text import warn_of_other_manifest

    audit = read_audit(arguments.audit)
    warn_of_other_manifest(audit, manifest, as_json=arguments.json)
    return audit_section(audit, advise(audit, load_spack_names()), used(audit, manifest))


def _findings(manifest: Manifest, arguments: argparse.Namespace) -> tuple[Finding, ...]:
    """Return the findings of `pkgjail check`."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.cli.host import database_or_none, warn_of_absence
    from pkgjail.review.check import check_manifest

    root = root_of(arguments)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        warn_of_absence(manifest, root, reporter)
        database = database_or_none(root, reporter)
        return check_manifest(manifest, root=root, database=database, reporter=reporter).findings
