"""`pkgjail diff`: say what differs between two manifests, and why."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.json_records import edge_facts
from pkgjail.cli.results import always
from pkgjail.core.text import printable, text_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Unmet
    from pkgjail.review.diff import Difference, FileChange, PackageChange, Totals

_DESCRIPTION = """\
Say what differs between two manifests: packages that were added, removed or changed, with the
requirement that caused it; and each name that was added, removed or changed, by its cause: a package, a
blacklist, a whitelist, alternatives, a generated file, a configuration file, or the host alone (drift).
"""
_EPILOG = """\
examples:
  pkgjail diff old.manifest.jsonl new.manifest.jsonl
  pkgjail diff --format markdown old.manifest.jsonl new.manifest.jsonl     for a pull request's comment

The markdown has at most 65,536 characters and says what was left out.

exit status, as diff(1): 0 the same, 1 they differ, 2 trouble
"""
FORMATS = ("text", "markdown", "json")


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "diff",
        help="say what differs between two manifests, and why",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("old", metavar="OLD", help="a manifest that 'pkgjail resolve' made")
    parser.add_argument("new", metavar="NEW", help="another")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    form.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")
    parser.add_argument(
        "--all", action="store_true", help="text: print every row, not only the first rows of each list"
    )
    parser.set_defaults(run=run, failure=2, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Print the difference; return 1 if there is one."""
    from pkgjail.backends import version_order
    from pkgjail.cli.diff_text import markdown, text
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.review.diff import diff_manifests

    old, new = read_manifest(arguments.old), read_manifest(arguments.new)
    difference = diff_manifests(old, new, compare=version_order(new.header.distribution))
    if arguments.format == "json":
        json.dump(facts(difference), sys.stdout, indent=2)
        print()
    elif arguments.format == "markdown":
        print(markdown(difference), end="")
    elif not difference.same:
        print("\n".join(map(printable, text(difference, most=None if arguments.all else 10))))
    return 0 if difference.same else 1


def facts(difference: Difference) -> dict[str, Any]:
    """Return the difference as JSON, with paths as `text_path` writes them."""
    return {
        "same": difference.same,
        "old": _totals(difference.old),
        "new": _totals(difference.new),
        "settings": [{"setting": name, "old": old, "new": new} for name, old, new in difference.settings],
        "packages": list(map(_package, difference.packages)),
        "files": list(map(_file, difference.files)),
        "rules": [{"rule": rule, "old": old, "new": new} for rule, old, new in difference.rules],
        "dependencies": {
            "removed": list(map(edge_facts, difference.edges_removed)),
            "added": list(map(edge_facts, difference.edges_added)),
        },
        "unmet": {"removed": _unmet(difference.unmet_removed), "added": _unmet(difference.unmet_added)},
        "devices": {
            "removed": list(difference.devices_removed),
            "added": list(difference.devices_added),
        },
        "dropped": difference.dropped,
        "missing": difference.missing,
    }


def _totals(totals: Totals) -> dict[str, int]:
    return {
        "packages": totals.packages,
        "names": totals.names,
        "bytes": totals.bytes,
        "dropped": totals.dropped,
        "missing": totals.missing,
    }


def _package(change: PackageChange) -> dict[str, Any]:
    return {
        "package": change.package,
        "change": change.change,
        "old": {"version": change.old_version, "bytes": change.old_bytes} if change.old_version else None,
        "new": {"version": change.new_version, "bytes": change.new_bytes} if change.new_version else None,
        "because": edge_facts(change.because) if change.because else None,
    }


def _file(change: FileChange) -> dict[str, Any]:
    return {
        "path": text_path(change.path),
        "change": change.change,
        "what": list(change.what),
        "cause": change.cause.kind,
        "detail": change.cause.detail,
        "old_bytes": change.old_bytes,
        "new_bytes": change.new_bytes,
    }


def _unmet(unmets: Iterable[Unmet]) -> list[dict[str, str]]:
    return [
        {"source": one.source, "field": one.kind, "text": one.text, "reason": one.reason} for one in unmets
    ]
