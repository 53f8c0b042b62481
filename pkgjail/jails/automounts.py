"""Warnings of file systems that a bind will not show because an automounter mounts them later; autofs(5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.text import text_path
from pkgjail.storage.mounts import automounts_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pkgjail.core.options import UserBind


def automount_warnings(binds: Iterable[UserBind]) -> Iterator[str]:
    """Yield a warning for each bind below which mounts may appear that the jail does not receive.

    A jail's writable binds receive later mounts, if the host shares its own. Its read-only ones do not: the
    kernel gives each mount the attributes that it has on the host, and nothing could make it read-only.
    """
    for bind in binds:
        points, is_received = automounts_below(os.path.realpath(bind.source))
        if not points or (bind.writable and is_received):
            continue
        why, advice = "it is read-only", "bind it writable"
        if bind.writable:
            why = "the mount there is private (findmnt -o +PROPAGATION)"
            advice = "as root: mount --make-rshared /"
        yield (
            f"the bind of {text_path(bind.source)} does not show what an automounter mounts at "
            f"{text_path(points[0])} from now on, because {why}; if the command needs that, {advice}"
        )
