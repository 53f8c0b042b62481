"""Enter the environment of a Spack: its own directories and variables come along."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.core.model import JailOptions
from pkgjail.environments.enter import enter_and_save, working_directory
from pkgjail.environments.isolate import VARIABLE
from pkgjail.integrations.spack import replay
from pkgjail.integrations.spack.instance import binds_of, is_whole, links_of, make_directories
from pkgjail.integrations.spack.state import closed_places
from pkgjail.jail.protection import directories_of_python
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.environments.enter import States
    from pkgjail.integrations.spack.instance import Instance
    from pkgjail.integrations.spack.state import State


def enter(
    state: State,
    instance: Instance,
    argv: Sequence[str],
    *,
    facts: Sequence[str] = (),
    watched: States = (),
) -> int:
    """Run `argv` in the environment, with what `instance` needs; its exit status.

    Where the command has a terminal on all three of its descriptors it gets one of its own inside.

    Args:
        state: which environment.
        instance: the Spack.
        argv: the command.
        facts: what the entry is kept by (`pkgjail.integrations.spack.replay`); without any, by what it
        comes to.
        watched: the files that `instance` rests on, as `enter_and_save` takes them.

    Raises:
        PkgjailError, OSError: as `enter_and_save`.

    """
    make_directories(instance)
    binds = binds_of(instance)
    directory = os.fsencode(state.environment)
    options = JailOptions(
        binds=binds,
        cwd=working_directory(directory, os.getcwdb(), binds),
        environment=variables_inside(os.environ, state, instance),
        inputs=_inputs(state, instance),
        warn_of_inputs=False,  # the binds are Spack's own, and what is read-only in them is documented
    )
    terminal = replay.has_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    if facts and is_whole(instance, binds):
        watched += take_settled_fingerprint(links_of(instance))
    else:
        whole = repr((options, terminal, sorted(options.environment.items())))
        facts = [hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()]
        status = replay.enter(state, facts, argv)
        if status is not None:
            return status
    words = replay.words_of(state, facts, argv)
    with ConsoleReporter() as reporter:
        return enter_and_save(
            directory, argv, options, words, watched=watched, terminal=terminal, reporter=reporter
        )


def _inputs(state: State, instance: Instance) -> tuple[bytes, ...]:
    """What nothing inside may change: what says what is active, and interpreters that run outside by it."""
    prefixes = {os.path.dirname(os.path.dirname(python)) for python in (state.python, instance.python)}
    pythons = [path for prefix in sorted(prefixes) for path in directories_of_python(prefix)]
    found = [*closed_places(instance.root, os.environ), *filter(os.path.isdir, pythons)]
    return tuple(map(os.fsencode, found))


def variables_inside(variables: Mapping[str, str], state: State, instance: Instance) -> dict[str, str]:
    """What of the caller's variables is seen inside, and what tells Spack where it is."""
    return {**replay.passed(variables), "SPACK_PYTHON": instance.python, VARIABLE: state.environment}
