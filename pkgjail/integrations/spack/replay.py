"""Enter the jail of an earlier Spack command again, without asking Spack what it needs. Imports little.

What an entry depends on besides files is its key: the environment, the options that affect Spack's
configuration, and variables. The files are checked at every entry.
"""

from __future__ import annotations

import os

from pkgjail.integrations.spack.argv import split_argv
from pkgjail.jail.replay import replay

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.integrations.spack.active import ActiveEnvironment

# What Spack reads besides its own variables: the home that `~` in its configuration means, where temporary
# files are, and how the network is reached.
_PASSED = (
    "HOME", "TMPDIR", "COLORTERM", "NO_COLOR", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip


def passed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of the caller's variables that the jail gets: Spack's own, and a few that Spack reads."""
    return {name: value for name, value in variables.items() if name.startswith("SPACK_") or name in _PASSED}


def configuring_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that affect Spack's configuration, sorted by name.

    The account's name is one: the path of Spack's stage may contain it.
    """
    configuring = {**passed_variables(variables), "USER": variables.get("USER", "")}
    return dict(sorted(configuring.items()))


def has_terminal() -> bool:
    """Check whether the command gets a terminal in the jail: it does if all its descriptors are one."""
    return all(os.isatty(number) for number in (0, 1, 2))


def replay_key(active: ActiveEnvironment, python: str, argv: Sequence[str]) -> list[str]:
    """Return what the jail of a Spack command line depends on, besides files and the working directory.

    The working directory is not in the key: there may be many, and a jail would be saved for each. A saved
    jail is entered only from the directory that it was made for (`pkgjail.jail.replay`).
    """
    options, _ = split_argv(argv)
    variables = [f"{name}={value}" for name, value in configuring_variables(os.environ).items()]
    return [
        str(active.built),
        active.directory,
        python,
        str(has_terminal()),
        *options,
        "--variables",
        *variables,
    ]


def invocation(active: ActiveEnvironment, key: Sequence[str], argv: Sequence[str]) -> list[str]:
    """Return the key in the form of a command line of `pkgjail run`, by which jails are saved."""
    return ["run", "environment", active.environment, repr(list(key)), "--", *argv]


def replay_entry(
    active: ActiveEnvironment, key: Sequence[str], argv: Sequence[str], report: Callable[[int], int]
) -> int | None:
    """Run `argv` in the jail saved by this key; None if there is none, or something has changed.

    `report` is called with the command's exit status if the host changed while the command ran, and returns
    the status to end with.
    """
    return replay(invocation(active, key, argv), report, _warn)


def _warn(message: str) -> None:
    from pkgjail.cli.console import ConsoleReporter

    ConsoleReporter().warn(message)
