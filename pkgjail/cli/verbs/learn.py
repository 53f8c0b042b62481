"""`pkgjail learn`: write the whitelist that a command needs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.jail_options import add_jail_options, jail_options, publisher_of_manifest
from pkgjail.cli.output import write_result
from pkgjail.cli.policy_options import root_of
from pkgjail.cli.results import without_file
from pkgjail.cli.verbosity import print_note
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, printable, printable_lines

if TYPE_CHECKING:
    import argparse

    from pkgjail.audit.learn_build import LearnedBuild
    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Run a command in a jail of everything that this system has, record which files it asks for and gets, and
write the whitelist that brings their packages: those that no other of them requires, each with the file
that says most. Files below /usr/local and /opt, which no package has, become lines of [files]. Then run the
command again in a fresh jail of the list.

Both runs have their own copies of what is bound writable (--cwd, --bind), so your files stay as they are.
"""
_EPILOG = """\
examples:
  pkgjail learn -o list.toml --cwd -- make
  pkgjail learn -o list.toml --base base --cwd -- sh -c './configure && make'
  pkgjail learn --no-check --cwd -- ./build.sh > list.toml
  pkgjail learn -o list.toml --manifest spack.manifest.jsonl --cwd -- make

One run says what this run needed: another configuration may need more.

exit status: 0 done; 1 the command ended otherwise with the list, which is written all the same, or the work
could not be done; 2 bad usage or bad input
"""
_MOST_LOG = 2000


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "learn",
        help="write the whitelist that a command needs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="the whitelist (default: standard output)"
    )
    parser.add_argument(
        "--base",
        action="append",
        default=[],
        metavar="LIST",
        help="a whitelist that the result includes; what it brings needs no line (may be repeated)",
    )
    parser.add_argument(
        "--manifest",
        default="",
        metavar="MANIFEST",
        help="run the command in this jail, not in that of everything",
    )
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="do not run the command again with the list"
    )
    add_jail_options(parser)
    parser.add_argument("--json", action="store_true", help="print what pkgjail has to say as JSON")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="what to run")
    parser.set_defaults(run=run, failure=0, result_is_output=without_file)


def run(arguments: argparse.Namespace) -> int:
    """Learn, write the list, and report the check; return 1 if the command ended otherwise with the list."""
    from pkgjail.audit.learn import whitelist_text
    from pkgjail.audit.learn_build import learn_build
    from pkgjail.audit.spack_names import load_spack_names
    from pkgjail.cli.manifests import read_manifest

    if arguments.recommends is not None or arguments.essential is not None:
        raise UsageError("cannot learn with --recommends or --no-essential: the list says what is needed")
    names = load_spack_names()
    with ConsoleReporter(as_json=arguments.json) as reporter:
        built = learn_build(
            arguments.command,
            jail_options(arguments),
            manifest=read_manifest(arguments.manifest) if arguments.manifest else None,
            base=[_absolute(name) for name in arguments.base],
            blacklists=arguments.blacklist,
            names=names,
            check=arguments.check,
            root=root_of(arguments),
            backend=arguments.backend,
            publisher=publisher_of_manifest(arguments),
            reporter=reporter,
        )
        for path in built.learned.refused:
            reporter.warn(f"{printable(path)}: a whitelist cannot name it, and no package has it")
        _warn_of_failure(built, reporter)
    text = whitelist_text(built.learned)
    if arguments.output == "-":
        write_result(text.encode())
    else:
        with open(arguments.output, "w", encoding="utf-8") as file:
            file.write(text)
    print_note(_summary(built), sys.stderr if arguments.output == "-" else sys.stdout)
    return 0 if built.is_right else 1


def _absolute(name: str) -> str:
    """Return the name of a list for a file that may stand elsewhere."""
    return os.path.abspath(name) if "/" in name or name.endswith(".toml") else name


def _warn_of_failure(built: LearnedBuild, reporter: ConsoleReporter) -> None:
    if built.first.status:
        reporter.warn(
            f"the command ended with status {built.first.status} already in the first jail: the list has "
            "what it needed until then"
        )
    if built.checked is not None and not built.is_right:
        said = built.checked.log[-_MOST_LOG:].decode("utf-8", "replace").strip() or built.checked.error
        reporter.warn(f"with the list, the command said last:\n{printable_lines(said)}")


def _summary(built: LearnedBuild) -> str:
    learned = built.learned
    packages, files = counted(len(learned.packages), "line"), counted(len(learned.files), "line")
    rows = [f"{counted(learned.used, 'package')} used; {packages} of packages, {files} of files"]
    if built.checked is not None:
        same = "as before" if built.is_right else f"not with {built.first.status} as before"
        rows.append(
            f"in a fresh jail of the list ({counted(built.packages, 'package')}), the command ended with "
            f"status {built.checked.status}, {same}"
        )
        differences = len(built.comparison.differences) + built.comparison.more
        if built.first.outputs.files:
            what = counted(differences, "difference") if differences else "no difference"
            times = " (what differs from run to run, such as times, is among them)" if differences else ""
            rows.append(f"its output has {what}{times}")
    return "\n".join(rows)
