"""What a guest's root has besides the files of its disk: names that are made at entry, and shares.

It comes from the jail's own plan (`pkgjail.jails.plan`), so that a machine shows what a jail does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import PkgjailError
from pkgjail.core.text import text_path
from pkgjail.jails.etc_files import current_account, etc_files
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.protected_paths import protected_paths
from pkgjail.jails.protection import protect
from pkgjail.machine.frames import Fields, Type, number, text
from pkgjail.machine.qemu import NAME_SERVER
from pkgjail.sandbox import steps as plans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions


_RESOLV_CONF = f"nameserver {NAME_SERVER}\n".encode()


class Request(NamedTuple):
    """What the agent is asked to do."""

    type: Type
    content: bytes


class Shown(NamedTuple):
    """A directory of the host that the guest shows at `path`."""

    source: bytes
    path: bytes
    writable: bool


class Contents(NamedTuple):
    """What a root has, in the order in which it is made; and the paths in shares that nobody may change.

    `read_only` are the host's paths that are shown read-only in spite of a writable bind.
    """

    steps: tuple[Request | Shown, ...]
    kept: tuple[bytes, ...]
    read_only: tuple[bytes, ...]


def contents_of(manifest: Manifest, options: JailOptions, hostname: str) -> Contents:
    """Return what the root of a manifest's machine has.

    Raises:
        JailError: a bind would cover a name of the manifest, has no source, or shows what later runs need.
        PkgjailError: a machine cannot show it.

    """
    plan = plan_jail(manifest, options, entry_files=_entry_files(manifest, options, hostname))
    plan, read_only = protect(plan, protected_paths(options))
    on_disk = {entry.path for entry in manifest.files}
    steps: list[Request | Shown] = []
    for step in plan.steps:
        shares = [each for each in steps if isinstance(each, Shown)]
        if isinstance(step, plans.Bind):
            steps.append(_kept(step) if _is_in_share(step, shares) else _shown(step))
        else:
            steps += _requests(step, on_disk)
    kept = (step for step in steps if isinstance(step, Request) and step.type == Type.KEEP)
    return Contents(tuple(steps), tuple(Fields(step.content).text() for step in kept), read_only)


def _entry_files(manifest: Manifest, options: JailOptions, hostname: str) -> dict[bytes, bytes]:
    """Return the files that depend on the user and the host; the disk has the others."""
    account = current_account(home=options.environment.get("HOME", ""))
    found = etc_files(account, resolv_conf=_RESOLV_CONF, network=options.network, hostname=hostname)
    at_entry = {entry.path for entry in manifest.files if entry.origin == "entry"}
    return {path: content for path, content in found.items() if path in at_entry}


def _requests(step: plans.Step, on_disk: set[bytes]) -> Iterator[Request]:
    """Yield what the agent makes for a step; nothing if the disk has it, or the agent makes it anyway."""
    if isinstance(step, (plans.Content, plans.Cover)):
        if step.content or step.path not in on_disk:
            yield _content(step.path, step.mode, step.content)
    elif isinstance(step, plans.Directory):
        if step.path not in on_disk and step.path != b"/":
            yield Request(Type.DIRECTORY, number(step.mode) + text(step.path))
    elif isinstance(step, plans.Symlink):
        if step.path not in on_disk:
            yield Request(Type.SYMLINK, text(step.path) + text(step.target))
    elif isinstance(step, plans.Tmpfs):
        yield Request(Type.SCRATCH, text(step.path))
    elif isinstance(step, plans.Hidden):
        yield Request(Type.HIDE, text(step.path))
    elif isinstance(step, plans.OneMountNamespace):
        yield Request(Type.NO_NAMESPACES, b"")
    elif isinstance(step, plans.KeptLink):
        raise PkgjailError(
            f"cannot show {text_path(os.path.dirname(step.source))} writable: a machine cannot protect "
            f"{text_path(step.source)}, a link on which later runs depend; bind a directory further down"
        )


def _content(path: bytes, mode: int, content: bytes) -> Request:
    return Request(Type.CONTENT, number(mode) + text(path) + text(content))


def _kept(step: plans.Bind) -> Request:
    return Request(Type.KEEP, text(step.path))


def _is_in_share(step: plans.Bind, shares: list[Shown]) -> bool:
    """Return whether a bind shows what a share shows at that place anyway: it protects it."""
    if step.writable:
        return False
    return any(
        step.path == share.path + rest and step.source == share.source.rstrip(b"/") + rest
        for share in shares
        if step.path.startswith(share.path + b"/")
        for rest in [step.path[len(share.path) :]]
    )


def _shown(step: plans.Bind) -> Request | Shown:
    """Return how the guest shows what a bind does: a directory is shared, and a file is copied."""
    if os.path.isdir(step.source):
        return Shown(step.source, step.path, step.writable)
    if step.writable:
        raise PkgjailError(
            f"cannot show {text_path(step.source)} writable: a machine shares directories, and not single "
            "files; bind its directory, or add :ro"
        )
    with open(step.source, "rb") as file:
        return _content(step.path, os.fstat(file.fileno()).st_mode & 0o777, file.read())
