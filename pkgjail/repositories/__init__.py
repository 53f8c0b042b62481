"""What a distribution has to offer, from its repositories' metadata on this machine; nothing is fetched.

binding    libsolv, which is asked everything about versions, providers, conflicts
reading    files of metadata, unpacked
kinds      what a kind of repository must say of itself
debian, rpmmd, pacman   the kinds
universe   all packages of the repositories, as what a whitelist is read against
solving    what of them would be installed
problems   why nothing can be, in words
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import DatabaseError
from pkgjail.repositories.debian import Debian
from pkgjail.repositories.libsolv import load_solv
from pkgjail.repositories.pacman import Pacman
from pkgjail.repositories.pool import Universe
from pkgjail.repositories.rpmmd import RpmMd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.repositories.formats import Kind

__all__ = ["FAMILIES", "Universe", "open_available"]

_KINDS: tuple[Kind, ...] = (Debian(), RpmMd("rhel"), RpmMd("suse"), Pacman())
FAMILIES = tuple(kind.family for kind in _KINDS)
"""The families whose repositories can be read, as whitelists name them."""


def open_available(sources: Sequence[str], architecture: str = "", *, contents: bool = False) -> Universe:
    """Read the metadata that `sources` name, each `FAMILY:PATH`, all of one family, in their order.

    `architecture` is the package manager's word for it or uname(2)'s; "" is this machine's. With `contents`
    the files of packages can be asked for. Raises `DatabaseError`.
    """
    split = [source.partition(":") for source in sources]
    families = sorted({family for family, _, _ in split})
    if len(families) != 1:
        raise DatabaseError(
            f"cannot plan from repositories of {' and '.join(families) or 'nothing'} at once: one plan is "
            "for one distribution; name those of one family"
        )
    kind = next((one for one in _KINDS if one.family == families[0]), None)
    empty = next((source for source, (_, _, path) in zip(sources, split) if not path), "")
    if kind is None or empty:
        raise DatabaseError(
            f"cannot read the repository {empty or sources[0]!r}: write FAMILY:PATH, and as the family "
            f"one of {', '.join(FAMILIES)}"
        )
    return Universe(
        load_solv(),
        kind,
        [path for _, _, path in split],
        kind.architecture(architecture or os.uname().machine),
        contents=contents,
    )
