"""Symbolic links that lead out of the set, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.jail_names import KERNEL_DIRECTORIES, RUN, TMP
from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.paths import Names


def link_wants(names: Names) -> Iterator[Want]:
    """Each link of the set whose end is not in it, with the first name on the way that is missing.

    One into /run is optional: what is there comes and goes with the services of a system.
    """
    for entry in names.entries.values():
        if entry.kind != "symlink":
            continue
        found = names.find(entry.path)
        target = entry.target or b""
        shown = found.place.decode("utf-8", "backslashreplace")
        if found.loop:
            cause = "this link goes round in a circle"
            yield Want(path=entry.path, kind="link", wanted=target, cause=cause, places=())
        elif found.entry is None and (top := b"/" + found.place.split(b"/")[1]) not in (
            *KERNEL_DIRECTORIES,
            TMP,
        ):
            cause = f"this link leads to {shown}, which is not in the set"
            places = (found.place,)
            yield Want(
                path=entry.path,
                kind="link",
                wanted=target,
                cause=cause,
                places=places,
                optional=top == RUN,
            )
