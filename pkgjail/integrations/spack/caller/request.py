"""What a Spack command line asks for, found without asking Spack. Imports little."""

from __future__ import annotations

import os
from typing import NamedTuple

from pkgjail.integrations.spack.caller.argv import arguments_of_command, split_argv
from pkgjail.integrations.spack.caller.places import files_of_caller, named_places, working_place
from pkgjail.integrations.spack.caller.variables import given_variables

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.integrations.spack.active import ActiveEnvironment
    from pkgjail.integrations.spack.caller.places import Place


# The commands that start an editor, besides `config edit`.
_EDITING = ("checksum", "create", "edit")

# The commands that warn of tools that a build cannot see; other commands need none.
_BUILDING = ("build-env", "ci", "dev-build", "install", "test-env")

OF_WORKING_DIRECTORY = ("ci", "containerize", "debug", "dev-build")
"""The commands that read or write the working directory if no argument names another one."""


class Request(NamedTuple):
    """What a Spack command asks for, found without asking Spack.

    `options` affect Spack's configuration, and `places` are what the command line names. `files` are those of
    the caller that programs in the jail read. `given` are the variables that are only passed on, and `script`
    is the path by which the caller came to the program `spack`, or "". With `is_editing`, the command starts
    an editor. With `is_new`, its jail is not replayed, as the caller is first told what the jail lacks.
    With `is_building`, the caller is warned of tools that a build cannot see. `words` are what follows the
    command's name.
    """

    script: str
    options: tuple[str, ...]
    command: str | None
    places: tuple[Place, ...]
    files: tuple[str, ...]
    given: dict[str, str]
    is_editing: bool = False
    is_new: bool = False
    is_building: bool = False
    words: tuple[str, ...] = ()


def request_of(active: ActiveEnvironment, script: str, argv: Sequence[str]) -> Request:
    """Return what Spack's arguments ask for; `script` is the path of the program `spack`."""
    options, command = split_argv(argv)
    arguments = arguments_of_command(argv)
    directory = working_place()
    is_editing = command in _EDITING or [command, *arguments[:1]] == ["config", "edit"]
    return Request(
        script,
        tuple(options),
        command,
        named_places(arguments, directory),
        files_of_caller(os.environ),
        given_variables(os.environ, active.passed, command, arguments),
        is_editing,
        is_editing or (command in OF_WORKING_DIRECTORY and not directory),
        command in _BUILDING,
        tuple(arguments),
    )
