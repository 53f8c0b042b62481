"""Spack's command line, as far as it must be understood before Spack itself reads it."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

# Options before the command that take a value, of Spack 0.13 to 1.2; those in the first set, and the flags
# in the third, have a part in what Spack's configuration is.
_TELLING = frozenset({"-c", "--config", "-C", "--config-scope", "-e", "--env", "-D", "--env-dir"})
_OTHER = frozenset({"--color", "--sorted-profile", "--lines", "--print-shell-vars", "--profile-file"})
_FLAGS = frozenset({"-E", "--no-env", "--use-env-repo", "-b", "--bootstrap", "-m", "--mock"})


def split_words(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The options that decide about the configuration, and the command; None where there is none."""
    telling: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name = word.partition("=")[0]
        if word in _TELLING:
            telling += [word, *rest[:1]]
            del rest[:1]
        elif word in _OTHER:
            del rest[:1]
        elif word in _FLAGS or name in _TELLING or word[:2] in _TELLING:
            telling.append(word)
    return telling, rest[0] if rest else None


def is_own_command(command: str | None, *, has_isolate: bool) -> bool:
    """Whether it is `spack jail`, by one of its names, which runs outside."""
    return command == "jail" or (command == "isolate" and not has_isolate)


def extension_option(folder: str) -> list[str]:
    """The option that has Spack load one more extension; since Spack 0.17."""
    import json  # here, as this module is read by every command

    return ["-c", f"config:extensions:[{json.dumps(folder)}]"]
