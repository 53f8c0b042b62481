"""Enter the active environment of a Spack, with Spack's own directories and variables."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.core.errors import PkgjailError
from pkgjail.core.model import JailOptions
from pkgjail.environments.enter import enter_and_save, report_environment_changes, working_directory
from pkgjail.environments.isolate import VARIABLE
from pkgjail.integrations.spack.active import protected_directories
from pkgjail.integrations.spack.instance import (
    has_all_paths,
    instance_binds,
    make_directories,
    symbolic_links,
)
from pkgjail.integrations.spack.replay import has_terminal, invocation, passed_variables, replay_entry
from pkgjail.jail.protected_paths import directories_of_python
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.environments.enter import States
    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.instance import Instance


def enter(
    active: ActiveEnvironment,
    instance: Instance,
    argv: Sequence[str],
    *,
    key: Sequence[str] = (),
    watched: States = (),
) -> int:
    """Run `argv` in the environment, with what `instance` needs; return its exit status.

    If all three of the command's descriptors are a terminal, it gets a terminal in the jail.

    Args:
        active: the environment.
        instance: the Spack.
        argv: the command.
        key: the key by which the jail is saved (`replay_key`); without one, a digest of the jail's options.
        watched: the states of the files that `instance` depends on, as `enter_and_save` takes them.

    Raises:
        PkgjailError, OSError: as `enter_and_save`.

    """
    make_directories(instance)
    binds = instance_binds(instance)
    directory = os.fsencode(active.environment)
    cwd = working_directory(directory, binds)
    options = JailOptions(
        binds=binds,
        cwd=cwd,
        paths=(cwd,),
        environment=jail_variables(os.environ, active, instance),
        inputs=_inputs(active, instance),
        warn_of_inputs=False,  # the binds are Spack's own, and docs/spack.md says what is read-only in them
    )
    terminal = has_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    if key and has_all_paths(instance, binds):
        watched += take_settled_fingerprint(symbolic_links(instance))
    else:
        everything = repr((options, terminal, sorted(options.environment.items())))
        key = [hashlib.sha256(everything.encode("utf-8", "surrogateescape")).hexdigest()]
        status = replay_entry(active, key, argv, partial(report_host_changes, active))
        if status is not None:
            return status
    with ConsoleReporter() as reporter:
        return enter_and_save(
            directory,
            argv,
            options,
            invocation(active, key, argv),
            watched=watched,
            terminal=terminal,
            reporter=reporter,
        )


def _inputs(active: ActiveEnvironment, instance: Instance) -> tuple[bytes, ...]:
    """Return what no command in the jail may change: the files that say what is active, and interpreters.

    Spack runs by these interpreters outside of the jail.
    """
    prefixes = {os.path.dirname(os.path.dirname(python)) for python in (active.python, instance.python)}
    pythons = [path for prefix in sorted(prefixes) for path in directories_of_python(prefix)]
    paths = [*protected_directories(instance.root, os.environ), *filter(os.path.isdir, pythons)]
    return tuple(map(os.fsencode, paths))


def jail_variables(
    variables: Mapping[str, str], active: ActiveEnvironment, instance: Instance
) -> dict[str, str]:
    """Return the variables that the jail gets: the caller's that are passed, and those that locate Spack."""
    return {**passed_variables(variables), "SPACK_PYTHON": instance.python, VARIABLE: active.environment}


def report_host_changes(active: ActiveEnvironment, status: int) -> int:
    """Warn of files of the environment that changed on the host while a command ran; return its status."""
    reporter = ConsoleReporter()
    try:
        directory = os.fsencode(active.environment)
        report_environment_changes(directory, status, strict=False, reporter=reporter)
    except (PkgjailError, OSError) as error:
        reporter.warn(f"cannot check whether the host changed while the command ran: {error}")
    return status
