"""Write files in each format: those of a manifest, or of an image of a store."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.errors import ExportDriftError, InputError, Problem
from pkgjail.core.model import record
from pkgjail.export.common import refuse
from pkgjail.export.image import archive, layout, squashfs
from pkgjail.export.image.content import COMPRESSIONS, ZSTD
from pkgjail.export.image.layout import Exported
from pkgjail.export.image.oci import NAME, docker_documents, oci_documents
from pkgjail.storage.atomic import new_directory, new_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import FileEntry
    from pkgjail.core.reporter import Reporter
    from pkgjail.export.image.layers import Layer
    from pkgjail.export.image.oci import Bill, Description
    from pkgjail.export.image.tar import Stamp

OF_LAYERS = frozenset({"docker-archive", "oci", "oci-archive"})
"""The formats that have layers."""
BILLS = ("cyclonedx", "spdx")
"""The formats of bills of materials that can be attached to an image."""

_COMPRESSED = frozenset({"oci", "oci-archive", "squashfs"})
_WITH_BILL = frozenset({"oci", "oci-archive"})


@record
class Work:
    """What to write. `content` has the files made at entry, and `stamps` owners and times, by path.

    `root` is the real path of the directory with the other files.
    """

    layers: tuple[Layer, ...]
    content: Mapping[bytes, bytes]
    stamps: Mapping[bytes, Stamp]
    root: bytes
    description: Description
    bill: Bill | None
    compression: str
    reporter: Reporter


def refuse_options(form: str, forms: Sequence[str], *, compression: str, name: str, bill: str) -> None:
    """Raise `InputError` with all that is wrong with these arguments of an export; `forms` are possible."""
    if problems := list(_problems(form, forms, compression, name, bill)):
        raise InputError([Problem("", text) for text in problems])


def _problems(form: str, forms: Sequence[str], compression: str, name: str, bill: str) -> Iterator[str]:
    if form not in forms:
        yield f"cannot export to {form!r}: the formats with files are {', '.join(forms)}"
        return
    if compression and compression not in COMPRESSIONS:
        yield f"cannot compress by {compression!r}: the compressions are {', '.join(COMPRESSIONS)}"
    elif compression and form not in _COMPRESSED:
        yield f"cannot compress a {form}: the formats that can be are {', '.join(sorted(_COMPRESSED))}"
    elif compression == ZSTD and form in OF_LAYERS and not shutil.which(ZSTD):
        yield "cannot compress by zstd: the program is not in PATH; install it, or use gzip"
    if name and form not in OF_LAYERS:
        yield f"cannot name a {form}: the formats with a name are {', '.join(sorted(OF_LAYERS))}"
    elif name and not NAME.fullmatch(name):
        yield (
            f"cannot name an image {name!r}: use lower-case letters, digits and single '-', '_', '.' or '/' "
            "between them, and perhaps ':' and a tag"
        )
    if bill and bill not in BILLS:
        yield f"cannot attach {bill!r}: the bills of materials are {', '.join(BILLS)}"
    elif bill and form not in _WITH_BILL:
        yield f"cannot attach a bill of materials to a {form}: only to {', '.join(sorted(_WITH_BILL))}"


def refuse_whiteouts(form: str, entries: Iterable[FileEntry]) -> None:
    """Refuse names that would delete others, if the format has layers."""
    if form in OF_LAYERS:
        hidden = [entry.path for entry in entries if entry.path.rpartition(b"/")[2].startswith(b".wh.")]
        refuse(form, hidden, "in a layer such a name deletes another one; put it on a blacklist")


def write_files(work: Work, form: str, destination: str) -> Exported:
    """Write all formats but bundles. `destination` is complete afterwards, or as it was before.

    Raises:
        ExportDriftError: files are not as their entries say.
        PkgjailError: a program that the format needs is missing, or failed.
        OSError: something cannot be read or written.

    """
    if form == "oci":
        with new_directory(destination) as directory:
            return layout.write_directory(_plan(work, form), directory)
    beside = os.path.dirname(destination) or "."
    with new_file(destination) as descriptor:
        if form in OF_LAYERS:
            return layout.write_archive(_plan(work, form), descriptor, beside)
        if form == "tar":
            _write_tar(work, descriptor)
            return Exported()
        with tempfile.TemporaryFile(dir=beside) as tar:
            _write_tar(work, tar.fileno())
            squashfs.write(tar.fileno(), descriptor, work.compression)
        return Exported()


def in_order(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """Return entries in the order of an archive.

    What is in a directory follows it at once: tar(1) sets a directory's time when it leaves it.
    """
    return sorted(entries, key=lambda entry: entry.path.split(b"/"))


def _write_tar(work: Work, descriptor: int) -> None:
    entries = in_order(entry for layer in work.layers for entry in layer.entries)
    changes = archive.write_archive(entries, work.content, work.stamps, work.root, descriptor, work.reporter)
    if changes:
        raise ExportDriftError(tuple(sorted(changes)))


def _plan(work: Work, form: str) -> layout.ImagePlan:
    if form == "docker-archive":
        describe = partial(docker_documents, work.description)
    else:
        describe = partial(oci_documents, work.description, work.bill)
    return layout.ImagePlan(
        layers=work.layers,
        content=work.content,
        stamps=work.stamps,
        root=work.root,
        compression=work.compression,
        describe=describe,
        reporter=work.reporter,
    )
