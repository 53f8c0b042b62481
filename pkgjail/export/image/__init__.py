"""Export a manifest with its files: as an image, an archive, a file system or a bundle for an OCI runtime.

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
import shutil
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import ExportDriftError, InputError, Problem
from pkgjail.core.jail_names import TMP
from pkgjail.core.model import record, text_path
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source
from pkgjail.export.common import missing_directories, refuse, refuse_other_kinds
from pkgjail.export.image import archive, bundle, layout, squashfs
from pkgjail.export.image.content import COMPRESSIONS, ZSTD
from pkgjail.export.image.layers import layers_of
from pkgjail.export.image.layout import Exported
from pkgjail.export.image.oci import NAME, Bill, default_name, docker_documents, oci_documents
from pkgjail.export.sbom_libraries import write_cyclonedx, write_spdx
from pkgjail.jail.drift import find_drift
from pkgjail.jail.host_mismatch import absent_paths, explain_absence
from pkgjail.jail.run import content_for_anyone
from pkgjail.storage.atomic import new_directory, new_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import Manifest
    from pkgjail.core.reporter import Reporter

IMAGE_FORMS = ("docker-archive", "oci", "oci-archive", "oci-bundle", "squashfs", "tar")
"""The names of the formats that have the manifest's files."""

DIRECTORIES = frozenset({"oci", "oci-bundle"})
"""The formats that are a directory, and not a file."""

_OF_LAYERS = frozenset({"docker-archive", "oci", "oci-archive"})
_COMPRESSED = frozenset({"oci", "oci-archive", "squashfs"})
_WITH_BILL = frozenset({"oci", "oci-archive"})
_BILLS = {
    "cyclonedx": ("application/vnd.cyclonedx+json", write_cyclonedx),
    "spdx": ("application/spdx+json", write_spdx),
}
BILLS = tuple(_BILLS)
"""The formats of bills of materials that can be attached to an image."""


@record
class _Request:
    """What to export, checked."""

    manifest: Manifest
    form: str
    root: bytes
    content: Mapping[bytes, bytes]
    compression: str
    name: str
    bill: Bill | None
    reporter: Reporter


def export_image(  # noqa: PLR0913 - three are required; the others have defaults
    manifest: Manifest,
    form: str,
    destination: str,
    *,
    root: bytes = b"/",
    compression: str = "",
    name: str = "",
    bill: str = "",
    reporter: Reporter = SILENT,
) -> Exported:
    """Write `manifest` with its files, and nothing else, to `destination`.

    Every name belongs to root, and has the manifest's mode and the time `pkgjail.export.image.tar.TIME`. The
    files made at entry are the same for every user (`pkgjail.jail.run.content_for_anyone`). The same manifest
    gives the same bytes, except that compressed layers and squashfs depend on the program that compresses:
    then the layers' DiffIDs are the same. "oci-bundle" also depends on the user (`.bundle`).

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
    problems = list(_problems(form, compression, name, bill))
    if problems:
        raise InputError([Problem("", text) for text in problems])
    _refuse_names(manifest, form)
    root = os.path.realpath(root)
    refuse_other_source(manifest, root)
    _refuse_drift(manifest, root)
    attached = None
    if bill:
        media_type, write = _BILLS[bill]
        attached = Bill(media_type, write(manifest, root, None))
    request = _Request(
        manifest=manifest,
        form=form,
        root=root,
        content=content_for_anyone(manifest, root),
        compression=compression,
        name=name or default_name(manifest),
        bill=attached,
        reporter=reporter,
    )
    exported = _write(request, destination)
    _warn(manifest, form, reporter)
    return exported


def _warn(manifest: Manifest, form: str, reporter: Reporter) -> None:
    """Warn of what a jail has and the export does not."""
    if manifest.devices:
        patterns = ", ".join(device.pattern for device in manifest.devices)
        reporter.warn(
            f"the manifest allows devices ({patterns}), which no {form} has; "
            "name them when you start it (--device of most engines)"
        )
    if form in _OF_LAYERS and TMP in missing_directories(manifest):
        reporter.warn(
            f"the manifest has no {text_path(TMP)}, which every jail has and the image does not; "
            "have the engine make it (podman run --tmpfs /tmp)"
        )


def _problems(form: str, compression: str, name: str, bill: str) -> Iterator[str]:
    """Yield what is wrong with the arguments."""
    if form not in IMAGE_FORMS:
        yield f"cannot export to {form!r}: the formats with files are {', '.join(IMAGE_FORMS)}"
        return
    if compression and compression not in COMPRESSIONS:
        yield f"cannot compress by {compression!r}: the compressions are {', '.join(COMPRESSIONS)}"
    elif compression and form not in _COMPRESSED:
        yield f"cannot compress a {form}: the formats that can be are {', '.join(sorted(_COMPRESSED))}"
    elif compression == ZSTD and form in _OF_LAYERS and not shutil.which(ZSTD):
        yield "cannot compress by zstd: the program is not in PATH; install it, or use gzip"
    if name and form not in _OF_LAYERS:
        yield f"cannot name a {form}: the formats with a name are {', '.join(sorted(_OF_LAYERS))}"
    elif name and not NAME.fullmatch(name):
        yield (
            f"cannot name an image {name!r}: use lower-case letters, digits and single '-', '_', '.' or '/' "
            "between them, and perhaps ':' and a tag"
        )
    if bill and bill not in _BILLS:
        yield f"cannot attach {bill!r}: the bills of materials are {', '.join(BILLS)}"
    elif bill and form not in _WITH_BILL:
        yield f"cannot attach a bill of materials to a {form}: only to {', '.join(sorted(_WITH_BILL))}"


def _refuse_names(manifest: Manifest, form: str) -> None:
    """Refuse files without a digest, and names that the format cannot have."""
    files = [e for e in manifest.files if e.kind == "regular" and e.origin != "entry"]
    undigested = [entry.path for entry in files if entry.sha256 is None]
    if files and len(undigested) == len(files):
        why = f"cannot export to {form}: the manifest has no digests; resolve it with them"
        raise InputError([Problem("", why)])
    why = "others may not read it, so that the manifest has no digest of it; put it on a blacklist"
    refuse(form, undigested, why)
    if form in _OF_LAYERS:
        hidden = [e.path for e in manifest.files if e.path.rpartition(b"/")[2].startswith(b".wh.")]
        refuse(form, hidden, "in a layer such a name deletes another one; put it on a blacklist")
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


def _write(request: _Request, destination: str) -> Exported:
    if request.form in DIRECTORIES:
        with new_directory(destination) as directory:
            if request.form == "oci":
                return layout.write_directory(_plan(request), directory)
            bundle.write(request.manifest, request.content, request.root, directory, request.reporter)
            return Exported()
    beside = os.path.dirname(destination) or "."
    with new_file(destination) as descriptor:
        if request.form in _OF_LAYERS:
            return layout.write_archive(_plan(request), descriptor, beside)
        if request.form == "tar":
            _write_tar(request, descriptor)
            return Exported()
        with tempfile.TemporaryFile(dir=beside) as tar:
            _write_tar(request, tar.fileno())
            squashfs.write(tar.fileno(), descriptor, request.compression)
        return Exported()


def _write_tar(request: _Request, descriptor: int) -> None:
    # What is in a directory follows it at once: tar(1) sets a directory's time when it leaves it.
    entries = sorted(request.manifest.files, key=lambda entry: entry.path.split(b"/"))
    arguments = (entries, request.content, request.root, descriptor, request.reporter)
    if changes := archive.write_archive(*arguments):
        raise ExportDriftError(tuple(sorted(changes)))


def _plan(request: _Request) -> layout.ImagePlan:
    manifest, layers = request.manifest, layers_of(request.manifest)
    if request.form == "docker-archive":
        describe = partial(docker_documents, manifest, request.name, layers)
    else:
        describe = partial(oci_documents, manifest, request.name, layers, request.bill)
    return layout.ImagePlan(
        layers=layers,
        content=request.content,
        root=request.root,
        compression=request.compression,
        describe=describe,
        reporter=request.reporter,
    )
