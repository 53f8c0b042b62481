"""Find symbolic links that lead out of the set, or nowhere."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import DOCUMENTATION, KERNEL_DIRECTORIES, RUN, TMP
from pkgjail.review.check.findings import Gap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.paths import Names


def link_gaps(names: Names) -> Iterator[Gap]:
    """Yield each link of the set whose target is not in it, with the first missing name on the way.

    A link into /run is optional: the files there come and go with a system's services. So is one in or into
    documentation, which no program needs. A link to what the packages of the set do not require is a note.
    """
    for entry in names.entries.values():
        if entry.kind != "symlink":
            continue
        found = names.find(entry.path)
        wanted = entry.target or b""
        shown = found.place.decode("utf-8", "backslashreplace")
        if found.loop:
            cause = "this link leads round in a circle"
            yield Gap(path=entry.path, kind="link", wanted=wanted, cause=cause, candidates=())
        elif found.entry is None:
            top = b"/" + found.place.split(b"/")[1]
            if top not in (*KERNEL_DIRECTORIES, TMP):
                yield Gap(
                    path=entry.path,
                    kind="link",
                    wanted=wanted,
                    cause=f"this link leads to {shown}, which is not in the set",
                    candidates=tuple(dict.fromkeys((*_missing_end(names, entry.path, wanted), found.place))),
                    optional=top == RUN or is_documentation(entry.path) or is_documentation(found.place),
                    optional_if_outside=True,
                )


def _missing_end(names: Names, path: bytes, target: bytes) -> tuple[bytes, ...]:
    """Return where a link leads by its text, unless the set has that, which is then another such link."""
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    directory, name = posixpath.split(end)
    return () if posixpath.join(names.find(directory).place, name) in names.entries else (end,)


def is_documentation(path: bytes) -> bool:
    """Return whether the path is documentation, or below it."""
    return (path + b"/").startswith(DOCUMENTATION)
