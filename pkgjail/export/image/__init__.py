"""Export a manifest with its files: as an image, an archive, a file system or a bundle for an OCI runtime.

stored     the same of an image of a store
writing    each format, from any source
layers     which names go into which layer
tar        headers of archives
content    files as members of archives, compared with the manifest while they are read
archive    archives that several processes write at once
oci        the documents of an image
layout     images, in a directory or an archive
bundle     directories for OCI runtimes
tree       files as a directory tree
squashfs   file systems
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import ExportDriftError, InputError, Problem
from pkgjail.core.given import path_bytes, path_text
from pkgjail.core.jail_names import TMP
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import text_path
from pkgjail.export.common import missing_directories, refuse, refuse_other_kinds
from pkgjail.export.image import bundle
from pkgjail.export.image.layers import layers_of
from pkgjail.export.image.layout import Exported
from pkgjail.export.image.oci import Bill, default_name, describe_manifest
from pkgjail.export.image.writing import OF_LAYERS, Work, refuse_options, refuse_whiteouts, write_files
from pkgjail.export.sbom_libraries import write_cyclonedx, write_spdx
from pkgjail.jails.drift import find_drift
from pkgjail.jails.host_mismatch import absent_paths, explain_absence
from pkgjail.jails.run import content_for_anyone
from pkgjail.storage.atomic import new_directory

if TYPE_CHECKING:
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter

IMAGE_FORMS = ("docker-archive", "oci", "oci-archive", "oci-bundle", "squashfs", "tar")
"""The names of the formats that have the manifest's files."""

_BILLS = {
    "cyclonedx": ("application/vnd.cyclonedx+json", write_cyclonedx),
    "spdx": ("application/spdx+json", write_spdx),
}


def export_image(  # noqa: PLR0913 - three are required; the others have defaults
    manifest: Manifest,
    form: str,
    destination: AnyPath,
    *,
    root: AnyPath = b"/",
    compression: str = "",
    name: str = "",
    bill: AnyPath = "",
    reporter: Reporter = SILENT,
) -> Exported:
    """Write `manifest` with its files, and nothing else, to `destination`.

    Every name belongs to root, and has the manifest's mode and the time `pkgjail.export.image.tar.TIME`. The
    files made at entry are the same for every user (`pkgjail.jails.run.content_for_anyone`). The same
    manifest gives the same bytes, except that compressed layers and squashfs depend on the program that
    compresses: then the layers' DiffIDs are the same. "oci-bundle" also depends on the user (`.bundle`).

    Args:
        manifest: what to export, with digests.
        form: one of `IMAGE_FORMS`.
        destination: a file, which is replaced, or for "oci" and "oci-bundle" a directory, which must be empty
            or not exist. It is complete, or as it was before.
        root: the directory with the manifest's files.
        compression: "gzip" or "zstd", of the layers of "oci" and "oci-archive" or of "squashfs".
        name: the name of the image, perhaps with a tag; the default is the whitelists' names.
        bill: "cyclonedx" or "spdx", to attach a bill of materials to "oci" and "oci-archive" (a referrer).
        reporter: receives the progress ("exporting"), and warnings of what the format does not have.

    Raises:
        InputError: the arguments contradict each other, the manifest has no digests or names that the format
            cannot have, or the destination is something else.
        SourceError: the manifest was made from another source than the one at `root`.
        ExportDriftError: files below `root` are not as the manifest says; it lists all of them.
        JailError: the ld.so cache is made in a jail, and that cannot be set up here.
        PkgjailError: a program or a library that the format needs is missing, or failed.
        OSError: something cannot be read or written.

    """
    destination = path_text(destination, "destination")
    root = path_bytes(root, "root")
    bill = path_text(bill, "bill")
    refuse_options(form, IMAGE_FORMS, compression=compression, name=name, bill=bill)
    _refuse_names(manifest, form)
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    _refuse_drift(manifest, root)
    content = content_for_anyone(manifest, root)
    if form == "oci-bundle":
        with new_directory(destination) as directory:
            bundle.write(manifest, content, root, directory, reporter)
        exported = Exported()
    else:
        layers = layers_of(manifest)
        work = Work(
            layers=layers,
            content=content,
            stamps={},
            root=root,
            description=describe_manifest(manifest, name or default_name(manifest), layers),
            bill=_bill(manifest, bill, root) if bill else None,
            compression=compression,
            reporter=reporter,
        )
        exported = write_files(work, form, destination)
    _warn(manifest, form, reporter)
    return exported


def _bill(manifest: Manifest, form: str, root: bytes) -> Bill:
    media_type, write = _BILLS[form]
    return Bill(media_type, write(manifest, root, None))


def _warn(manifest: Manifest, form: str, reporter: Reporter) -> None:
    """Warn of what a jail has and the export does not."""
    if manifest.devices:
        patterns = ", ".join(device.pattern for device in manifest.devices)
        reporter.warn(
            f"the manifest allows devices ({patterns}), which no {form} has; "
            "name them when you start it (--device of most engines)"
        )
    if form in OF_LAYERS and TMP in missing_directories(manifest):
        reporter.warn(
            f"the manifest has no {text_path(TMP)}, which every jail has and the image does not; "
            "have the engine make it (podman run --tmpfs /tmp)"
        )


def _refuse_names(manifest: Manifest, form: str) -> None:
    """Refuse files without a digest, and names that the format cannot have."""
    files = [e for e in manifest.files if e.kind == "regular" and e.origin != "entry"]
    undigested = [entry.path for entry in files if entry.sha256 is None]
    if files and len(undigested) == len(files):
        why = f"cannot export to {form}: the manifest has no digests; resolve it with them"
        raise InputError([Problem("", why)])
    why = "others may not read it, so that the manifest has no digest of it; put it on a blacklist"
    refuse(form, undigested, why)
    refuse_whiteouts(form, manifest.files)
    if form == "oci-bundle":
        refuse_other_kinds(form, manifest)


def _refuse_drift(manifest: Manifest, root: bytes) -> None:
    """Refuse files that are not as the manifest says, before any is read; if there are some, read all."""
    if not find_drift(manifest.files, root, None):
        return
    absent = absent_paths((e for e in manifest.files if e.origin != "entry"), root)
    cause = explain_absence(manifest, root, len(absent), len(manifest.files))
    digests = any(entry.sha256 for entry in manifest.files)
    changes = find_drift(manifest.files, root, None, verify="hash" if digests else "")
    raise ExportDriftError(changes, cause=cause)
