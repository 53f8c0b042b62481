"""`pkgjail audit influence`: run a build again with each package that it asked for, and show what changes."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

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
from pkgjail.cli.results import always
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, printable, text_path

if TYPE_CHECKING:
    import argparse

    from pkgjail.audit.influence import Influence, Trial
    from pkgjail.cli.parser import Verbs

_MOST_LINES = 5
_FEW = 3
_TEXTS: dict[str, Any] = {
    "usage": "pkgjail audit influence --output DIR [options] MANIFEST [options]\n       -- COMMAND ...",
    "description": """\
Say which packages of this system change a build. The build is run twice as it is, and then once more with
each package that it asked for and its jail does not have. What it put out is compared: exit status, libraries
that files need, config.h, the tests in config.log, CMakeCache.txt, meson's introspection, names, and bytes.
What differs between the first two runs does not count.

Each run has a private copy of what is bound writable, so nothing of yours is changed.
""",
    "epilog": """\
examples:
  pkgjail audit influence --cwd --output build base -- sh -c 'cmake -B build && make -C build'
  pkgjail audit influence --cwd --output . --limit 5 --fail-on changed m.jsonl -- ./configure
  pkgjail audit influence --cwd --output . --try zlib1g-dev m.jsonl -- ./configure

exit status: 0 done, 1 with --fail-on changed if a package changes the build, 2 bad usage or bad input, 3 this
host cannot make the jail
""",
}


def add_influence(commands: Verbs) -> None:
    """Add this command's arguments and help."""
    parser = commands.add_parser(
        "influence", help="say which packages of this system change a build", **_TEXTS
    )
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    _add_rest(parser)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Add everything that may follow MANIFEST."""
    parser.add_argument(
        "--output", metavar="DIR", help="the directory that the build puts its outputs in, in a writable bind"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="try the N most telling packages")
    parser.add_argument(
        "--try",
        action="append",
        dest="tried",
        default=[],
        metavar="NAME",
        help="try this package, or an absolute path that no package has, wanted or not (may be repeated)",
    )
    parser.add_argument(
        "--record", metavar="FILE", help="take what the build asks for from this record of --audit"
    )
    parser.add_argument("--fail-on", choices=("changed",), help="exit 1 if a package changes the build")
    add_jobs_option(parser)
    add_jail_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result, and errors, as JSON")
    add_command_alone(parser)
    parser.set_defaults(run=run, failure=0, result_is_output=always)


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for how many builds run at a time."""
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="run at most N builds at a time; as many as there are processors",
    )


def jobs_of(arguments: argparse.Namespace) -> int:
    """Return the number of builds at a time."""
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError(f"cannot run {arguments.jobs} builds at a time: name 1 or more with --jobs")
    return arguments.jobs or len(os.sched_getaffinity(0))


def output_of(arguments: argparse.Namespace) -> bytes:
    """Return the absolute path of `--output`."""
    if not arguments.output:
        raise UsageError("there are no outputs to compare; name their directory with --output")
    return os.path.abspath(os.fsencode(arguments.output))


def run(arguments: argparse.Namespace) -> int:
    """Print what each package changes; return 1 if `--fail-on` says so."""
    from pkgjail.audit.influence import find_influence
    from pkgjail.audit.record import read_audit
    from pkgjail.cli.console import ConsoleReporter

    rest = Parser(prog="pkgjail audit influence", **_TEXTS)
    _add_rest(rest)
    command = command_of(arguments, rest)
    if arguments.limit is not None and arguments.limit < 0:
        raise UsageError(f"cannot try {arguments.limit} packages: name 0 or more with --limit")
    with ConsoleReporter(as_json=arguments.json) as reporter:
        found = find_influence(
            load_manifest(arguments),
            command,
            jail_options(arguments),
            output_of(arguments),
            audit=read_audit(arguments.record) if arguments.record else None,
            packages=arguments.tried,
            limit=arguments.limit,
            jobs=jobs_of(arguments),
            root=root_of(arguments),
            publisher=publisher_of_manifest(arguments),
            reporter=reporter,
        )
    if arguments.json:
        json.dump(_facts(found), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(_text(found)))
    changed = any(trial.verdict == "changed" for trial in found.trials)
    return int(changed and arguments.fail_on == "changed")


def _text(found: Influence) -> list[str]:
    lines = [f"the build ends with status {found.status}; {counted(found.runs, 'run')}"]
    for trial in found.trials:
        lines += _trial_text(trial)
    if not found.trials:
        lines.append("it asks for nothing that this system has and the jail does not")
    if found.left_out:
        lines.append(f"not tried, beyond --limit: {found.left_out:,}")
    return lines


def _trial_text(trial: Trial) -> list[str]:
    from pkgjail.cli.difference_text import difference_lines, paths_text

    what = f"{trial.package or 'no package'}: "
    asked = f"    asked for: {paths_text(trial.paths, _FEW)}"
    detail = [asked] if trial.paths else []
    if trial.verdict == "changed":
        changes = [f"    {line}" for line in difference_lines(trial.comparison, _MOST_LINES)]
        return [f"{what}changed the build", *detail, *changes]
    if trial.verdict == "untried":
        return [f"{what}could not be tried: {printable(trial.why)}", *detail]
    if trial.through:
        return [
            f"{what}asked for, changed nothing that {trial.through}, which it requires, does not",
            *detail,
        ]
    return [f"{what}{'asked for, ' if trial.paths else ''}changed nothing", *detail]


def _facts(found: Influence) -> dict[str, Any]:
    """Return the result as JSON has it."""
    from pkgjail.cli.difference_text import comparison_facts

    return {
        "status": found.status,
        "runs": found.runs,
        "left_out": found.left_out,
        "packages": [
            {
                "package": trial.package,
                "verdict": trial.verdict,
                "paths": list(map(text_path, trial.paths)),
                "added": list(trial.added),
                "through": trial.through,
                "why": trial.why,
                **comparison_facts(trial.comparison),
            }
            for trial in found.trials
        ],
    }
