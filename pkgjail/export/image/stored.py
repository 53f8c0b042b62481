"""Export an image of a store with all that was imported: owners, set-user-ID bits, hard links, times.

It has one layer. What an image was imported from may have had several, but the store has only what they
make together, and its names are of no packages that other images could share a layer of.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from pkgjail.api import system_of
from pkgjail.core.entries import MISSING, compare
from pkgjail.core.errors import ExportDriftError, ModifiedImageError
from pkgjail.core.given import path_text
from pkgjail.core.model import FileEntry
from pkgjail.core.reporter import SILENT
from pkgjail.export.image.content import Buffer, shares_of, write_members
from pkgjail.export.image.layers import Layer
from pkgjail.export.image.oci import Description, fit_name, has_shell
from pkgjail.export.image.tar import END, Stamp
from pkgjail.export.image.writing import Work, in_order, refuse_options, refuse_whiteouts, write_files
from pkgjail.images.model import disk_mode
from pkgjail.images.store import read_listing

if TYPE_CHECKING:
    from pkgjail.core.errors import Change
    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.export.image.layout import Exported
    from pkgjail.images.model import Image, ImageEntry

STORED_FORMS = ("docker-archive", "oci", "oci-archive", "squashfs", "tar")
"""The names of the formats of an image's export."""

_NANOSECONDS = 10**9
_AGAIN = "see what else is not with 'pkgjail image verify', and import it again"


def export_stored_image(  # noqa: PLR0913 - three are required; the others have defaults
    image: Image,
    form: str,
    destination: AnyPath,
    *,
    compression: str = "",
    name: str = "",
    reporter: Reporter = SILENT,
) -> Exported:
    """Write an image of a store to `destination`; imported again from there, it has the same digest.

    Args:
        image: the image, which the caller keeps from being removed (`used_image`).
        form: one of `STORED_FORMS`.
        destination: a file, which is replaced, or for "oci" a directory, which must be empty or not exist. It
            is complete, or as it was before.
        compression: "gzip" or "zstd", of the layer of "oci" and "oci-archive" or of "squashfs".
        name: the name in the formats that have layers, perhaps with a tag; the default is the image's.
        reporter: receives the progress ("exporting").

    Raises:
        InputError: the arguments contradict each other, the image has names that the format cannot have, or
            the destination is something else.
        ModifiedImageError: names of the store are not as the image's list says.
        PkgjailError: a program that the format needs is missing, or failed.
        OSError: something cannot be read or written.

    """
    destination = path_text(destination, "destination")
    refuse_options(form, STORED_FORMS, compression=compression, name=name, bill="")
    entries, stamps = _members(image)
    refuse_whiteouts(form, entries)
    work = Work(
        layers=(Layer(packages=(), entries=entries),),
        content={},
        stamps=stamps,
        root=image.root,
        description=Description(
            label="pkgjail.image",
            digest=image.digest,
            name=name or fit_name(image.name, "image"),
            architecture=system_of(image.root)[1],
            has_shell=has_shell(entries),
            owners=("",),
        ),
        bill=None,
        compression=compression,
        reporter=reporter,
    )
    try:
        return write_files(work, form, destination)
    except ExportDriftError as error:
        raise _modified(image, error.changes) from error


def archive_image(image: Image, stream: BinaryIO, *, reporter: Reporter = SILENT) -> None:
    """Write an image to a stream as a tar archive, such as a pipe: the bytes of the format "tar".

    Args:
        image: the image, which the caller keeps from being removed (`used_image`).
        stream: a binary file, open for writing.
        reporter: receives the progress in names ("exporting").

    Raises:
        ModifiedImageError: names of the store are not as the image's list says; what was written is no
            archive.
        OSError: a file cannot be read, or the stream cannot be written.

    """
    entries, stamps = _members(image)
    buffer, done = Buffer(stream.write), 0
    for share in shares_of(entries):
        if changes := write_members(share, {}, stamps, image.root, buffer):
            raise _modified(image, tuple(changes))
        done += len(share)
        reporter.progress("exporting", done, len(entries))
    buffer.write(END)
    buffer.flush()


def _members(image: Image) -> tuple[tuple[FileEntry, ...], dict[bytes, Stamp]]:
    """Return the names of an image in an archive's order, and their stamps, by paths that begin with `/`.

    Contents are not read yet. Raises `ModifiedImageError` if anything else is not as the list says.
    """
    listing = read_listing(image)
    entries = in_order(_entry(path, entry) for path, entry in listing.items())
    stamps: dict[bytes, Stamp] = {}
    first: dict[tuple[int, int], bytes] = {}
    changes: list[Change] = []
    for entry in entries:
        place, listed = image.root + entry.path, listing[entry.path[1:]]
        try:
            found = os.lstat(place)
        except OSError:
            changes.append((entry.path, MISSING))
            continue
        mode = None if listed.kind == "symlink" else disk_mode(listed)
        changes += [(entry.path, each) for each in compare(listed, place, found, mode=mode)]
        link = b""
        if entry.kind == "regular" and found.st_nlink > 1:
            link = first.setdefault((found.st_dev, found.st_ino), entry.path)
            link = b"" if link == entry.path or listing[link[1:]] != listed else link
        stamps[entry.path] = Stamp(listed.uid, listed.gid, found.st_mtime_ns // _NANOSECONDS, link)
    if changes:
        raise _modified(image, tuple(changes))
    return tuple(entries), stamps


def _entry(path: bytes, entry: ImageEntry) -> FileEntry:
    return FileEntry(b"/" + path, entry.kind, entry.mode, entry.size, entry.target, entry.sha256)


def _modified(image: Image, changes: tuple[Change, ...]) -> ModifiedImageError:
    return ModifiedImageError(
        f"export the image {image.name or image.digest}", tuple(sorted(changes)), _AGAIN
    )
