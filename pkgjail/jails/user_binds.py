"""The steps for the directories and files that the user binds into a jail (`--bind`)."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.entries import NOUNS
from pkgjail.core.errors import JailError
from pkgjail.core.jail_names import KERNEL_DIRECTORIES
from pkgjail.core.parameters import parameter
from pkgjail.core.text import text_path
from pkgjail.jails.devices import device_advice
from pkgjail.jails.layout import Layout
from pkgjail.jails.links_on_the_way import add_links
from pkgjail.sandbox.steps import Bind, Content, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions, UserBind
    from pkgjail.sandbox.steps import Step


def new_mount_points(manifest: Manifest, options: JailOptions) -> tuple[bytes, ...]:
    """Return the names that the user's binds need and that are not in the manifest.

    These are their destinations, and the links on the way (`pkgjail.jails.links_on_the_way`).
    """
    if not options.binds:
        return ()
    layout = Layout(manifest)
    links = add_links(layout, options)
    destinations = (layout.resolve(bind.destination) for bind in options.binds)
    return (*links, *(path for path in destinations if layout.kind(path) is None))


def user_bind_steps(
    layout: Layout, options: JailOptions, scratch: Sequence[bytes]
) -> tuple[list[Step], list[Step]]:
    """Return the steps for the user's binds: those before the `Seal`, and those after it.

    A directory comes before what is below it, whatever the order of `binds`. If two binds have one
    destination, the later one counts. The links on the way to binds come first. Links and mount points below
    `scratch` directories are made after the `Seal`, which is when these are mounted.

    Raises:
        JailError: a bind would cover a name of the jail, or its source is missing.

    """
    before: list[Step] = []
    after: list[Step] = []
    for link in add_links(layout, options):
        (after if _is_in_scratch(link, scratch) else before).extend(_link(layout, link))
    by_destination = {layout.resolve(bind.destination): bind for bind in options.binds}
    for destination, bind in sorted(by_destination.items()):
        source = os.path.realpath(bind.source)
        _refuse_device(bind, source)
        _refuse_cover(layout, bind, destination)
        if not any(_is_below(destination, other) for other in by_destination):
            is_scratch = _is_in_scratch(destination, scratch)
            (after if is_scratch else before).extend(_mount_point(layout, bind, source, destination))
        after.append(Bind(destination, source, bind.writable))
    return before, after


def _is_in_scratch(path: bytes, scratch: Sequence[bytes]) -> bool:
    return any(_is_below(path, directory) for directory in scratch)


def _link(layout: Layout, path: bytes) -> Iterator[Step]:
    yield from layout.make_directories(path.rpartition(b"/")[0] or b"/")
    yield Symlink(path, layout.target(path) or b"")


def _mount_point(layout: Layout, bind: UserBind, source: bytes, destination: bytes) -> Iterator[Step]:
    try:
        is_directory = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise JailError(
            f"cannot bind {text_path(bind.source)}: {error.strerror}; make it or name another"
        ) from error
    if is_directory:
        yield from layout.make_directories(destination)
    elif layout.kind(destination) is None:
        yield from layout.make_directories(destination.rpartition(b"/")[0] or b"/")
        layout.add(destination, "regular")
        yield Content(destination, 0o644, b"")
    else:
        raise _refusal(bind, destination, "that is a directory in the jail, and the source is not")


def _refuse_device(bind: UserBind, source: bytes) -> None:
    """Refuse to bind a device: binds are mounted without devices, so it could not be opened."""
    try:
        advice = device_advice(source, os.stat(source).st_mode)
    except OSError:
        return  # refused later, with the reason
    if advice:
        raise JailError(f"cannot bind {text_path(bind.source)}: {advice}")


def _refuse_cover(layout: Layout, bind: UserBind, destination: bytes) -> None:
    """Refuse a bind that would hide names of the manifest, or a file system that keeps the jail closed."""
    if any(destination == path or _is_below(destination, path) for path in KERNEL_DIRECTORIES):
        why = "the jail has a filesystem of its own there"
        if (bind.source + b"/").startswith(b"/dev/"):
            why += f" (to show devices, use {parameter('devices')} instead)"
        raise _refusal(bind, destination, why)
    if (kind := layout.kind(destination)) not in (None, "directory"):
        raise _refusal(bind, destination, f"the manifest has a {NOUNS[kind]} there")
    if covered := layout.count_below(destination):
        raise _refusal(bind, destination, f"it would cover {covered} of the jail's own names")


def _refusal(bind: UserBind, destination: bytes, why: str) -> JailError:
    return JailError(
        f"cannot bind {text_path(bind.source)} at {text_path(destination)}: {why}; "
        "bind it at a path of its own (SOURCE:DESTINATION)"
    )


def _is_below(path: bytes, directory: bytes) -> bool:
    return path.startswith(directory.rstrip(b"/") + b"/") and path != directory
