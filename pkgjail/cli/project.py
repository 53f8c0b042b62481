"""A project in the place of a manifest: `pkgjail run -- COMMAND` in a directory with a `pkgjail.toml`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.parser import PROJECT
from pkgjail.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from pkgjail.project.model import Project


def add_locked_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves a project's lock as it is."""
    parser.add_argument(
        "--locked",
        action="store_true",
        help="without MANIFEST: take the project's lock as it is, and fail if it is not of what pkgjail.toml "
        "asks for, as in CI",
    )


def enter_project(arguments: argparse.Namespace) -> None:
    """Put a project's lock in the place of the manifest, and its options among the arguments.

    Does nothing if a manifest or a list was named.

    Raises:
        InputError, UsageError: there is no project, or its file or lock cannot be used.

    """
    if arguments.manifest != PROJECT:
        if arguments.locked:
            raise UsageError("--locked is for a project's lock; leave out the manifest, or --locked")
        return
    from pkgjail.project.lock import locked_manifest
    from pkgjail.project.model import LOCK

    if arguments.blacklist or arguments.packages:
        raise UsageError("cannot add to a project by --blacklist or --package; write it into its file")
    project = arguments.project = find_project()
    with ConsoleReporter(as_json=arguments.json) as reporter:
        locked_manifest(project, frozen=arguments.locked, reporter=reporter)
    arguments.manifest = LOCK
    arguments.bind = [*project.bind, *arguments.bind]
    arguments.ro_bind = [*project.ro_bind, *arguments.ro_bind]
    arguments.env = [*project.env, *arguments.env]
    arguments.cwd = arguments.cwd or project.cwd
    arguments.no_network = arguments.no_network or not project.network


def project_inputs(project: Project) -> tuple[bytes, ...]:
    """Return the files that decide what later commands of a project see, which a command may not change."""
    from pkgjail.policy import list_files
    from pkgjail.project.model import LOCK

    own = tuple(os.path.abspath(os.fsencode(name)) for name in (project.file, LOCK))
    return (*own, *list_files(project.lists, project.blacklists))


def find_project() -> Project:
    """Return the project of the working directory.

    Raises:
        InputError, UsageError: there is none, or its file cannot be used.

    """
    from pkgjail.project.read import read_project

    project = read_project()
    if project is None:
        raise UsageError(
            "there is no manifest: name one, a whitelist, or packages with --package; or begin a project "
            "here with 'pkgjail init'"
        )
    return project
