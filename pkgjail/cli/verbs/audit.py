"""`pkgjail audit`: report what an audited command looked for, and compare audits."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.audit_influence import add_influence
from pkgjail.cli.manifests import named_file
from pkgjail.cli.results import always
from pkgjail.core.errors import QuestionError
from pkgjail.core.text import printable, raw_path, text_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pkgjail.audit.model import Audit, LookUp
    from pkgjail.cli.audit_text import Names
    from pkgjail.cli.parser import Verbs

_DESCRIPTION = """\
Report the record of 'pkgjail run --audit FILE': what the command used of its jail, and what it asked for
that this system has and the jail does not.
"""
_EPILOG = """\
examples:
  pkgjail run --audit audit.jsonl --cwd base -- ./configure
  pkgjail audit show audit.jsonl
  pkgjail audit show --fail-on wanted --format markdown audit.jsonl
  pkgjail audit why audit.jsonl /usr/include/zlib.h
  pkgjail audit diff before.jsonl after.jsonl
  pkgjail audit influence --cwd --output . base -- ./configure
"""
_SHOW = """\
Report an audit: packages of the manifest that the command used, packages of this system that it wanted and
the jail does not have, with the path that says most, the test or the line of the build's own files that
names it, the whitelist's line that would bring it, and what a Spack recipe probably lacks.

An audit is evidence: that a build asked for a file does not say that the file would have changed it.
"""
_SHOW_EPILOG = """\
exit status: 0 done, 1 with --fail-on wanted if anything is wanted, 2 bad usage or bad input

Names that Spack has for packages can be added in pkgjail/spack-names.toml in your configuration directory
($XDG_CONFIG_HOME or ~/.config).
"""
_WHY = """\
Say who asked for a path, or for any path of a package: the programs, each with those that started it, what
the jail has there, and who has the path.
"""
_DIFF = """\
Say what a command wants and uses according to one audit and not to another.
"""
_DIFF_EPILOG = """\
exit status, as diff(1): 0 the same, 1 they differ, 2 trouble
"""
FORMATS = ("text", "markdown", "json")
_RECORD = "a record that --audit made"


def add_parser(verbs: Verbs) -> None:
    """Add this verb's commands and their help."""
    parser = verbs.add_parser(
        "audit",
        help="report what an audited command looked for",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    commands: Verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="what", required=True)
    show = commands.add_parser(
        "show", help="report what was used and wanted", description=_SHOW, epilog=_SHOW_EPILOG
    )
    show.add_argument("audit", type=named_file, metavar="FILE", help=_RECORD)
    show.add_argument(
        "--manifest", metavar="MANIFEST", help="the jail's manifest, to say what was never used"
    )
    form = show.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    form.add_argument("--json", dest="format", action="store_const", const="json", help="--format json")
    show.add_argument(
        "--all", action="store_true", help="text: print every row, not only the first of each list"
    )
    show.add_argument(
        "--recipes",
        metavar="DIR",
        default="",
        help="the directory 'packages' of a repository of Spack's recipes",
    )
    show.add_argument("--fail-on", choices=("wanted",), help="exit 1 if the command wanted anything")
    show.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="leave out a package that was wanted, such as locales, which many ask for (may be repeated)",
    )
    show.set_defaults(run=run_show, failure=0, result_is_output=always)
    why = commands.add_parser("why", help="say who asked for a path", description=_WHY)
    why.add_argument("audit", type=named_file, metavar="FILE", help=_RECORD)
    why.add_argument("asked", nargs="+", metavar="PATH|PACKAGE", help="an absolute path or a package's name")
    why.add_argument("--json", action="store_true", help="print the same as JSON")
    why.set_defaults(run=run_why, failure=0, result_is_output=always)
    diff = commands.add_parser("diff", help="compare two audits", description=_DIFF, epilog=_DIFF_EPILOG)
    diff.add_argument("old", type=named_file, metavar="OLD", help=_RECORD)
    diff.add_argument("new", type=named_file, metavar="NEW", help="another")
    diff.add_argument("--json", action="store_true", help="print the same as JSON")
    diff.set_defaults(run=run_diff, failure=2, result_is_output=always)
    add_influence(commands)
    parser.inner.update(commands.choices)


def run_show(arguments: argparse.Namespace) -> int:
    """Print the report; return 1 if `--fail-on` says so."""
    from pkgjail.audit.advice import advise
    from pkgjail.audit.record import read_audit
    from pkgjail.audit.spack_names import load_spack_names
    from pkgjail.audit.wanted import used
    from pkgjail.cli.audit_text import facts, markdown, text, warn_of_other_manifest
    from pkgjail.cli.manifests import read_manifest

    audit = read_audit(arguments.audit)
    use = None
    if arguments.manifest:
        manifest = read_manifest(arguments.manifest)
        warn_of_other_manifest(audit, manifest, as_json=arguments.format == "json")
        use = used(audit, manifest)
    wanted = advise(audit, load_spack_names(arguments.recipes))
    ignored = {*arguments.ignore}
    advice = tuple(one for one in wanted if not ignored & {one.package, one.package.partition(":")[0]})
    if arguments.format == "json":
        json.dump(facts(audit, advice, use), sys.stdout, indent=2)
        print()
    elif arguments.format == "markdown":
        print(markdown(audit, advice), end="")
    else:
        most = None if arguments.all else 10
        command = "pkgjail audit influence MANIFEST --output DIR -- COMMAND"
        print("\n".join(map(printable, text(audit, advice, use, most=most, command=command))))
    return 1 if arguments.fail_on and advice else 0


def run_why(arguments: argparse.Namespace) -> int:
    """Print who asked for each path or package; return 1 if nobody asked for one."""
    from pkgjail.audit.record import read_audit
    from pkgjail.cli.audit_text import Names, look_up_facts

    audit = read_audit(arguments.audit)
    names = Names(audit.programs)
    found = [(word, _asked(audit, os.fsencode(word))) for word in arguments.asked]
    if arguments.json:
        answers = [
            {"asked": word, "paths": [look_up_facts(each, names) for each in look_ups]}
            for word, look_ups in found
        ]
        json.dump(answers, sys.stdout, indent=2)
        print()
    else:
        for word, look_ups in found:
            for line in _why_text(word, look_ups, audit, names):
                print(printable(line))
    return 0 if all(look_ups for _, look_ups in found) else 1


def _asked(audit: Audit, word: bytes) -> list[LookUp]:
    """Return the look-ups of a path, or of a package's paths."""
    if word.startswith(b"/"):
        return [look_up for look_up in audit.look_ups if look_up.path == word]
    name = word.decode("utf-8", "surrogateescape")
    if "/" in name or not name:
        raise QuestionError(f"cannot say who asked for {name!r}: write an absolute path or a package's name")
    return [
        look_up
        for look_up in audit.look_ups
        if any(name in {owner, owner.rpartition(":")[0]} for owner in look_up.owners)
    ]


def _why_text(word: str, look_ups: list[LookUp], audit: Audit, names: Names) -> Iterator[str]:
    from pkgjail.cli.audit_text import how, mention_text

    if not look_ups:
        yield f"{word}: {_nowhere(word, audit)}"
    for look_up in look_ups:
        yield f"{text_path(look_up.path)}: {_answer(look_up)}"
        yield f"  {how(look_up, names)}"
        for number, count in sorted(look_up.programs, key=lambda pair: -pair[1]):
            yield f"  {count:,} by {names.chain(number)}"
        yield from (f"  {mention_text(mention)}" for mention in look_up.mentions)


def _answer(look_up: LookUp) -> str:
    """Say what a path is inside, or who has it that the jail does not have."""
    owners = ", ".join(look_up.owners) or "no package"
    if look_up.inside != "absent":
        return (
            f"{look_up.inside}, of {owners}" if look_up.area == "manifest" else f"{look_up.inside}, in a bind"
        )
    rule = f"; dropped by {look_up.rule}" if look_up.rule else ""
    return f"not in the jail; the source has it from {owners}{rule}"


def _nowhere(word: str, audit: Audit) -> str:
    """Say of a path that was not recorded by name whether names of its directory were asked for."""
    if not word.startswith("/"):
        return "the command asked for none of its paths"
    directory = raw_path(word).rpartition(b"/")[0] or b"/"
    counts = next((each for each in audit.nowhere if each.directory == directory), None)
    if counts is None:
        return "the command did not ask for it"
    place = text_path(directory)
    return (
        f"not recorded by name; of names in {place} that are nowhere, or that the jail itself has there, the "
        f"command asked for some {counts.asked:,} times"
    )


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the difference; return 1 if there is one."""
    from pkgjail.audit.compare import compare_audits
    from pkgjail.audit.record import read_audit
    from pkgjail.cli.audit_text import difference_facts, difference_text

    difference = compare_audits(read_audit(arguments.old), read_audit(arguments.new))
    if arguments.json:
        json.dump(difference_facts(difference), sys.stdout, indent=2)
        print()
    else:
        for line in difference_text(difference):
            print(printable(line))
    return 0 if difference.same else 1
