"""`pkgjail enter`: run a command in an environment that `pkgjail build` made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.jail_options import (
    add_audit_option,
    add_command,
    add_jail_options,
    can_replay,
    command_of,
    jail_options,
    run_audited_in,
)
from pkgjail.cli.manifests import is_manifest
from pkgjail.cli.parser import Parser
from pkgjail.cli.results import never
from pkgjail.core.errors import UsageError
from pkgjail.core.text import shell_quote

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.jails.run import Jail

_DESCRIPTION = """\
Run a command in the jail of an environment that 'pkgjail build' made. The environment is first
compared with its record; one that was changed, half built or half removed is refused. The options are
added to those that the environment was built with.
"""
_EPILOG = """\
examples:
  pkgjail enter ~/envs/spack -- gcc --version
  pkgjail enter --cwd --no-network ~/envs/spack -- make

The exit status is as for 'pkgjail run': the command's, or 128 + n after signal n; 125 if pkgjail
failed, 126 if the command cannot be executed, 127 if the jail has no such command.
"""
_TEXTS: dict[str, Any] = {
    "usage": "pkgjail enter [options] DIR [options] -- COMMAND [ARGUMENT ...]",
    "description": _DESCRIPTION,
    "epilog": _EPILOG,
}


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser("enter", help="run a command in an environment", **_TEXTS)
    parser.add_argument("directory", metavar="DIR", help="the environment's directory")
    _add_rest(parser)


def _add_rest(parser: argparse.ArgumentParser) -> None:
    """Add everything that may follow DIR."""
    add_jail_options(parser, resolving=False)
    add_audit_option(parser)
    add_command(parser)
    parser.set_defaults(run=run, report_changes=report_changes, failure=125, result_is_output=never)


def report_changes(arguments: argparse.Namespace, status: int) -> None:
    """Warn of files of the environment that changed while the command ran, or raise `ExitDriftError`."""
    from pkgjail.environments.enter import report_environment_changes

    _command(arguments)  # reads the options that follow DIR
    directory = os.fsencode(arguments.directory)
    reporter = ConsoleReporter(as_json=arguments.json)
    report_environment_changes(directory, status, strict=arguments.strict_exit, reporter=reporter)


def _command(arguments: argparse.Namespace) -> list[str]:
    rest = Parser(prog="pkgjail enter", **_TEXTS)
    _add_rest(rest)
    return command_of(arguments, rest)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    from pkgjail.environments.enter import enter_and_save, enter_environment

    command = _command(arguments)
    if is_manifest(arguments.directory):
        quoted = shell_quote(arguments.directory)
        raise UsageError(
            f"{arguments.directory!r} is a manifest, and an environment is wanted here: run commands in the "
            f"manifest's jail with 'pkgjail run {quoted} -- COMMAND'"
        )
    options = jail_options(arguments, defaults={})
    directory = os.fsencode(arguments.directory)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        if arguments.audit:

            def run_audited(jail: Jail, source: bytes) -> int:
                return run_audited_in(jail, command, arguments.audit, source=source, terminal=arguments.tty)

            return enter_environment(directory, command, options, run=run_audited, reporter=reporter)
        if not can_replay(arguments):
            return enter_environment(directory, command, options, terminal=arguments.tty, reporter=reporter)
        return enter_and_save(
            directory,
            command,
            options,
            arguments.words,
            variables=arguments.env,
            terminal=arguments.tty,
            reporter=reporter,
        )
