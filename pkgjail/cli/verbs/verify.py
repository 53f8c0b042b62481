"""`pkgjail verify`: a host or a tree, held against a manifest."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.output import explain_loss
from pkgjail.cli.results import as_json
from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import counted

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest
    from pkgjail.review.verify import Difference, Verification

_DESCRIPTION = """\
Compare a host, or a tree, with a manifest: what is missing, what was changed (content, mode, kind, a
link's target), and what extra names are in the directories of the set. For each difference it says what
the package manager's own record knows. By default every file is read and hashed.
"""
_EPILOG = """\
exit status: 0 it is as the manifest says, 1 there are differences

examples:
  pkgjail verify spack.manifest.jsonl
  ssh build1 cat spack.manifest.jsonl | pkgjail verify -
  pkgjail verify --root /srv/jail --quick --json spack.manifest.jsonl

docs/verify.md tells what counts as a difference, and what is known of extra names.
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
    parser.add_argument("--root", default="/", metavar="DIR", help="verify this tree, not the host")
    parser.add_argument(
        "--quick", action="store_true", help="look at kinds, modes, sizes and links alone, and read no file"
    )
    parser.add_argument(
        "--packages",
        action="store_true",
        help="compare every file with its package's record too, not only the changed ones",
    )
    extra = parser.add_mutually_exclusive_group()
    extra.add_argument("--no-extra", action="store_true", help="do not look for extra names")
    extra.add_argument(
        "--strict",
        action="store_true",
        help="count every extra name, also on a host where nobody knows which came later",
    )
    parser.add_argument("--all", action="store_true", help=f"every line, not the first {_SHOWN} of each sort")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=as_json)


def run(arguments: argparse.Namespace) -> int:
    """Verify, and print what was found; 1 where that is anything."""
    from pkgjail.cli.verbs.check import database_or_none
    from pkgjail.jail.host_mismatch import explain_absence
    from pkgjail.review.verify import verify_manifest

    manifest = _read(arguments.manifest)
    root = os.fsencode(os.path.realpath(arguments.root))
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
    return 0 if found.holds else 1


def _read(name: str) -> Manifest:
    from pkgjail.manifest import parse_stream, read_manifest

    if name != "-":
        return read_manifest(name)
    try:
        return parse_stream(sys.stdin.fileno(), "standard input")
    except OSError as error:
        if error.errno == errno.EFBIG:  # in words already
            raise
        raise PkgjailError(f"cannot read standard input: {explain_loss(error)}; name a file") from None


def _facts(found: Verification) -> dict[str, Any]:
    from pkgjail.core.model import text_path

    return {
        "holds": found.holds,
        "differences": [_row(one) for one in found.differences],
        "extras": [_row(one) for one in found.extras],
        "beside": [_row(one) for one in found.beside],
        "unread": [text_path(path) for path in found.unread],
        "names": found.names,
        "hashed": found.hashed,
    }


def _row(one: Difference) -> dict[str, Any]:
    from pkgjail.core.model import text_path

    return {
        "path": text_path(one.path),
        "what": one.what,
        "detail": one.detail,
        "owners": list(one.owners),
        "witness": one.witness,
    }


def _print(found: Verification, most: int | None) -> None:
    from pkgjail.core.text import shown

    for group in (found.differences, found.extras):
        for one in group[:most]:
            owners = f" ({', '.join(one.owners)})" if one.owners and one.what != "extra" else ""
            witness = f"; {one.witness}" if one.witness else ""
            print(f"{one.what} {shown(one.path)}{owners}: {shown(one.detail + witness)}")
        if most is not None and len(group) > most:
            print(f"and {len(group) - most:,} more (--all)")
    looked = f"{counted(found.names, 'name')}, {counted(found.hashed, 'file')} read"
    beside = f"; {counted(len(found.beside), 'other name')} beside them" if found.beside else ""
    if found.holds:
        print(f"as the manifest says: {looked}{beside}")
    else:
        differences = counted(len(found.differences), "difference")
        print(f"{differences}, {len(found.extras):,} extra; {looked}{beside}")
