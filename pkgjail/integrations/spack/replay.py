"""Go inside as an earlier command did, without asking again what Spack needs: light.

What an entry rests on besides files is a list of texts, its facts: the environment, the options that
decide about Spack's configuration, and variables. The files are looked at at every entry.
"""

from __future__ import annotations

import os

from pkgjail.integrations.spack.argv import split_words
from pkgjail.jail.replay import replay

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.integrations.spack.state import State

# What Spack reads besides its own: where the home is that `~` in its configuration means, where temporary
# files lie, and how the network is reached.
_PASSED = (
    "HOME", "TMPDIR", "COLORTERM", "NO_COLOR", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip


def passed(variables: Mapping[str, str]) -> dict[str, str]:
    """What of the caller's variables is seen inside: Spack's own, and a few that it reads."""
    return {name: value for name, value in variables.items() if name.startswith("SPACK_") or name in _PASSED}


def has_terminal() -> bool:
    """Whether the command gets a terminal of its own inside: where it has one on all its descriptors."""
    return all(os.isatty(number) for number in (0, 1, 2))


def facts_of(state: State, python: str, words: Sequence[str]) -> list[str]:
    """What decides how a command line of Spack's is entered, besides files and the working directory.

    That one is not among them, for there may be many, and each would be kept: a jail that is kept is
    entered from the directory alone that it was made for (`pkgjail.jail.replay`).
    """
    telling, _ = split_words(words)
    variables = [f"{name}={value}" for name, value in sorted(passed(os.environ).items())]
    # The account's name has a part in where Spack's stage lies.
    user = os.environ.get("USER", "")
    return [
        str(state.made),
        state.place,
        python,
        str(has_terminal()),
        user,
        *telling,
        "--variables",
        *variables,
    ]


def words_of(state: State, facts: Sequence[str], argv: Sequence[str]) -> list[str]:
    """What an entry is kept by, in the form of a command line of `pkgjail run`."""
    return ["run", "environment", state.environment, repr(list(facts)), "--", *argv]


def enter(state: State, facts: Sequence[str], argv: Sequence[str]) -> int | None:
    """Run `argv` as the same facts led to before; None where the long way must be taken."""

    def report(status: int) -> int:
        """Warn of what changed on the host while the command ran."""
        from pkgjail.integrations.spack.changes import warn_of_changes

        warn_of_changes(state, status)
        return status

    return replay(words_of(state, facts, argv), report, _warn)


def _warn(message: str) -> None:
    from pkgjail.cli.console import ConsoleReporter

    ConsoleReporter().warn(message)
