"""`pkgjail shell`: open an interactive shell in the jail of a manifest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pkgjail.cli.jail_options import (
    MANIFEST_HELP,
    add_arch_option,
    add_audit_option,
    add_jail_options,
    add_stage_option,
    climb,
    jail_options,
    load_manifest,
    needs_digests,
    open_jail,
    run_audited_in,
    run_in_named_stage,
    stage_of,
)
from pkgjail.cli.output import JSON_ERRORS
from pkgjail.cli.project import add_locked_option, enter_project
from pkgjail.cli.results import never
from pkgjail.core.stage_names import AUTO, DEFAULT

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest

_DESCRIPTION = """\
Open a shell in a jail that shows exactly the files of a manifest: bash if the manifest has it,
otherwise sh. The options are those of 'pkgjail run'.
"""
_SHELLS = (b"/usr/bin/bash", b"/bin/bash")


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "shell", help="open a shell in the jail of a manifest", description=_DESCRIPTION
    )
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    add_jail_options(parser)
    add_stage_option(parser)
    add_arch_option(parser)
    add_audit_option(parser)
    add_locked_option(parser)
    parser.add_argument("--json", action="store_true", help=JSON_ERRORS)
    parser.set_defaults(run=run, failure=125, result_is_output=never, project=None)


def run(arguments: argparse.Namespace) -> int:
    """Run the shell; return its exit status."""
    enter_project(arguments)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    stage = stage_of(arguments)
    manifest, options = load_manifest(arguments, hashed=needs_digests(stage)), jail_options(arguments)
    command = [_shell(manifest)]
    stage = climb(arguments, manifest, options) if stage == AUTO else stage
    if stage != DEFAULT:
        return run_in_named_stage(
            arguments, stage, command, manifest=manifest, options=options, terminal=terminal
        )
    jail = open_jail(arguments, manifest, options)
    if arguments.audit:
        return run_audited_in(jail, command, arguments.audit, terminal=terminal)
    return jail.enter(command, terminal=terminal)


def _shell(manifest: Manifest) -> str:
    names = {entry.path for entry in manifest.files}
    return "bash" if any(path in names for path in _SHELLS) else "sh"
