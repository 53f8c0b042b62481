"""Build an environment: a directory with a manifest, a record and, by its form, a tree of the files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.entries import COPIED_BITS
from pkgjail.core.errors import BuildDriftError, DriftError, InputError, Problem
from pkgjail.core.given import path_bytes
from pkgjail.core.options import JailOptions
from pkgjail.core.reporter import SILENT, warn_each
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.stage_names import DEFAULT
from pkgjail.core.text import printable
from pkgjail.environments.directory import parent_and_name
from pkgjail.environments.file_copy import (
    FileCopier,
    copied_files,
    copied_manifest,
    refuse_unreadable,
    sync_filesystem,
)
from pkgjail.environments.journal import Built, start_build, write_bytes
from pkgjail.environments.machine import checked_machine
from pkgjail.environments.record import FORMS, MANIFEST, RECORD, Header
from pkgjail.environments.stage import refuse_stage
from pkgjail.export.common import warn_of_dropped_bits
from pkgjail.export.skeleton import Piece, pieces_of_skeleton
from pkgjail.images.users import note_user
from pkgjail.jails.drift import DriftCheck, compare_host, publish_user_baseline, refuse_drift
from pkgjail.jails.protected_paths import protected_environment
from pkgjail.jails.protection import refuse_writable_binds
from pkgjail.jails.run import content_at_entry
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.stages.model import Request
from pkgjail.storage.baseline import publisher_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pkgjail.core.errors import Change
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.journal import JournaledBuild
    from pkgjail.environments.record import Form
    from pkgjail.machine.model import MachineOptions

# The manifest's entries were just compared; other names that the host now has do not matter.
_ACCEPT_DRIFT = JailOptions(allow_drift=True)


def build_environment(  # noqa: PLR0913 - two are required; the others have defaults
    manifest: Manifest,
    directory: AnyPath,
    *,
    form: Form = "host",
    root: AnyPath = b"/",
    binds: tuple[UserBind, ...] = (),
    devices: tuple[bytes, ...] = (),
    device_sets: tuple[str, ...] = (),
    network: bool = True,
    variables: Mapping[str, str] | None = None,
    machine: MachineOptions | None = None,
    stage: str = DEFAULT,
    reporter: Reporter = SILENT,
) -> Built:
    """Make `directory` an environment of `manifest`, which can be entered again and again.

    Args:
        manifest: what the environment shows.
        directory: a new directory, or an empty one of the caller's.
        form: "host" shows the host's files at each entry; "copy" copies them into `directory`/root;
            "fstab" makes the mount points of `export_manifest(…, "fstab")` there.
        root: the directory that the manifest was resolved from.
        binds: what each entry shows in addition.
        devices: the devices that each entry shows, as in `JailOptions`; each entry looks for them anew.
        device_sets: likewise.
        network: whether each entry shares the host's network.
        variables: what the environment of each entry has in addition to `default_environment`.
        machine: the virtual machine in which commands run, instead of a jail; only for the form "host". It is
            started at the first entry and kept running.
        stage: what commands run in without a machine: one of pkgjail's own stages, or "auto" for the
            strongest that works at each entry.
        reporter: gets progress ("copying"), and warnings of mode bits that a copy does not have and of
            binds whose sources do not exist.

    Raises:
        InputError: the directory cannot be used.
        DriftError: files are not as the manifest says; it lists all of them.
        JailError: a writable bind would show the environment, or is in it.
        MachineError, RefusedError: the machine has no kernel, or the stage cannot keep what is asked for.
        PkgjailError: there is no room, or the caller may not read files that are to be copied. As with
            every other failure, nothing is left of the environment.
        OSError: something cannot be read or written.

    """
    directory = path_bytes(directory, "directory")
    root = path_bytes(root, "root")
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    refuse_writable_binds(binds, [protected_environment(b"/".join(parent_and_name(directory)))])
    changes = _compare_host(manifest, form, root, reporter)
    shown = JailOptions(binds=binds, devices=devices, device_sets=device_sets, network=network)
    request = Request(manifest=manifest, argv=(), options=shown, root=root)
    if machine is not None:
        machine = checked_machine(machine, form, request)
    refuse_stage(stage, request)
    content = {} if changes or form == "host" else content_at_entry(manifest, root, _ACCEPT_DRIFT)
    data = dump_manifest(manifest)
    header = Header(
        form=form,
        inode=0,
        manifest=manifest_digest(data),
        root=root,
        binds=binds,
        devices=devices,
        device_sets=device_sets,
        network=network,
        variables=dict(variables or {}),
        machine=machine,
        stage=stage,
    )
    with start_build(directory, header) as build:
        build.make_file(MANIFEST, 0o644, write_bytes(data))
        if form == "copy":
            _copy(build, manifest, content, FileCopier(root, dict(changes), reporter))
        elif form == "fstab":
            build.make_tree(0o755, _mount_points(manifest, content))
        built = build.finish()
        if form != "copy":
            note_user(root, build.environment.path + b"/" + RECORD)
    with contextlib.suppress(OSError):  # otherwise the first entry of this user does it
        publish_user_baseline(manifest, root, publisher_of(os.path.join(directory, MANIFEST)))
    if form == "copy":
        warn_of_dropped_bits(manifest, reporter)
    _warn_of_absent_sources(binds, reporter)
    return built


def _compare_host(manifest: Manifest, form: Form, root: bytes, reporter: Reporter) -> tuple[Change, ...]:
    """Refuse what is wrong before the build. For a copy return the drift: copying may find more of it."""
    if form not in FORMS:
        raise InputError(
            [Problem("", f"cannot build an environment {form!r}: the forms are {', '.join(FORMS)}")]
        )
    if form == "copy":
        refuse_unreadable(manifest, root)
    try:
        if form == "copy":  # the content is compared as it is copied
            refuse_drift(manifest.files, root)
        else:
            compare_host(manifest, root, DriftCheck(reporter=reporter))
    except DriftError as drift:
        if form != "copy":
            raise BuildDriftError(drift.changes) from drift
        return drift.changes
    return ()


def _copy(
    build: JournaledBuild, manifest: Manifest, content: Mapping[bytes, bytes], copier: FileCopier
) -> None:
    """Fill the tree with copies, each compared with the manifest.

    Raises:
        DriftError: lists all that differ, and not only the first.

    """
    mode = next((entry.mode & COPIED_BITS for entry in manifest.files if entry.path == b"/"), 0o755)
    with copier:
        build.make_tree(mode, _copied_names(manifest, content), copier.writers(copied_files(manifest)))
    if copier.changes:
        raise BuildDriftError(tuple(sorted(copier.changes.items())))
    sync_filesystem(build.environment.descriptor)


def _copied_names(manifest: Manifest, content: Mapping[bytes, bytes]) -> Iterator[Piece]:
    """Yield the names of a copied tree, parents first, without the content of `copied_files`."""
    for entry in sorted(copied_manifest(manifest).files, key=lambda entry: entry.path):
        if entry.path == b"/":
            continue
        data = content.get(entry.path, b"") if entry.origin == "entry" else b""
        yield Piece(entry.path, entry.kind, entry.mode, data, entry.target or b"")


def _mount_points(manifest: Manifest, content: Mapping[bytes, bytes]) -> Iterator[Piece]:
    """Yield the names of a tree where fstab(5) mounts the host's files, parents first."""
    pieces = pieces_of_skeleton(manifest, content, mount_points=True)
    return iter(sorted((piece for piece in pieces if piece.path != b"/"), key=lambda piece: piece.path))


def _warn_of_absent_sources(binds: Sequence[UserBind], reporter: Reporter) -> None:
    """Warn of binds without which the environment cannot be entered; a disk may be mounted later."""
    messages = [
        f"{printable(bind.source)} does not exist, and is bound at each entry: create it before the first"
        for bind in binds
        if not os.path.exists(bind.source)
    ]
    warn_each(reporter, messages, "sources of binds that do not exist")
