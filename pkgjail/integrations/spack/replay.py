"""Enter the jail of an earlier Spack command again, without asking Spack what it needs. Imports little.

What an entry depends on besides files is its key: the environment, the options that affect Spack's
configuration, the places that the command line names, and variables. The files are checked at every entry.
"""

from __future__ import annotations

import os

from pkgjail.integrations.spack.caller.variables import configuring_variables
from pkgjail.jails.replay import replay

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.caller.request import Request


def has_terminal() -> bool:
    """Check whether the command gets a terminal in the jail: it does if all its descriptors are one."""
    return all(os.isatty(number) for number in (0, 1, 2))


def replay_key(active: ActiveEnvironment, python: str, request: Request) -> list[str]:
    """Return what the jail of a Spack command line depends on, besides files and the working directory.

    The working directory is not in the key: there may be many, and a jail would be saved for each. A saved
    jail is entered only from the directory that it was made for (`pkgjail.jails.replay`).
    """
    variables = [
        f"{name}={value}" for name, value in configuring_variables(os.environ, request.options).items()
    ]
    return [
        str(active.built),
        active.directory,
        python,
        str(has_terminal()),
        str(request.is_building),  # a jail that was saved for another command may lack tools
        request.script,
        *request.options,
        "--places",
        *(f"{place.kind} {place.path}" for place in request.places),
        *request.files,
        "--variables",
        *variables,
    ]


def invocation(active: ActiveEnvironment, key: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Return the key in the form of a command line of `pkgjail run`, by which jails are saved."""
    return ["run", "environment", active.environment, repr(list(key)), "--", *argv]


def replay_entry(
    active: ActiveEnvironment,
    key: Sequence[str],
    argv: Sequence[str],
    report: Callable[[int], int],
    given: Mapping[str, str],
) -> int | None:
    """Run `argv` in the jail saved by this key; None if there is none, or something has changed.

    `report` is called with the command's exit status if the host changed while the command ran, and returns
    the status to end with. `given` are the variables that are only passed on.
    """
    return replay(invocation(active, key, argv), report, _warn, given)


def _warn(message: str) -> None:
    from pkgjail.cli.console import ConsoleReporter

    ConsoleReporter().warn(message)
