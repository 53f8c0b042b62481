"""`pkgjail run`: run a command in the jail of a manifest."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from pkgjail.cli.jail_options import (
    MANIFEST_HELP,
    add_arch_option,
    add_audit_option,
    add_command,
    add_jail_options,
    add_stage_option,
    can_replay,
    climb,
    command_of,
    is_whitelist,
    jail_options,
    load_manifest,
    open_jail,
    publisher_of_manifest,
    run_audited_in,
    run_in_named_stage,
    stage_of,
)
from pkgjail.cli.manifests import STDIN
from pkgjail.cli.parser import WHOLE_IMAGE, Parser
from pkgjail.cli.policy_options import root_of, source_place
from pkgjail.cli.project import add_locked_option, enter_project
from pkgjail.cli.results import never
from pkgjail.core.stage_names import AUTO, DEFAULT
from pkgjail.jails.replay import bind_source_state, save_prepared_jail
from pkgjail.settings.files import settings_state
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.jails.run import Jail
    from pkgjail.settings.files import SettingsState

_DESCRIPTION = """\
Run a command in a jail that shows exactly the files of a manifest, read-only, and nothing else of
the host: no root, no daemon. /tmp is private, /dev is minimal, only TERM of the caller's
environment variables is passed on, and every capability is dropped. A name that is not in the manifest
does not exist (ENOENT).
"""
_EPILOG = """\
examples:
  pkgjail run --cwd spack.manifest.jsonl -- gcc -o hello hello.c
  pkgjail run --no-network --bind /scratch/build:/build spack.manifest.jsonl -- make -C /build
  pkgjail run --memory 4G --cpus 2 --pids 500 --cwd spack -- make -j2
  pkgjail run --source image:bookworm -- cat /etc/os-release    (the whole image)
  pkgjail run --stage podman --cwd spack.manifest.jsonl -- make     ('pkgjail stages' lists them)
  pkgjail run --audit audit.jsonl --cwd spack -- ./configure      ('pkgjail audit show audit.jsonl')
  pkgjail run --package gcc --package zlib1g-dev --cwd -- gcc -c uses-zlib.c
  pkgjail run -- make                                  (by the pkgjail.toml here; see 'pkgjail init')
  pkgjail run spack -- python3 -c 'import ssl'          (a whitelist, resolved on the spot)

The exit status is the command's, or 128 + n after signal n; 125 if pkgjail failed (bad usage, a
bad manifest, no jail on this host), 126 if the command cannot be executed, 127 if the jail has no
such command, 137 if it was killed at its memory limit.
"""


_TEXTS: dict[str, Any] = {
    "usage": "pkgjail run [options] MANIFEST [options] -- COMMAND [ARGUMENT ...]\n"
    "       pkgjail run [options] --package PACKAGE -- COMMAND [ARGUMENT ...]\n"
    "       pkgjail run [options] --source image:NAME -- COMMAND [ARGUMENT ...]\n"
    "       pkgjail run [options] -- COMMAND [ARGUMENT ...]      (a project)",
    "description": _DESCRIPTION,
    "epilog": _EPILOG,
}


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("run", help="run a command in the jail of a manifest", **_TEXTS)
    parser.add_argument("manifest", metavar="MANIFEST", help=MANIFEST_HELP)
    _add_rest(parser)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Add everything that may follow MANIFEST."""
    add_jail_options(parser)
    add_stage_option(parser)
    add_arch_option(parser)
    add_audit_option(parser)
    add_locked_option(parser)
    add_command(parser)
    parser.set_defaults(
        run=run, report_changes=report_changes, failure=125, result_is_output=never, project=None
    )


def _command(arguments: argparse.Namespace) -> list[str]:
    rest = Parser(prog="pkgjail run", **_TEXTS)
    _add_rest(rest)
    return command_of(arguments, rest)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    command = _command(arguments)
    enter_project(arguments)
    settings = settings_state()  # before they are read
    stage = stage_of(arguments)
    if stage not in {DEFAULT, AUTO}:
        return run_in_named_stage(arguments, stage, command, terminal=arguments.tty)
    source = source_place(arguments)
    name = source if arguments.manifest == WHOLE_IMAGE else os.fsencode(arguments.manifest)
    places = [bind_source_state(path) for path in (name, source)]
    # Before they are read.
    watched = (*places[0][:2], *(places[1][:2] if arguments.source else ()))
    before = take_settled_fingerprint(filter(os.path.lexists, watched))
    manifest, options = load_manifest(arguments), jail_options(arguments)
    if stage == AUTO and (stage := climb(arguments, manifest, options)) != DEFAULT:
        return run_in_named_stage(
            arguments, stage, command, manifest=manifest, options=options, terminal=arguments.tty
        )
    jail = open_jail(arguments, manifest, options)
    if arguments.audit:
        return run_audited_in(jail, command, arguments.audit, terminal=arguments.tty)
    is_complete = not (is_whitelist(arguments.manifest) or arguments.project or arguments.manifest == STDIN)
    if before and jail.lasting and can_replay(arguments) and is_complete:
        jail.prepared.watched += before
        jail.prepared.sources += tuple(places)
        with contextlib.suppress(OSError):  # otherwise the next entry prepares its jail again
            _remember(arguments, jail, settings)
    return jail.enter(command, terminal=arguments.tty)


def report_changes(arguments: argparse.Namespace, status: int) -> None:
    """Warn of files of the manifest that changed while the command ran, or raise `ExitDriftError`."""
    from pkgjail.cli.console import ConsoleReporter
    from pkgjail.jails.drift import DriftCheck
    from pkgjail.jails.run import report_changes as report

    _command(arguments)  # reads the options that follow MANIFEST
    enter_project(arguments)
    manifest = load_manifest(arguments)
    check = DriftCheck(
        publisher=publisher_of_manifest(arguments), reporter=ConsoleReporter(as_json=arguments.json)
    )
    report(manifest, root_of(arguments), check, strict=arguments.strict_exit, status=status)


def _remember(arguments: argparse.Namespace, jail: Jail, settings: SettingsState) -> None:
    """Save the jail, for the same command line to replay as long as the settings are the same."""
    from pkgjail.jails.run import default_environment

    save_prepared_jail(
        arguments.words,
        jail.prepared,
        terminal=arguments.tty,
        variables=arguments.env,
        defaults=default_environment(),
        settings=settings,
    )
