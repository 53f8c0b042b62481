"""`pkgjail verify`: compare a host or a tree with a manifest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import as_json
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import counted

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.review.verify import Difference, Verification

_DESCRIPTION = """\
Compare a host, or a tree, with a manifest: which names are missing, which were changed (content, mode,
kind, link target), and which extra names the manifest's directories have. For each difference, the
package manager's own record is quoted. By default every file is read and hashed.
"""
_EPILOG = """\
exit status: 0 no difference, 1 there are differences

examples:
  pkgjail verify spack.manifest.jsonl
  ssh build1 cat spack.manifest.jsonl | pkgjail verify -
  pkgjail verify --root /srv/jail --quick --json spack.manifest.jsonl

docs/verify.md says what counts as a difference, and what is known about extra names.
"""
_SHOWN = 50


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "verify",
        help="compare a host or a tree with a manifest",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="a manifest, or - for standard input")
    add_source_options(parser, "verify this tree, not the host")
    parser.add_argument(
        "--quick", action="store_true", help="compare kinds, modes, sizes and links only; read no file"
    )
    parser.add_argument(
        "--packages",
        action="store_true",
        help="compare every file, not only changed ones, with its package's record",
    )
    extra = parser.add_mutually_exclusive_group()
    extra.add_argument("--no-extra", action="store_true", help="do not look for extra names")
    extra.add_argument(
        "--strict",
        action="store_true",
        help="count every extra name, even on a host without a baseline, which shows the new ones",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"print every line, not only the first {_SHOWN} of each kind"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=as_json)


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print what was found; return 1 if there are differences."""
    from pkgjail.cli.host import database_or_none
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.jails.host_mismatch import explain_absence
    from pkgjail.review.verify import verify_manifest

    manifest = read_manifest(arguments.manifest)
    root = root_of(arguments)
    refuse_other_source(manifest, root)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        found = verify_manifest(
            manifest,
            root=root,
            quick=arguments.quick,
            packages=arguments.packages,
            extra=not arguments.no_extra,
            strict=arguments.strict,
            database=database_or_none(root, reporter),
            reporter=reporter,
        )
        missing = sum(one.what == "missing" for one in found.differences)
        if cause := explain_absence(manifest, root, missing, found.names):
            reporter.warn(cause)
        if found.unread:
            files = counted(len(found.unread), "file")
            reporter.warn(f"the content of {files} was not compared (--json names them)")
    if arguments.json:
        json.dump(_facts(found), sys.stdout, indent=2)
        print()
    else:
        _print(found, None if arguments.all else _SHOWN)
    return 0 if found.matches else 1


def _facts(found: Verification) -> dict[str, Any]:
    from pkgjail.core.text import text_path

    return {
        "holds": found.matches,
        "differences": [_row(one) for one in found.differences],
        "extras": [_row(one) for one in found.extras],
        "beside": [_row(one) for one in found.uncounted],
        "unread": [text_path(path) for path in found.unread],
        "names": found.names,
        "hashed": found.hashed,
    }


def _row(one: Difference) -> dict[str, Any]:
    from pkgjail.core.text import text_path

    return {
        "path": text_path(one.path),
        "what": one.what,
        "detail": one.detail,
        "owners": list(one.owners),
        "witness": one.package_note,
    }


def _print(found: Verification, most: int | None) -> None:
    from pkgjail.core.text import printable

    for group in (found.differences, found.extras):
        for one in group[:most]:
            owners = f" ({', '.join(one.owners)})" if one.owners and one.what != "extra" else ""
            note = f"; {one.package_note}" if one.package_note else ""
            print(f"{one.what} {printable(one.path)}{owners}: {printable(one.detail + note)}")
        if most is not None and len(group) > most:
            print(f"and {len(group) - most:,} more (--all)")
    looked = f"{counted(found.names, 'name')}, {counted(found.hashed, 'file')} read"
    beside = f"; {counted(len(found.uncounted), 'other name')} beside them" if found.uncounted else ""
    if found.matches:
        print(f"as the manifest says: {looked}{beside}")
    else:
        differences = counted(len(found.differences), "difference")
        print(f"{differences}, {len(found.extras):,} extra; {looked}{beside}")
