"""Write an image: its layers as blobs, in a directory or in an archive, and then its documents."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pkgjail.core.errors import ExportDriftError
from pkgjail.core.model import record
from pkgjail.export.image.archive import BlobArchive, archive_size, opened_again
from pkgjail.export.image.content import Part, write_parts
from pkgjail.export.image.oci import blob_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.reporter import Reporter
    from pkgjail.export.image.content import Written
    from pkgjail.export.image.layers import Layer
    from pkgjail.export.image.oci import Documents
    from pkgjail.export.image.tar import Stamp


@record
class ImagePlan:
    """What to write, and how.

    `content` has the files made at entry, and `stamps` owners and times, by path; `root` is the real path of
    the directory of the other files; `compression` is "", "gzip" or "zstd"; `describe` returns the documents
    for the layers that were written.
    """

    layers: tuple[Layer, ...]
    content: Mapping[bytes, bytes]
    stamps: Mapping[bytes, Stamp]
    root: bytes
    compression: str
    describe: Callable[[Sequence[Written]], Documents]
    reporter: Reporter


@record
class Exported:
    """What was written: for an image the digest by which engines name it, and its layers' DiffIDs."""

    digest: str = ""
    diff_ids: tuple[str, ...] = ()


def write_directory(plan: ImagePlan, directory: str) -> Exported:
    """Write an OCI image layout into an empty directory.

    Raises:
        ExportDriftError: files are not as the manifest says.
        OSError: something cannot be read or written.

    """
    blobs = os.path.join(directory, os.path.dirname(blob_name("")))
    os.makedirs(blobs)
    parts = []
    for number, layer in enumerate(plan.layers):
        path = os.path.join(blobs, f"layer-{number}")
        _write(path, b"")
        parts.append(_part(plan, layer, path, 0))
    written = _write_layers(plan, parts)
    for part, each in zip(parts, written):
        os.rename(part.file, os.path.join(blobs, each.sha256))
    documents = plan.describe(written)
    for digest, data in documents.blobs.items():
        _write(os.path.join(blobs, digest), data)
    for name, data in documents.files.items():
        _write(os.path.join(directory, name), data)
    return _exported(documents, written)


def write_archive(plan: ImagePlan, descriptor: int, directory: str) -> Exported:
    """Write an archive of the same into the empty file of `descriptor`.

    Compressed layers, whose sizes are not known before, are first written to files without names in
    `directory`. Raises as `write_directory`.
    """
    archive = BlobArchive(descriptor)
    with ExitStack() as files:
        parts, packed = [], []
        for layer in plan.layers:
            if plan.compression:
                packed.append(files.enter_context(tempfile.TemporaryFile(dir=directory)).fileno())
                parts.append(_part(plan, layer, opened_again(packed[-1]), 0))
            else:
                start = archive.reserve(archive_size(layer.entries, plan.content, plan.stamps))
                parts.append(_part(plan, layer, opened_again(descriptor), start))
        written = _write_layers(plan, parts)
        for number, each in enumerate(written):
            if plan.compression:
                archive.add_file(blob_name(each.sha256), packed[number], each.size)
            else:
                archive.name(parts[number].offset, blob_name(each.sha256), each.size)
    documents = plan.describe(written)
    for digest, data in documents.blobs.items():
        archive.add(blob_name(digest), data)
    for name, data in documents.files.items():
        archive.add(name, data)
    archive.finish()
    return _exported(documents, written)


def _part(plan: ImagePlan, layer: Layer, file: str, offset: int) -> Part:
    content = {} if layer.packages else plan.content  # only the last layer has files made at entry
    return Part(file, offset, layer.entries, content, plan.stamps, whole=True, compression=plan.compression)


def _exported(documents: Documents, written: Sequence[Written]) -> Exported:
    return Exported(digest=documents.digest, diff_ids=tuple(f"sha256:{each.diff_id}" for each in written))


def _write_layers(plan: ImagePlan, parts: Sequence[Part]) -> list[Written]:
    """Write the layers and return the results in their order."""
    written = write_parts(parts, plan.root, plan.reporter)
    if changes := sorted(change for each in written for change in each.changes):
        raise ExportDriftError(tuple(changes))
    return written


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
