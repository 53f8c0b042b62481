"""`pkgjail show`: show the contents of a manifest in tables."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import human_size
from pkgjail.cli.results import always
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping, Sequence

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest

_DESCRIPTION = """\
Show the contents of a manifest: packages, files and sizes, by package and by top directory; and what
was dropped or is missing, and why.
"""
_ROWS = 15


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("show", help="show the contents of a manifest", description=_DESCRIPTION)
    parser.add_manifest()
    parser.add_argument(
        "--all", action="store_true", help=f"print every row, not only the largest {_ROWS} of each table"
    )
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def run(arguments: argparse.Namespace) -> int:
    """Read the manifest and print it as tables or JSON."""
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.cli.summary import summarize
    from pkgjail.manifest import dump_manifest, manifest_digest

    manifest = read_manifest(arguments.manifest)
    facts = {
        "summary": summarize(manifest, manifest_digest(dump_manifest(manifest))),
        "by_package": _by_package(manifest),
        "by_directory": _by_directory(manifest),
        "by_origin": dict(sorted(Counter(entry.origin for entry in manifest.files).items())),
        "dropped": dict(sorted(Counter(dropped.rule for dropped in manifest.dropped).items())),
        "missing": dict(sorted(Counter(missing.reason for missing in manifest.missing).items())),
        "devices": {device.pattern: device.rule for device in manifest.devices},
        "unmet": [f"{unmet.source}: {unmet.kind}: {unmet.text}" for unmet in manifest.unmet],
    }
    if arguments.json:
        json.dump(facts, sys.stdout, indent=2)
        print()
    else:
        _print_tables(facts, None if arguments.all else _ROWS)
    return 0


def _by_package(manifest: Manifest) -> list[dict[str, Any]]:
    """Count names and bytes of each package, largest first; a shared name counts for each owner."""
    names: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in manifest.files:
        for owner in entry.owners or ("",):
            names[owner] += 1
            sizes[owner] += entry.size or 0
    versions = {package.key: package.version for package in manifest.packages}
    rows = [
        {"package": key, "version": versions.get(key, ""), "names": names[key], "bytes": sizes[key]}
        for key in {*names, *versions}
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["package"]))


def _by_directory(manifest: Manifest) -> list[dict[str, Any]]:
    """Count names and bytes below each top directory and each directory of /usr."""
    names: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in manifest.files:
        parts = entry.path.decode("utf-8", "backslashreplace").split("/")
        top = "/".join(parts[: 3 if parts[1] == "usr" else 2]) or "/"
        names[top] += 1
        sizes[top] += entry.size or 0
    rows = [{"directory": top, "names": names[top], "bytes": sizes[top]} for top in names]
    return sorted(rows, key=lambda row: (-row["bytes"], row["directory"]))


def _print_tables(facts: Mapping[str, Any], most: int | None) -> None:
    summary = facts["summary"]
    print(
        f"{', '.join(map(printable, summary['whitelists']))} on "
        f"{printable(summary['distribution'])} {printable(summary['architecture'])}: "
        f"{counted(summary['packages'], 'package')}, {counted(summary['names'], 'name')} "
        f"({counted(summary['regular_files'], 'regular file')}), {human_size(summary['bytes'])}"
    )
    print(f"{summary['digest']}\n")
    packages = [
        (row["package"] or "(no package)", row["version"], f"{row['names']:,}", human_size(row["bytes"]))
        for row in facts["by_package"]
    ]
    _print(
        "By package", ("package", "version", "names", "size"), packages, most, ("names", "version", "size")
    )
    directories = [
        (row["directory"], f"{row['names']:,}", human_size(row["bytes"])) for row in facts["by_directory"]
    ]
    _print("By directory", ("directory", "names", "size"), directories, most, ("names", "size"))
    for title, key in (("How names come", "by_origin"), ("Dropped", "dropped"), ("Missing", "missing")):
        pairs = sorted(facts[key].items(), key=lambda item: (-item[1], item[0]))
        if pairs:
            rows = [(name, f"{count:,}") for name, count in pairs]
            _print(title, ("why" if key != "by_origin" else "origin", "names"), rows, most)
    if facts["devices"]:
        rows = sorted(facts["devices"].items())
        _print("Devices, if the host has them", ("pattern", "allowed by"), rows, most, ("allowed by",))
    for line in facts["unmet"]:
        print("unmet:", printable(line))


def _print(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    most: int | None,
    least: Sequence[str] = (),
) -> None:
    from pkgjail.cli.tables import print_table

    cells = [tuple(map(printable, row)) for row in rows]
    print_table(columns, cells, title=title, least=least, most=most)
