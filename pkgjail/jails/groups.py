"""The caller's groups that a jail cannot have: files inside cannot be given to them."""

from __future__ import annotations

import grp
import os
from typing import TYPE_CHECKING

from pkgjail.sandbox.id_maps import IdMaps

if TYPE_CHECKING:
    from collections.abc import Iterable


def unmapped_groups(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are groups of the caller's, but not of the caller's jails."""
    ids = IdMaps(as_root=False).ids
    if ids is None:  # all are mapped
        return []
    found = []
    for name in sorted(set(names)):
        try:
            number = grp.getgrnam(name).gr_gid
        except KeyError:
            continue
        mapped = any(first <= number <= last for first, last in ids[1])
        if number in os.getgroups() and not mapped:
            found.append(name)
    return found
