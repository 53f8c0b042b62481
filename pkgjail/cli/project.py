"""A project in the place of a manifest: `pkgjail run -- COMMAND` in a directory with a `pkgjail.toml`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.parser import PACKAGES_ALONE, PROJECT
from pkgjail.cli.verbosity import print_note
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, printable
from pkgjail.project.model import FILE, LOCK

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

    Packages that are named alone (`--package`) are added to the project's, for this run and without its lock.
    Does nothing if a manifest or a list was named.

    Raises:
        InputError, UsageError: there is no project, or its file or lock cannot be used.

    """
    if arguments.manifest != PROJECT:
        if arguments.locked:
            raise UsageError("--locked is for a project's lock; leave out the manifest, or --locked")
        if arguments.manifest == PACKAGES_ALONE and _add_packages(arguments):
            _add_options(arguments)
        return
    if arguments.blacklist:
        raise UsageError("cannot add to a project by --blacklist; write it into its file")
    _lock(arguments, find_project())
    arguments.manifest = LOCK
    _add_options(arguments)


def _lock(arguments: argparse.Namespace, project: Project) -> None:
    """Take a project, and make its lock if that is missing or of something else.

    It is made even if it is not used: a command in the project's directory could make it otherwise.
    """
    from pkgjail.project.lock import locked_manifest

    arguments.project = project
    is_new = not os.path.lexists(LOCK)
    with ConsoleReporter(as_json=arguments.json) as reporter:
        manifest = locked_manifest(project, frozen=arguments.locked, reporter=reporter)
    if is_new:
        number = counted(len(manifest.packages), "package")
        _note(arguments, f"made {LOCK}, of {number}; keep it in version control")


def _add_packages(arguments: argparse.Namespace) -> bool:
    """Add a project's lists and packages to packages that are named alone; return whether there is one."""
    from pkgjail.project.read import read_project

    project = None if arguments.source or arguments.root != "/" else read_project()
    if project is None:
        return False
    _lock(arguments, project)
    arguments.packages = [*project.packages, *arguments.packages]
    arguments.blacklist = [*project.blacklists, *arguments.blacklist]
    _note(arguments, f"the packages are added to those of {project.file} for this run, without its lock")
    return True


def _note(arguments: argparse.Namespace, text: str) -> None:
    """Print a note beside what the command prints; none with --json."""
    if not arguments.json:
        print_note(text, sys.stderr)


def _add_options(arguments: argparse.Namespace) -> None:
    """Add the options of a project to those of the command line."""
    project = arguments.project
    arguments.bind = [*project.bind, *arguments.bind]
    arguments.ro_bind = [*project.ro_bind, *arguments.ro_bind]
    arguments.env = [*project.env, *arguments.env]
    arguments.cwd = arguments.cwd or project.cwd
    arguments.no_network = arguments.no_network or not project.network


def place_of_line(line: str) -> tuple[str, str]:
    """Return where a whitelist's line is to be written, and the line as it stands there.

    It is the project's file, if there is one here and it can have the line; otherwise a whitelist.
    """
    if not os.path.lexists(FILE) or not line.startswith("packages."):
        return "a whitelist", line
    return FILE, f"packages = {line.partition(' = ')[2]}"


def project_inputs(project: Project) -> tuple[bytes, ...]:
    """Return the files that decide what later commands of a project see, which a command may not change."""
    from pkgjail.policy import list_files

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
        above = os.path.dirname(os.getcwd())
        while not os.path.lexists(os.path.join(above, FILE)):
            if above == "/":
                break
            above = os.path.dirname(above)
        else:
            raise UsageError(
                f"there is no manifest, and no project in this directory; the project in {printable(above)} "
                "works there: change to it"
            )
        raise UsageError(
            "there is no manifest: name one, a whitelist, or packages with --package; or begin a project "
            "here with 'pkgjail init'"
        )
    return project
