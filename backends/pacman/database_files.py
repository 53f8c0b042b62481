"""The files of pacman's database that describe exactly a set of packages, for the pacman in a jail.

The local database has a directory for each package. The files in it are the host's, except `desc`, which has
the time of the installation: `pkgjail.jails.package_database` makes it without that when a jail is entered.
Changelogs are left out, and scripts, which pacman runs when it removes a package.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.backends.pacman.local import LOCAL, VERSION_FILE
from pkgjail.core.model import DatabaseFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.backends.pacman.local import Entry
    from pkgjail.backends.root import Root

_MANAGER = "pacman"


def list_database_files(root: Root, entries: Mapping[str, Entry]) -> Iterator[DatabaseFile]:
    """Yield the files that pacman reads about the packages with these keys; none if it is not among them."""
    pacman = next((key for key, entry in entries.items() if entry.name == _MANAGER), None)
    if pacman is None:
        return
    yield DatabaseFile(path=LOCAL + b"/" + VERSION_FILE, package=pacman, manager=_MANAGER)
    for key, entry in entries.items():
        directory = LOCAL + b"/" + os.path.basename(entry.directory)
        yield DatabaseFile(path=directory + b"/desc", package=key, manager=_MANAGER, at_entry=True)
        present = root.names(entry.directory)
        for name in (b"files", b"mtree"):
            if name in present:
                yield DatabaseFile(path=directory + b"/" + name, package=key, manager=_MANAGER)
