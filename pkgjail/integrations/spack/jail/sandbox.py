"""Rules for Spack's own sandbox: the files of a manifest, and what Spack itself needs while it builds.

Spack 1.2 and newer restrict the process of a build by Landlock, from its first phase on: `_enable_sandbox`
in Spack's `new_installer.py`. That process still reads Spack's configuration, its recipes, and modules of its
Python. Spack itself allows the prefixes of dependencies, and the stage and the prefix of the package.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.jail_names import DEVICES, SHARED_MEMORY
from pkgjail.core.sources import refuse_other_source
from pkgjail.export.landlock import write_with
from pkgjail.integrations.spack.extensions import has_sandbox
from pkgjail.integrations.spack.instance.model import outermost_paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.integrations.spack.instance.model import Instance

_KERNEL = (b"/proc", b"/sys")
_DEVICES = (*(b"/dev/" + name for name in DEVICES), b"/dev/ptmx", b"/dev/pts", SHARED_MEMORY)


def sandbox_settings(manifest: Manifest, instance: Instance, binds: Iterable[UserBind] = ()) -> bytes:
    """Return the settings of the sandbox of this Spack, as the file `config.yaml` of a scope.

    Args:
        manifest: the files of the host that a build may read.
        instance: the Spack.
        binds: those of an environment; what they show at the same path in the jail is allowed too.

    Raises:
        InputError: as `pkgjail.export.landlock.write`.
        SourceError: the manifest is not of this host.

    """
    refuse_other_source(manifest, b"/")
    shown = [bind for bind in binds if bind.source == bind.destination]
    read = {*_allowed(instance), *_KERNEL, *(bind.source for bind in shown if not bind.writable)}
    written = {
        *_DEVICES,
        *map(os.fsencode, instance.module_roots),
        *(bind.source for bind in shown if bind.writable),
    }
    return write_with(manifest, sorted(read), sorted(written))


def refuse_without_sandbox(instance: Instance) -> None:
    """Refuse a Spack that has no sandbox.

    Raises:
        InputError: it has none.

    """
    if not has_sandbox(instance.root):
        why = (
            f"the Spack in {instance.root} has no sandbox of its own, which Spack has since 1.2; for rules "
            "for another Spack use 'pkgjail export --format landlock'"
        )
        raise InputError([Problem("", why)])


def _allowed(instance: Instance) -> Iterator[bytes]:
    """Yield what Spack itself reads, but nothing that has another package or its build below it."""
    private = [os.path.realpath(path) for path in instance.private]
    for path in outermost_paths(instance, instance.own):
        yield from map(os.fsencode, _without(os.path.realpath(path), private))


def _without(path: str, private: Sequence[str]) -> Iterator[str]:
    """Yield `path`, or what is in it if something private is below it."""
    if any(_is_below(path, one) for one in private):
        return
    if not any(_is_below(one, path) for one in private):
        yield path
        return
    # Spack would follow a link, to where the manifest or another rule decides.
    with os.scandir(path) as items:
        inside = sorted(item.path for item in items if not item.is_symlink())
    for item in inside:
        yield from _without(item, private)


def _is_below(path: str, above: str) -> bool:
    return (path + "/").startswith(above.rstrip("/") + "/")
