"""`pkgjail minimise`: find the lines of a manifest's whitelists that a build needs, by building again."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.audit_influence import add_jobs_option, jobs_of, output_of
from pkgjail.cli.jail_options import (
    MANIFEST_HELP,
    add_command_alone,
    add_jail_options,
    command_of,
    jail_options,
    load_manifest,
    publisher_of_manifest,
)
from pkgjail.cli.parser import Parser
from pkgjail.cli.policy_options import root_of
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pkgjail.audit.minimise import Minimal
    from pkgjail.audit.step_log import Step
    from pkgjail.cli.parser import Verbs
    from pkgjail.manifest.subset import Root

_TEXTS: dict[str, Any] = {
    "usage": "pkgjail minimise --output DIR [options] MANIFEST [options] -- COMMAND ...",
    "description": """\
Find the whitelist's lines that a build needs. Lines are taken away, and the build is run again, as long as it
puts out the same: in the end no single line can go, which the builds without each of them prove. What differs
between two runs with all lines, such as a time, does not count.

Each run has a private copy of what is bound writable, so nothing of yours is changed. Files that a whitelist
names, and the base set, stay.
""",
    "epilog": """\
examples:
  pkgjail minimise --cwd --output build -o list.toml spack -- sh -c 'cmake -B build && make -C build'
  pkgjail minimise --cwd --output . --state steps.jsonl m.jsonl -- sh -c './configure && make'

exit status: 0 done, 1 the build fails as it is or differs each time, 2 bad usage or bad input, 3 this host
cannot make the jail
""",
}


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("minimise", help="find the whitelist's lines that a build needs", **_TEXTS)
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    _add_rest(parser)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Add everything that may follow MANIFEST."""
    parser.add_argument(
        "--output", metavar="DIR", help="the directory that the build puts its outputs in, in a writable bind"
    )
    parser.add_argument(
        "-o", dest="list_file", metavar="FILE", help="write the whitelist that is left to FILE"
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="write each step to FILE; if it has steps of the same search, go on after them",
    )
    add_jobs_option(parser)
    add_jail_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result, and errors, as JSON")
    add_command_alone(parser)
    parser.set_defaults(run=run, failure=0, result_is_output=_without_list)


def _without_list(arguments: argparse.Namespace) -> bool:
    """The output is the result unless `-o` names a file."""
    return arguments.list_file is None


def run(arguments: argparse.Namespace) -> int:
    """Print the lines that are left, and write them to a file."""
    from pkgjail.audit.list_text import list_text
    from pkgjail.audit.minimise import minimise
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.storage.atomic import replace_file

    rest = Parser(prog="pkgjail minimise", **_TEXTS)
    _add_rest(rest)
    command = command_of(arguments, rest)
    manifest = load_manifest(arguments)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        found = minimise(
            manifest,
            command,
            jail_options(arguments),
            output_of(arguments),
            jobs=jobs_of(arguments),
            state=arguments.state,
            root=root_of(arguments),
            publisher=publisher_of_manifest(arguments),
            reporter=reporter,
        )
    if arguments.list_file is not None:
        text = list_text(found.manifest, found.kept)
        replace_file(arguments.list_file, text.encode("utf-8", "surrogateescape"))
    if arguments.json:
        json.dump(_facts(found), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(_text(found, before=len(manifest.packages))))
    return 0


def _text(found: Minimal, *, before: int) -> list[str]:
    kept, after = len(found.kept), len(found.manifest.packages)
    whole = kept + len(found.removed)
    needed = f"{kept} of {counted(whole, 'line')}, {after} of {counted(before, 'package')}"
    return [
        f"needed: {needed}; {counted(found.runs, 'build')}",
        *(f"  {_name(root)}{_without(root, found)}" for root in found.kept),
        *(["not needed:"] if found.removed else []),
        *(f"  {_name(root)}" for root in found.removed),
    ]


def _name(root: Root) -> str:
    return f"{printable(root.source)}: {printable(root.text)}"


def _without(root: Root, found: Minimal) -> str:
    """Return what the build did without a line, from the step that proves that the line is needed."""
    from pkgjail.audit.differences import Comparison
    from pkgjail.cli.difference_text import difference_lines

    step = _proof(root, found.removed, found.steps)
    if step is None or step.why is None:
        return ""
    (line,) = difference_lines(Comparison(differences=(step.why,)), 1)
    return f" (without it: {line})"


def _proof(root: Root, removed: Sequence[Root], steps: Sequence[Step]) -> Step | None:
    known = {root, *removed}
    found = [step for step in steps if root in step.without and known.issuperset(step.without)]
    return next((step for step in reversed(found) if not step.accepted), None)


def _facts(found: Minimal) -> dict[str, Any]:
    """Return the result as JSON has it."""
    return {
        "kept": [root._asdict() for root in found.kept],
        "removed": [root._asdict() for root in found.removed],
        "packages": [package.key for package in found.manifest.packages],
        "runs": found.runs,
        "steps": [
            {"accepted": step.accepted, "without": [root._asdict() for root in step.without]}
            for step in found.steps
        ],
    }
