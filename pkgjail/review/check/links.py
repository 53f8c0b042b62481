"""Symbolic links that lead out of the set, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.review.check.findings import Want

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.paths import Names

# What the jail has of its own, whatever the manifest says (`pkgjail.jail.plan`).
_OWN = (b"dev", b"proc", b"sys", b"tmp")
# What services make while a system runs, and no package has; FHS 3.0, section 3.15.
_RUN = b"run"


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
        elif found.entry is None and (top := found.place.split(b"/")[1]) not in _OWN:
            cause = f"this link leads to {shown}, which is not in the set"
            places = (found.place,)
            yield Want(
                path=entry.path,
                kind="link",
                wanted=target,
                cause=cause,
                places=places,
                optional=top == _RUN,
            )
