"""Plan packages of a distribution from its repositories' metadata on this machine; nothing is fetched.

libsolv    the library that knows versions, providers and conflicts
metadata   find, read and unpack files
formats    the interface of a repository format
debian, rpmmd, pacman   the formats
pool       all packages of the repositories
solver     the packages that would be installed
problems   conflicts in words
plan_file  a package plan as a file
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import DatabaseError
from pkgjail.repositories.debian import DebianFormat
from pkgjail.repositories.libsolv import load_solv
from pkgjail.repositories.pacman import PacmanFormat
from pkgjail.repositories.pool import Pool
from pkgjail.repositories.rpmmd import RpmMdFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.repositories.formats import RepositoryFormat

__all__ = ["FAMILIES", "Pool", "open_available"]

_FORMATS: tuple[RepositoryFormat, ...] = (
    DebianFormat(),
    RpmMdFormat("rhel"),
    RpmMdFormat("suse"),
    PacmanFormat(),
)
FAMILIES = tuple(each.family for each in _FORMATS)
"""The families whose repositories can be read, as whitelists name them."""


def open_available(sources: Sequence[str], architecture: str = "", *, contents: bool = False) -> Pool:
    """Read the metadata of `sources`, each `FAMILY:PATH`, all of one family, in their order.

    `architecture` is a word of the package manager or of uname(2); "" is that of this machine. The pool
    knows the files of packages only with `contents`. Raises `DatabaseError`.
    """
    split = [source.partition(":") for source in sources]
    families = sorted({family for family, _, _ in split})
    if len(families) != 1:
        raise DatabaseError(
            f"cannot plan from repositories of {' and '.join(families) or 'nothing'} at once: one plan is "
            "for one distribution; name those of one family"
        )
    of_format = next((each for each in _FORMATS if each.family == families[0]), None)
    empty = next((source for source, (_, _, path) in zip(sources, split) if not path), "")
    if of_format is None or empty:
        raise DatabaseError(
            f"cannot read the repository {empty or sources[0]!r}: write FAMILY:PATH, and as the family "
            f"one of {', '.join(FAMILIES)}"
        )
    return Pool(
        load_solv(),
        of_format,
        [path for _, _, path in split],
        of_format.architecture(architecture or os.uname().machine),
        contents=contents,
    )
