"""Build an environment: a directory with a manifest, a record, and, if wanted, a tree of the files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import BuildDriftError, DriftError, InputError, Problem
from pkgjail.core.model import JailOptions, text_path
from pkgjail.core.reporter import SILENT, warn_each
from pkgjail.core.text import counted, first_of, shown
from pkgjail.environments import tree
from pkgjail.environments.builder import Built, holding, started
from pkgjail.environments.copied_manifest import drops_bits
from pkgjail.environments.directory import split
from pkgjail.environments.file_copy import sync_filesystem
from pkgjail.environments.record import FORMS, MANIFEST, Head
from pkgjail.environments.sources import Sources, refuse_unreadable
from pkgjail.jail.drift import Check, compare_host, refuse_drift, share_baseline
from pkgjail.jail.protection import protected_environment, refuse_open
from pkgjail.jail.run import content_at_entry
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.storage.baseline import publisher_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pkgjail.core.model import Manifest, UserBind
    from pkgjail.core.reporter import Reporter
    from pkgjail.environments.builder import Builder

# The manifest's own facts were just compared; names that came to the host besides do not matter.
_AS_IT_IS = JailOptions(allow_drift=True)


def build_environment(  # noqa: PLR0913 - two say what; the rest have defaults
    manifest: Manifest,
    directory: bytes,
    *,
    form: str = "host",
    root: bytes = b"/",
    binds: tuple[UserBind, ...] = (),
    network: bool = True,
    variables: Mapping[str, str] | None = None,
    reporter: Reporter = SILENT,
) -> Built:
    """Make `directory` an environment of `manifest`, to be entered again and again.

    Args:
        manifest: what the environment holds.
        directory: it must not be there, or be an empty directory of the caller's.
        form: "host" shows the host's files at each entry; "copy" has a copy of them in
            `directory`/root; "fstab" has there what the lines of `export_manifest(…, "fstab")` mount
            on.
        root: where the files are that the manifest was resolved from.
        binds: what each entry shows besides.
        network: whether each entry shares the host's network.
        variables: what each entry's environment has besides `default_environment`.
        reporter: hears of progress ("copying"), and of mode bits that a copy does not have.

    Raises:
        InputError: the directory cannot be used.
        DriftError: files are not as the manifest says; all of them are told.
        JailError: a writable bind would show the environment, or lie in it.
        PkgjailError: there is no room, or files that are to be copied may not be read. As with every
            other failure, nothing is left of the environment.
        OSError: something cannot be read or written.

    """
    root = os.path.realpath(root)
    refuse_open(binds, [protected_environment(b"/".join(split(directory)))])
    changes = _compared(manifest, form, root, reporter)
    content = {} if changes or form == "host" else content_at_entry(manifest, root, _AS_IT_IS)
    data = dump_manifest(manifest)
    head = Head(
        form=form,
        inode=0,
        manifest=manifest_digest(data),
        root=root,
        binds=binds,
        network=network,
        variables=dict(variables or {}),
    )
    with started(directory, head) as builder:
        builder.regular(MANIFEST, 0o644, holding(data))
        if form == "copy":
            _copy(builder, manifest, content, Sources(root, dict(changes), reporter))
        elif form == "fstab":
            builder.tree(0o755, tree.pieces_of_fstab(manifest, content))
        built = builder.finish()
    with contextlib.suppress(OSError):  # then its first entry by whoever built it does
        share_baseline(manifest, root, publisher_of(os.path.join(directory, MANIFEST)))
    _tell_dropped_bits(manifest, form, reporter)
    _tell_absent_binds(binds, reporter)
    return built


def _compared(
    manifest: Manifest, form: str, root: bytes, reporter: Reporter
) -> tuple[tuple[bytes, str], ...]:
    """Refuse what can be seen beforehand. For a copy drift is returned: more may be found in copying."""
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
            compare_host(manifest, root, Check(reporter=reporter))
    except DriftError as drift:
        if form != "copy":
            raise BuildDriftError(drift.changes) from drift
        return drift.changes
    return ()


def _copy(builder: Builder, manifest: Manifest, content: Mapping[bytes, bytes], sources: Sources) -> None:
    """Fill the tree with copies, and hold each against the manifest.

    Raises:
        DriftError: with all that differ, not the first only.

    """
    with sources:
        files = sources.filling(tree.copied_files(manifest))
        builder.tree(tree.mode_of_root(manifest), tree.pieces_of_copy(manifest, content), files)
    if sources.changes:
        raise BuildDriftError(tuple(sorted(sources.changes.items())))
    sync_filesystem(builder.place.directory)


def _tell_absent_binds(binds: Sequence[UserBind], reporter: Reporter) -> None:
    """Warn of what the environment cannot be entered without; a disk may well be mounted later."""
    told = [
        f"{shown(bind.source)} is not there, and is bound at each entry: make it before the first"
        for bind in binds
        if not os.path.exists(bind.source)
    ]
    warn_each(reporter, told, "sources of binds that are not there")


def _tell_dropped_bits(manifest: Manifest, form: str, reporter: Reporter) -> None:
    dropped = [text_path(entry.path) for entry in manifest.files if drops_bits(entry)]
    if form == "copy" and dropped:
        reporter.warn(
            f"{counted(len(dropped), 'name')} copied without their set-user-ID and set-group-ID bits: "
            f"{', '.join(first_of(dropped))}"
        )
