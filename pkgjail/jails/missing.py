"""Find out who could bring a file into a jail that lacks it: a blacklist's rule, or a package of the host."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import PkgjailError
from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.core.text import raw_path, text_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import Manifest


def candidates(command: str, environment: Mapping[str, str]) -> list[bytes]:
    """Return the paths at which a command is looked for; none for a relative path."""
    if "/" in command:
        return [raw_path(os.path.normpath(command))] if command.startswith("/") else []
    directories = environment.get("PATH", SEARCH_PATH).split(":")
    return [raw_path(f"{directory}/{command}") for directory in directories if directory.startswith("/")]


def advice_on_missing(paths: Sequence[bytes], manifest: Manifest, root: bytes) -> str:
    """Return words on one of these paths, with ": " before them; "" if nothing is known.

    If the host has the path, its package database is read; it takes about 0.1 s.
    """
    dropped = {drop.path: drop.rule for drop in manifest.dropped}
    prefix = root.rstrip(b"/")
    for path in paths:
        if path in dropped:
            return f" ({text_path(path)} was dropped by the blacklist's rule {dropped[path]})"
    there = [path for path in paths if os.path.lexists(prefix + path)]
    if not there:
        return ""
    with contextlib.suppress(PkgjailError, OSError, ImportError):
        from pkgjail.backends import open_database  # a backend takes long to load

        database = open_database(root)
        unmerged = {path[4:] for path in there if path.startswith(b"/usr/")}
        for path, package in sorted(database.owners({*there, *unmerged}).items()):
            return f" ({text_path(path)} is in {package.partition(':')[0]})"
    return ""
