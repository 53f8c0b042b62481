"""`pkgjail build`: make an environment, a directory to enter again and again."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter, human_size
from pkgjail.cli.jail_options import (
    add_sight_options,
    named_binds,
    named_devices,
    named_sets,
    named_variables,
)
from pkgjail.cli.machine_options import add_kept_machine_options, kept_stage
from pkgjail.cli.output import write_result
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.verbosity import print_note
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, printable, shell_quote

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.environments.journal import Built

_DESCRIPTION = """\
Make DIR an environment of a manifest, to be entered again and again with 'pkgjail enter' and removed
with 'pkgjail remove'. DIR must not exist, or be an empty directory of yours. It receives the
manifest, a record of what was made, and the options for every entry; nothing is mounted. Each entry
shows the host's files as they are then; with --copy they are copied now, and outlive upgrades of the
host. With --stage vm commands run in a virtual machine that is kept running between them; the other
stages are those of 'pkgjail run'.
"""
_EPILOG = """\
examples:
  pkgjail build spack.manifest.jsonl ~/envs/spack
  pkgjail build --copy --bind /scratch --no-network spack.manifest.jsonl /srv/envs/2026-01
  pkgjail build --stage vm --memory 4G --bind /scratch spack.manifest.jsonl ~/envs/machine
  pkgjail build --fstab spack.manifest.jsonl /srv/jail > jail.fstab   (for an administrator to add)

However a build is interrupted, 'pkgjail remove DIR' removes what it left. docs/environments.md
describes the contents of DIR.
"""


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "build",
        help="make an environment, to be entered again and again",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    parser.add_argument("directory", metavar="DIR", help="the environment's directory")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--copy",
        dest="form",
        action="store_const",
        const="copy",
        help="copy the files to DIR/root, each checked (as reflinks if the file system has them)",
    )
    forms.add_argument(
        "--fstab",
        dest="form",
        action="store_const",
        const="fstab",
        help="make mount points in DIR/root, and print lines for fstab(5) that mount the files there",
    )
    add_source_options(parser, "where the manifest's files are")
    add_sight_options(parser)
    add_kept_machine_options(parser, "all but the first with --stage vm")
    parser.add_argument("--json", action="store_true", help="print the summary, and fstab's lines, as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=_prints_lines, form="host")


def _prints_lines(arguments: argparse.Namespace) -> bool:
    return bool(arguments.form == "fstab")


def run(arguments: argparse.Namespace) -> int:
    """Build the environment, and print what was built."""
    from pkgjail.cli.manifests import is_manifest, read_manifest
    from pkgjail.environments.build import build_environment
    from pkgjail.environments.directory import parent_and_name

    if is_manifest(arguments.directory):
        both = f"{shell_quote(arguments.directory)} {shell_quote(arguments.manifest)}"
        raise UsageError(
            f"{arguments.directory!r} is a manifest, and not a directory: MANIFEST comes first, as in "
            f"'pkgjail build {both}'"
        )
    manifest = read_manifest(arguments.manifest)
    directory = os.fsencode(arguments.directory)
    root = root_of(arguments)
    stage, machine = kept_stage(arguments)
    lines = b""
    if arguments.form == "fstab":
        from pkgjail.export import export_manifest

        tree = b"/".join((*parent_and_name(directory), b"root"))
        lines = export_manifest(manifest, "fstab", root=root, at=tree)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        built = build_environment(
            manifest,
            directory,
            form=arguments.form,
            root=root,
            binds=tuple(named_binds(arguments)),
            devices=named_devices(arguments),
            device_sets=named_sets(arguments),
            network=not arguments.no_network,
            variables=named_variables(arguments),
            machine=machine,
            stage=stage,
            reporter=reporter,
        )
    _print(arguments, built, lines)
    return 0


def _print(arguments: argparse.Namespace, built: Built, lines: bytes) -> None:
    if arguments.json:
        facts: dict[str, Any] = {
            "directory": os.path.realpath(arguments.directory),
            "form": arguments.form,
            "names": built.names,
            "bytes": built.bytes,
        }
        if lines:
            facts["fstab"] = os.fsdecode(lines).splitlines()
        print(json.dumps(facts, indent=2))
        return
    write_result(lines)
    # fstab's lines go to a file; the summary does not belong in it.
    out = sys.stderr if lines else sys.stdout
    print_note(
        f"{printable(arguments.directory)}: {counted(built.names, 'name')}, {human_size(built.bytes)}; "
        f"enter it with: pkgjail enter {shell_quote(arguments.directory)} -- COMMAND",
        out,
    )
