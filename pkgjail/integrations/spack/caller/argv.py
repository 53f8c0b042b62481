"""Parts of Spack's command line that pkgjail must understand before Spack reads it."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

# The options of Spack 0.13 to 1.2 that take a value and precede the command. Those in the first set, and the
# flags in the third, have an effect on Spack's configuration.
_CONFIGURING = frozenset({"-c", "--config", "-C", "--config-scope", "-e", "--env", "-D", "--env-dir"})
_OTHER = frozenset({"--color", "--sorted-profile", "--lines", "--print-shell-vars", "--profile-file"})
_FLAGS = frozenset({"-E", "--no-env", "--use-env-repo", "-b", "--bootstrap", "-m", "--mock"})


def split_argv(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the options that affect the configuration, and the command; None if there is no command."""
    options, rest = _split(argv)
    return options, rest[0] if rest else None


def arguments_of_command(argv: Sequence[str]) -> list[str]:
    """Return what follows the command's name."""
    return _split(argv)[1][1:]


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    options: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        argument = rest.pop(0)
        name = argument.partition("=")[0]
        if argument in _CONFIGURING:
            options += [argument, *rest[:1]]
            del rest[:1]
        elif argument in _OTHER:
            del rest[:1]
        elif argument in _FLAGS or name in _CONFIGURING or argument[:2] in _CONFIGURING:
            options.append(argument)
    return options, rest


def is_jail_command(command: str | None, *, has_isolate: bool) -> bool:
    """Check whether this is `spack jail` or its other name `spack isolate`, which run outside.

    `has_isolate` says whether Spack has a command `isolate` of its own.
    """
    return command == "jail" or (command == "isolate" and not has_isolate)


def extension_option(folder: str) -> list[str]:
    """Return the option that makes Spack load one more extension; Spack 0.17 and newer accept it."""
    import json  # here, as every command imports this module

    return ["-c", f"config:extensions:[{json.dumps(folder)}]"]
