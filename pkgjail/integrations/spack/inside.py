"""Run a Spack command in the active environment, whichever hook asked for it.

This module imports little, so that commands start quickly when no environment is active.
"""

from __future__ import annotations

import os
import sys

from pkgjail.integrations.spack.active import load_active
from pkgjail.integrations.spack.caller.argv import is_jail_command, split_argv
from pkgjail.integrations.spack.caller.request import request_of
from pkgjail.integrations.spack.extensions import has_isolate
from pkgjail.integrations.spack.messages import print_error, print_warning
from pkgjail.integrations.spack.replay import replay_entry, replay_key
from pkgjail.jails.detect import is_isolated

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.caller.request import Request


def run_inside(
    root: str, python: str, python_arguments: Sequence[str], spack_arguments: Sequence[str]
) -> int | None:
    """Run a Spack command in the environment that is active for the Spack in `root`.

    Args:
        root: Spack's.
        python: its interpreter.
        python_arguments: the arguments of the interpreter: its options, Spack's script and `spack_arguments`.
        spack_arguments: the arguments of Spack.

    Returns:
        The command's exit status; 1 if the environment cannot be entered, and 130 after Ctrl-C on the way.
        Both errors are printed on standard error in Spack's form. None if the command is to run here.

    """
    if is_isolated():
        return None
    try:
        active = load_active(root, os.environ)
    except ValueError as error:
        return print_error(str(error))
    _, command = split_argv(spack_arguments)
    if active is None or is_jail_command(command, has_isolate=has_isolate(root)):
        return None
    if active.removing:
        from pkgjail.integrations.spack.jail.users import removal_advice

        print_warning(
            f"{active.environment} is being removed, or its removal was interrupted: this command runs "
            f"outside; {removal_advice(active)}"
        )
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    number = len(python_arguments) - len(spack_arguments) - 1
    script = python_arguments[number]
    # The jail need not have the path by which the user came to the script, through links or a directory.
    argv = [python, *python_arguments[:number], os.path.realpath(script), *spack_arguments]
    request = request_of(active, script, spack_arguments)
    key = replay_key(active, python, request)
    try:
        status = None
        if not request.is_new:
            status = replay_entry(
                active, key, argv, lambda status: _report_host_changes(active, status), request.given
            )
        return _enter(active, root, argv, request, key) if status is None else status
    except KeyboardInterrupt as interrupt:
        print_error(str(interrupt) or "interrupted")
        return 130


def _report_host_changes(active: ActiveEnvironment, status: int) -> int:
    from pkgjail.integrations.spack.enter import report_host_changes

    return report_host_changes(active, status)


def _enter(
    active: ActiveEnvironment,
    root: str,
    argv: Sequence[str],
    request: Request,
    key: Sequence[str],
) -> int:
    from pkgjail.core.errors import DriftError, PkgjailError
    from pkgjail.integrations.spack.enter import enter
    from pkgjail.integrations.spack.instance.cache import RefusedOptions, load_or_describe
    from pkgjail.integrations.spack.instance.editor import uncovered_editor
    from pkgjail.integrations.spack.jail.users import leaving_advice, rebuilding_advice

    try:
        cached = load_or_describe(active, root, argv[0], request.options)
        warnings = cached.uncovered if request.is_building else ()
        for tool in warnings:
            print_warning(str(tool))
        editor = request.is_editing and uncovered_editor(
            os.environ, os.fsencode(active.environment), cached.instance
        )
        if editor:
            print_warning(str(editor))
        # A replayed jail would not warn of uncovered tools, and could be wrong if files may have changed.
        if warnings or not cached.states:
            return enter(active, cached.instance, argv, request)
        return enter(active, cached.instance, argv, request, key=key, watched=cached.states)
    except RefusedOptions as error:
        sys.stderr.write(str(error))  # as outside: the command itself would end with it
        return error.status
    except DriftError as error:
        return print_error(f"{error}\n{rebuilding_advice(active)}")
    except PkgjailError as error:
        return print_error(f"{error}\n{leaving_advice(active)}")
    except OSError as error:
        return print_error(f"cannot enter {active.environment}: {error}")
