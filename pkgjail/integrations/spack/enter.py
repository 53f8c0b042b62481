"""Enter the active environment of a Spack, with Spack's own directories and variables."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.jail_options import run_audited_in
from pkgjail.core.errors import InputError, PkgjailError, Problem
from pkgjail.core.options import JailOptions
from pkgjail.environments.directory import read_header
from pkgjail.environments.enter import enter_and_save, enter_environment, report_environment_changes
from pkgjail.environments.isolate import VARIABLE
from pkgjail.integrations.spack.active import protected_directories
from pkgjail.integrations.spack.caller.place_binds import find_places, show_places
from pkgjail.integrations.spack.caller.places import why_not_whole
from pkgjail.integrations.spack.caller.variables import configuring_variables
from pkgjail.integrations.spack.instance.model import (
    has_all_paths,
    instance_binds,
    is_covered,
    make_directories,
    never_shown,
    symbolic_links,
)
from pkgjail.integrations.spack.messages import print_warning
from pkgjail.integrations.spack.replay import has_terminal, invocation, replay_entry
from pkgjail.jails.protected_paths import directories_of_python
from pkgjail.jails.variables import OWN
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pkgjail.core.options import UserBind
    from pkgjail.environments.enter import States
    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.caller.request import Request
    from pkgjail.integrations.spack.instance.model import Instance
    from pkgjail.jails.run import Jail


def enter(  # noqa: PLR0913 - four by position, two that belong together
    active: ActiveEnvironment,
    instance: Instance,
    argv: Sequence[str],
    request: Request,
    *,
    key: Sequence[str] = (),
    watched: States = (),
    record: str = "",
) -> int:
    """Run `argv` in the environment, with what `instance` needs; return its exit status.

    If all three of the command's descriptors are a terminal, it gets a terminal in the jail.

    Args:
        active: the environment.
        instance: the Spack.
        argv: the command.
        request: what it asks for.
        key: the key by which the jail is saved (`replay_key`); without one, a digest of the jail's options.
        watched: the states of the files that `instance` depends on, as `enter_and_save` takes them.
        record: a file for the record of an audit; "" for none.

    Raises:
        PkgjailError, OSError: as `enter_and_save` and `show_places`.

    """
    make_directories(instance)
    binds = instance_binds(instance)
    directory = os.fsencode(active.environment)
    inputs = protected_inputs(active, instance)
    header = read_header(directory)
    _refuse_never_shown(instance, header.binds)
    if header.machine is None:
        shown = show_places(request, directory, binds, inputs)
    else:
        shown = find_places(request, directory, binds)
    for warning in shown.warnings:
        print_warning(warning)
    options = JailOptions(
        binds=(*(bind for bind in binds if not is_covered(bind, shown.binds)), *shown.binds),
        cwd=shown.cwd,
        paths=(shown.cwd, *_paths(request)),
        environment=jail_variables(os.environ, active, instance, request.options),
        inputs=inputs,
        warn_of_inputs=False,  # the binds are Spack's own, and docs/spack.md says what is read-only in them
    )
    terminal = has_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    if record or header.machine is not None:
        options = replace(options, environment={**request.given, **header.variables, **options.environment})
    if record:

        def run_audited(jail: Jail, source: bytes) -> int:
            return run_audited_in(jail, argv, record, source=source, terminal=terminal)

        with ConsoleReporter() as reporter:
            return enter_environment(directory, argv, options, run=run_audited, reporter=reporter)
    if header.machine is not None:
        with ConsoleReporter() as reporter:
            return enter_environment(directory, argv, options, terminal=terminal, reporter=reporter)
    if key and not shown.warnings and has_all_paths(instance, binds):
        watched += take_settled_fingerprint(symbolic_links(instance))
    else:
        everything = repr((options, terminal, sorted(options.environment.items())))
        key = [hashlib.sha256(everything.encode("utf-8", "surrogateescape")).hexdigest()]
        status = replay_entry(active, key, argv, partial(report_host_changes, active), request.given)
        if status is not None:
            return status
    with ConsoleReporter() as reporter:
        return enter_and_save(
            directory,
            argv,
            options,
            invocation(active, key, argv),
            given=request.given,
            compared=instance.variables,
            watched=watched,
            terminal=terminal,
            reporter=reporter,
        )


def _refuse_never_shown(instance: Instance, binds: Iterable[UserBind]) -> None:
    """Refuse a Spack that writes to the user's home itself, or the like: all of it would have to be shown."""
    for path in never_shown(instance, binds):
        raise InputError(
            [
                Problem(
                    "",
                    f"cannot show {path} in the jail, to which Spack writes (an environment or a view): "
                    f"{why_not_whole(path)}; let it write to a directory in it, or use "
                    f"'spack jail --build-environment' with --bind {path}",
                )
            ]
        )


def protected_inputs(active: ActiveEnvironment, instance: Instance) -> tuple[bytes, ...]:
    """Return what no command in the jail may change: the environment, its record, and Spack's interpreters.

    These interpreters also run Spack outside of the jail.
    """
    prefixes = {os.path.dirname(os.path.dirname(python)) for python in (active.python, instance.python)}
    pythons = [path for prefix in sorted(prefixes) for path in directories_of_python(prefix)]
    paths = [*protected_directories(instance.root, os.environ), *filter(os.path.isdir, pythons)]
    return tuple(map(os.fsencode, (os.path.realpath(active.environment), *paths)))


def _paths(request: Request) -> tuple[bytes, ...]:
    """Return the paths by which programs find Spack, which may lead through links."""
    found = (request.script, os.environ.get("SPACK_ROOT", ""))
    return tuple(os.fsencode(path) for path in found if os.path.isabs(path))


def jail_variables(
    variables: Mapping[str, str],
    active: ActiveEnvironment,
    instance: Instance,
    options: Sequence[str] = (),
) -> dict[str, str]:
    """Return the variables that the jail depends on, and those that Spack's configuration refers to."""
    named = {name: variables[name] for name in instance.variables if name in variables and name not in OWN}
    passed = configuring_variables(variables, options)
    del passed["USER"]  # the jail has its own
    return {**passed, **named, "SPACK_PYTHON": instance.python, VARIABLE: active.environment}


def report_host_changes(active: ActiveEnvironment, status: int) -> int:
    """Warn of files of the environment that changed on the host while a command ran; return its status."""
    reporter = ConsoleReporter()
    try:
        directory = os.fsencode(active.environment)
        report_environment_changes(directory, status, strict=False, reporter=reporter)
    except (PkgjailError, OSError) as error:
        reporter.warn(f"cannot check whether the host changed while the command ran: {error}")
    return status
