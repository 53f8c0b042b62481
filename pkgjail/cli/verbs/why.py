"""`pkgjail why`: say why a package or a path is in a manifest, or what keeps it out."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.json_records import edge_facts
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import always
from pkgjail.cli.why_text import text
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import printable, text_path

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.review.why import Answer

_DESCRIPTION = """\
Say why a package or a path is in a manifest: the shortest chain of requirements from a whitelist's line
(file:line) to the package, and how the package is related to the path. If it is not in the manifest,
name the blacklist rule that dropped it, or the host's package that has it and the whitelist line that
would add it. If no package of the host has it, name those that could be installed, by apt's lists and
the lists of contents that apt-file(1) has apt fetch, or the nearest names.
"""
_EPILOG = """\
examples:
  pkgjail why spack.manifest.jsonl perl-base
  pkgjail why spack.manifest.jsonl /usr/bin/awk /bin/sh
  pkgjail why spack.manifest.jsonl zlib.h mpicc
  pkgjail why --all spack.manifest.jsonl libc6

exit status: 0 all are in the manifest, 1 at least one is not, 2 bad usage or bad input
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "why",
        help="say why a package or a path is in a manifest, or is not",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    parser.add_argument(
        "asked",
        nargs="+",
        metavar="NAME|PATH",
        help="a package's name, an absolute path, or a file's last name, such as zlib.h",
    )
    parser.add_argument(
        "--all", action="store_true", help="print every minimal chain, for every package that owns a path"
    )
    add_source_options(parser, "search this root's packages for what is not in the manifest")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print an answer for each; return 1 if something is not in the manifest."""
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.review.why import why

    manifest = read_manifest(arguments.manifest)
    root = root_of(arguments)
    asked = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in arguments.asked]
    answers = why(manifest, asked, every=arguments.all)
    if not all(answer.is_in for answer in answers):
        refuse_other_source(manifest, root)
        database = _database(manifest, root)
        answers = why(
            manifest,
            asked,
            database=database,
            exists=lambda path: os.path.lexists(root.rstrip(b"/") + path),
            every=arguments.all,
        )
    if arguments.json:
        json.dump(list(map(facts, answers)), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(printable(line) for answer in answers for line in text(answer)))
    return 0 if all(answer.is_in for answer in answers) else 1


def _database(manifest: Manifest, root: bytes) -> PackageDatabase | None:
    """Open the host's package database; None if there is none, or it is of another distribution."""
    from pkgjail.api import open_database
    from pkgjail.core.errors import DatabaseError

    try:
        database = open_database(root)
    except DatabaseError:
        return None
    return database if database.distribution.id == manifest.header.distribution.id else None


def facts(answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON, with paths as `text_path` writes them; empty fields are left out."""
    found: dict[str, Any] = {
        "asked": answer.asked,
        "verdict": answer.verdict,
        "path": text_path(answer.path),
        "packages": [
            {
                "package": reason.package,
                "version": reason.version,
                "chains": [list(map(edge_facts, chain)) for chain in reason.chains],
                "cut": reason.cut,
            }
            for reason in answer.reasons
        ],
        "below": text_path(answer.below),
        "rule": answer.rule,
        "missing": answer.missing.reason if answer.missing else "",
        "owner": answer.owner,
        "remedy": answer.remedy,
        "also": list(map(text_path, answer.also)),
        "alternative": answer.alternative,
        "installable": list(answer.installable),
        "nearest": list(answer.nearest),
    }
    entry = answer.entry
    if entry is not None:
        found.update(type=entry.kind, origin=entry.origin, detail=entry.detail)
        found["target"] = text_path(entry.target or b"")
    return {key: value for key, value in found.items() if value}
