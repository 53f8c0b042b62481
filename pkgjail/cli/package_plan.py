"""`pkgjail resolve --available`: make a package plan, and print it or write it to a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter, human_size
from pkgjail.cli.verbosity import print_note
from pkgjail.core.errors import InputError, Problem
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse

    from pkgjail.core.model import PackagePlan

_NOTE = "a package plan: its packages need not be installed here, and no jail can be made from it"


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a package plan."""
    group = parser.add_argument_group(
        "planning for another system",
        "Say which packages would be installed for the whitelists, from a distribution's repository metadata "
        "on this machine. Nothing is fetched, and no package database is read. The result is not a manifest.",
    )
    group.add_argument(
        "--available",
        action="append",
        default=[],
        metavar="FAMILY:PATH",
        help="metadata to plan from: debian (a Packages file, a suite's directory, apt's lists), rhel or "
        "suse (a directory with repodata), arch (core.db, or a directory of such); may be repeated",
    )
    group.add_argument("--arch", metavar="ARCH", help="plan for this architecture, not this machine's")
    group.add_argument(
        "--contents",
        action="store_true",
        help="list the packages' files too, from the repository's own file lists",
    )


def is_plan(arguments: argparse.Namespace) -> bool:
    """Return whether a package plan is requested. Raises `InputError` for options that do not go together."""
    planning = {"--arch": arguments.arch, "--contents": arguments.contents}
    resolving = {
        "--root": arguments.root != "/",
        "--source": bool(arguments.source),
        "--backend": arguments.backend != "auto",
        "--no-hash": arguments.no_hash,
        "--allow-unmet": arguments.allow_unmet,
    }
    wrong = [name for name, given in (resolving if arguments.available else planning).items() if given]
    if wrong:
        why = "applies to installed packages" if arguments.available else "applies to package plans"
        how = "leave it out with" if arguments.available else "name repositories by"
        raise InputError([Problem("", f"{name} {why}; {how} --available") for name in wrong])
    return bool(arguments.available)


def run_plan(arguments: argparse.Namespace) -> int:
    """Make the plan and print it, or write it to a file and print a summary."""
    from pkgjail.api import plan_packages
    from pkgjail.repositories.plan_file import (
        dump_plan,
        plan_digest,
        plan_header,
        planned_record,
        write_plan,
    )

    with ConsoleReporter(as_json=arguments.json) as reporter:
        plan = plan_packages(
            arguments.whitelists,
            arguments.blacklist,
            packages=arguments.packages,
            sources=arguments.available,
            architecture=arguments.arch or "",
            recommends=arguments.recommends,
            essential=arguments.essential,
            contents=arguments.contents,
            reporter=reporter,
        )
    to_file = arguments.output != "-"
    digest = write_plan(plan, arguments.output) if to_file else plan_digest(dump_plan(plan))
    summary = summarize_plan(plan, digest)
    if arguments.json:
        everything = {
            **plan_header(plan),
            "summary": summary,
            "packages": [
                {**planned_record(one), "because": _because(plan, one.package.key)} for one in plan.packages
            ],
        }
        print(json.dumps(summary if to_file else everything, indent=2))
    elif not to_file:
        _print_table(plan, summary, contents=arguments.contents)
    else:
        print_note(f"{_text(summary)}\n{digest}\nwritten to {printable(arguments.output)}: {_NOTE}")
    return 0


def summarize_plan(plan: PackagePlan, digest: str) -> dict[str, Any]:
    """Count what a plan has, for `--json` and for people."""
    return {
        "planned": True,
        "digest": digest,
        "packages": len(plan.packages),
        "bytes": sum(one.package.size for one in plan.packages),
        "download": sum(one.download for one in plan.packages),
        "names": sum(len(one.files or ()) for one in plan.packages),
        "dropped": plan.dropped,
        "without_file_list": sum(one.files is None for one in plan.packages),
    }


def _because(plan: PackagePlan, key: str) -> str:
    """Return what required a package, by the shortest chain from a whitelist's line."""
    reason = plan.reasons.get(key)
    return reason.source if reason else ""


def _text(summary: dict[str, Any]) -> str:
    return (
        f"planned: {counted(summary['packages'], 'package')}, {human_size(summary['bytes'])} installed, "
        f"{human_size(summary['download'])} to download"
    )


def _print_table(plan: PackagePlan, summary: dict[str, Any], *, contents: bool) -> None:
    from pkgjail.cli.tables import print_table

    lists = printable(", ".join(plan.whitelists))
    print(f"{lists} for {plan.family} {printable(plan.architecture)}: {_NOTE}")
    rows = []
    for one in plan.packages:
        package = one.package
        sizes = (human_size(package.size), human_size(one.download))
        because = _because(plan, package.key)
        rows.append(tuple(map(printable, (package.key, package.version, one.repository, *sizes, because))))
    columns = ("package", "version", "repository", "size", "download", "because of")
    print_table(columns, rows, least=("download", "repository", "because of", "version", "size"))
    for one in plan.packages if contents else ():
        for path in one.files or ():
            print(f"{printable(one.package.key)} {printable(path)}")
    print(_text(summary))
