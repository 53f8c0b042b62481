"""Options that say what a whitelist is resolved against, and the resolution itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.manifests import named_file
from pkgjail.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from pkgjail.core.model import Manifest


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a whitelist is resolved against."""
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="PACKAGE",
        dest="packages",
        help="add a package and all that it requires, with or without a list (may be repeated); a version "
        "may follow, as your distribution writes it: 'zlib1g-dev (>= 1:1.2)'",
    )
    parser.add_argument(
        "--blacklist",
        action="append",
        type=named_file,
        default=[],
        metavar="LIST",
        help="drop paths: docs, locales, static-libs, python-bytecode, or a file (may be repeated)",
    )
    add_source_options(parser, "read the packages and files of the system below DIR, not of the host")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto (default), apt, dpkg, rpm or pacman; see 'pkgjail backends'",
    )
    parser.add_argument(
        "--recommends", action="store_true", default=None, help="follow Recommends as well as Depends"
    )
    parser.add_argument(
        "--no-essential",
        dest="essential",
        action="store_false",
        default=None,
        help="leave Essential packages out unless something requires them",
    )
    parser.add_argument(
        "--no-package-database",
        dest="package_database",
        action="store_false",
        default=None,
        help="leave out the package database of the jail's packages, for dpkg, rpm or pacman in the jail",
    )


def resolve_arguments(
    arguments: argparse.Namespace,
    whitelists: list[str],
    *,
    hashed: bool,
    allow_unmet: bool = False,
    baseline: bool = True,
) -> Manifest:
    """Resolve `whitelists` by the options of `add_policy_arguments`."""
    from pkgjail.api import resolve

    with ConsoleReporter(as_json=arguments.json) as reporter:
        return resolve(
            whitelists,
            arguments.blacklist,
            packages=arguments.packages,
            root=root_of(arguments),
            backend=arguments.backend,
            recommends=arguments.recommends,
            essential=arguments.essential,
            package_database=arguments.package_database,
            hashed=hashed,
            allow_unmet=allow_unmet,
            baseline=baseline,
            reporter=reporter,
        )


def add_source_options(parser: argparse.ArgumentParser, root_help: str) -> None:
    """Add `--root` and `--source`; `root_help` says what DIR is for."""
    parser.add_argument("--root", default="/", metavar="DIR", help=root_help)
    parser.add_argument(
        "--source",
        default="",
        metavar="SOURCE",
        help="the same by a source: host, dir:PATH, or image:NAME (see 'pkgjail image')",
    )


def root_of(arguments: argparse.Namespace) -> bytes:
    """Return the real path of `--root`, or of the root of `--source`; an image stays while the verb works."""
    if not arguments.source:
        return os.fsencode(os.path.realpath(arguments.root))
    if arguments.root != "/":
        raise UsageError(
            "cannot use --root and --source together: --source dir:PATH is the same as --root PATH"
        )
    from pkgjail.images.store import find_source, lock_source

    source = find_source(arguments.source)
    if not hasattr(arguments, "locks"):
        arguments.locks = lock_source(source)  # `pkgjail.cli.main` closes them
    return source.root


def source_place(arguments: argparse.Namespace) -> bytes:
    """Return the path that decides what the root is: the directory, or the file with an image's name."""
    if not arguments.source:
        return os.fsencode(arguments.root)
    from pkgjail.images.store import name_file

    root, (kind, _, name) = root_of(arguments), arguments.source.partition(":")
    return os.fsencode(name_file(name)) if kind == "image" else root
