"""From a manifest to a mount plan: pure data that `pkgjail.sandbox` carries out.

The plan must be exact: outside /proc, /sys, /dev and /tmp the jail has the names of the manifest and
no others, except for those that the user binds. `pkgjail.sandbox.steps` lists the instruction set.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.given import path_bytes
from pkgjail.core.jail_names import HOSTNAME, KERNEL_DIRECTORIES, SCRATCH_DIRECTORIES, SHARED_MEMORY, TMP
from pkgjail.jails.layout import Layout
from pkgjail.jails.strategies.file_binds import file_step
from pkgjail.jails.user_binds import user_bind_steps
from pkgjail.sandbox.steps import (
    Bind,
    Cover,
    Devices,
    Directory,
    MapRoot,
    NoUserNamespace,
    Plan,
    Proc,
    Seal,
    Step,
    Sys,
    Tmpfs,
    WholeDirectory,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.devices import Device
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions


def plan_jail(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    options: JailOptions,
    *,
    entry_files: Mapping[bytes, bytes],
    root: AnyPath = b"/",
    hostname: str = HOSTNAME,
    directory_steps: Mapping[bytes, Step] | None = None,
    devices: Sequence[Device] = (),
    copies: Mapping[bytes, bytes] | None = None,
) -> Plan:
    """Write the plan of a jail that shows exactly `manifest`.

    Each file is a bind mount of its own, except below the directories in `directory_steps`.

    Args:
        manifest: what the jail has.
        options: the user's binds, network and environment.
        entry_files: the content of the files that are made at entry; a file that is missing is empty.
        root: the directory of the manifest's files: `/`, or the tree it was resolved from.
        hostname: the host name in the jail.
        directory_steps: directories, and for each the one step that shows it with all that the manifest
            has below it. It is read-only, so no new mount point of a bind may be in it.
        copies: the content of other files that are made at entry too, instead of showing the host's.
        devices: the host's devices that the jail shows, and links to them (`pkgjail.core.devices`).

    Raises:
        JailError: a bind would cover a name of the manifest, or has no source.

    """
    root = path_bytes(root, "root")
    layout = Layout(manifest)
    content = {
        entry.path: entry_files.get(entry.path, b"") for entry in manifest.files if entry.origin == "entry"
    }
    steps = _manifest_steps(manifest, {**content, **(copies or {})}, directory_steps or {})
    if not manifest.files or manifest.files[0].path != b"/":
        steps.insert(0, Directory(b"/", 0o755))
    for path in (*KERNEL_DIRECTORIES, TMP):
        steps.extend(layout.make_directories(path))
    scratch = [path for path in SCRATCH_DIRECTORIES if layout.is_empty_directory(path)]
    before, after = user_bind_steps(layout, options, scratch)
    kernel: list[Step] = [Proc(b"/proc"), Sys(b"/sys"), Devices(b"/dev", tuple(devices))]
    tmpfs: list[Step] = [Tmpfs(path, 0o1777) for path in scratch]
    first: tuple[Step, ...] = (MapRoot(),) if options.map_root else ()
    if not options.user_namespace:
        first = (NoUserNamespace(),)
    return Plan(
        root=os.path.realpath(root),
        steps=(*first, *steps, *before, Seal(), *kernel, *tmpfs, *_with_shared_memory(after, options)),
        network=options.network,
        hostname=hostname,
        share_ipc=options.share_ipc,
    )


def _with_shared_memory(binds: list[Step], options: JailOptions) -> list[Step]:
    """Return the steps of binds, which are in the order of their paths, with one for the host's /dev/shm."""
    if not options.share_ipc:
        return binds
    shared = Bind(SHARED_MEMORY, os.path.realpath(SHARED_MEMORY), writable=True)
    place = next(
        (i for i, step in enumerate(binds) if isinstance(step, Bind) and step.path > shared.path), len(binds)
    )
    return [*binds[:place], shared, *binds[place:]]


def _manifest_steps(
    manifest: Manifest, made: Mapping[bytes, bytes], directory_steps: Mapping[bytes, Step]
) -> list[Step]:
    """Return the steps for the manifest's entries. `made` has the content of files made at entry."""
    steps: list[Step] = []
    shown = set()  # directories that one step shows with all that is in them
    for entry in manifest.files:  # by path: a directory comes before what is in it
        content = made.get(entry.path)
        if entry.path.rpartition(b"/")[0] in shown:
            shown.add(entry.path)
            if content is not None:
                steps.append(Cover(entry.path, entry.mode, content))
        elif (step := directory_steps.get(entry.path)) is not None:
            shown.add(entry.path)
            steps += [step] if isinstance(step, WholeDirectory) else [file_step(entry, None), step]
        else:
            steps.append(file_step(entry, content))
    return steps
