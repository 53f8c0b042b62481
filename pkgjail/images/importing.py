"""Import an image into a store from any of its usual forms.

The members of all forms go the same way: they are read, checked one by one, unpacked into a new directory of
the store, and listed. The store has the image only if all of it was right. A layout's layers must have the
digests that it says.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING

from pkgjail.core.errors import ImageError, Problem, UsageError
from pkgjail.core.given import path_text
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import printable
from pkgjail.core.untrusted import refuse_irregular
from pkgjail.images.archives import members_of
from pkgjail.images.directories import members_below
from pkgjail.images.layouts import is_layout, is_part, layers_of, opened_part
from pkgjail.images.listing import listing_bytes
from pkgjail.images.model import ImageLimits
from pkgjail.images.store import check_name, find_image, new_image, publish
from pkgjail.images.streams import SQUASHFS, DamagedError, Packed, Unpacked, through_program, unpacked
from pkgjail.images.tree import ImageTree
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter
    from pkgjail.images.layouts import Layer
    from pkgjail.images.model import Image, ImageFormat, LeftOut, Member
    from pkgjail.images.store import NewImage

STANDARD_INPUT = "-"
"""The source that stands for standard input."""

_LAYOUT = "layout"
_ENDINGS = re.compile(r"\.(oci|docker|tar|tgz|txz|tzst|gz|xz|zst|bz2|sqfs|squashfs|sif|img)$")
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY


def import_image(  # noqa: PLR0913 - one name says what; the rest have defaults
    source: AnyPath,
    name: str = "",
    *,
    store: AnyPath = "",
    form: ImageFormat = "auto",
    reference: str = "",
    replace: bool = False,
    rename: bool = False,
    limits: ImageLimits | None = None,
    reporter: Reporter = SILENT,
) -> Image:
    """Import an image: a tar archive, a directory, an OCI layout, an archive of `docker save`, a squashfs.

    An archive may be compressed (gzip, bzip2, xz, zstd) or standard input. Nothing of it runs, and no file
    outside of the store is made or changed. Files belong to the calling user; owners are recorded. Device
    nodes, FIFOs and sockets are left out, and set-user-ID bits are recorded, but not on the disk.

    Args:
        source: the path, or "-" for standard input.
        name: its name in the store; "" for that of the source without its endings.
        store: the store's directory; "" for PKGJAIL_STORE, or the user's own.
        form: the form of the source; "auto" to find out.
        reference: which image of a layout is meant: its name there, or its tag.
        replace: take the name from another image that has it.
        rename: append `-` and the first 12 digits of the digest to the name if another image has it.
        limits: the most that the image may have; None for the usual ones.
        reporter: receives progress, and warnings about what was left out.

    Returns:
        The image, with its digest.

    Raises:
        ImageError: the archive is refused, damaged or truncated; it names each member at fault. The store is
            as it was.
        PkgjailError: another image has the name, or a program is missing that unpacks the form.
        UsageError: the name is none that an image may have.
        OSError: the source cannot be read, or the store cannot be written.

    """
    source = path_text(source, "source")
    store = path_text(store, "store")
    path = os.fspath(source)
    origin = "standard input" if path == STANDARD_INPUT else printable(path)
    return _import(
        name or _name_of(path),
        origin,
        lambda work: work.unpack(path, form, reference),
        store=store,
        replace=replace,
        rename=rename,
        limits=limits,
        reporter=reporter,
    )


def import_pieces(  # noqa: PLR0913 - what, its name and where it is from; the rest is by name
    pieces: Iterator[bytes],
    name: str,
    program: str,
    *,
    store: str,
    replace: bool,
    limits: ImageLimits | None,
    reporter: Reporter,
) -> Image:
    """Import the tar archive of a root that `program` writes, as `import_image` does."""
    return _import(
        name,
        program,
        lambda work: work.unpack_pieces(pieces, program),
        store=store,
        replace=replace,
        limits=limits,
        reporter=reporter,
    )


def _import(  # noqa: PLR0913 - what, its name and where it is from; the rest is by name
    name: str,
    origin: str,
    unpack: Callable[[_Import], str],
    *,
    store: str,
    replace: bool,
    rename: bool = False,
    limits: ImageLimits | None,
    reporter: Reporter,
) -> Image:
    """Import what `unpack` unpacks; it returns the form."""
    check_name(name)
    with new_image(store) as (place, new):
        work = _Import(origin, new, limits or ImageLimits(), reporter)
        found = unpack(work)
        left_out = work.finish()
        entries = work.tree.entries
        facts = {
            "format": found,
            "names": len(entries),
            "bytes": sum(entry.size or 0 for entry in entries.values()),
            "left_out": left_out._asdict(),
        }
        listing = listing_bytes(entries)
        name = publish(place, new, name, listing, facts, replace=replace, rename=rename)
    for message in _left_out_texts(left_out):
        reporter.warn(f"{name}: {message}")
    return find_image(name, store)


class _Import:
    """One import: the source, which `origin` names in messages, and the tree that it is unpacked into."""

    def __init__(self, origin: str, new: NewImage, limits: ImageLimits, reporter: Reporter) -> None:
        self._origin = origin
        self._new = new
        self._limits = limits
        self._reporter = reporter
        self._layer: Packed | None = None
        self._consumed = 0
        self.tree = ImageTree(new.tree, limits, self._count, reporter)

    def _count(self) -> int:
        return self._consumed + (self._layer.consumed if self._layer else 0)

    def unpack(self, path: str, form: ImageFormat, reference: str) -> str:
        """Unpack the source; returns its form. If it is damaged, that is one of the tree's problems."""
        forms = []
        with self._refusing(self._origin):
            forms.append(self._unpack(path, form, reference))
        return "".join(forms)

    def unpack_pieces(self, pieces: Iterator[bytes], form: str) -> str:
        """Unpack the tar archive of a root; returns `form`."""
        with self._refusing(self._origin):
            self._unpack_root(Unpacked(pieces))
        return form

    def _unpack(self, path: str, form: ImageFormat, reference: str) -> str:
        if path != STANDARD_INPUT and os.path.isdir(path):
            return self._unpack_directory(path, form, reference)
        with _opened(path) as descriptor:
            packed = self._layer = Packed(descriptor)
            if form == "squashfs" or (form == "auto" and packed.first.startswith(SQUASHFS)):
                self._unpack_squashfs(path)
                return "squashfs"
            with unpacked(packed) as file:
                return self._unpack_archive(file, form, reference)

    def finish(self) -> LeftOut:
        """Refuse the image if any member was; otherwise complete the tree, and return what was left out."""
        if not self.tree.problems and len(self.tree.entries) == 1:
            self.tree.problems.append(Problem(self._origin, "it is empty"))
        if self.tree.problems:
            problems = [Problem(each.origin, each.message) for each in self.tree.problems]
            advice = "nothing was imported"
            if any("the image has more than" in each.message for each in problems):
                advice += (
                    f"; raise {parameter('limits.names')} or {parameter('limits.bytes')} if that is right"
                )
            raise ImageError([*problems, Problem(self._origin, advice)])
        return self.tree.finish()

    # --- the forms --------------------------------------------------------------------------------

    def _unpack_directory(self, path: str, form: ImageFormat, reference: str) -> str:
        raw = os.fsencode(path)
        if form in ("oci", "docker") or (form == "auto" and is_layout(raw)):
            return self._unpack_layers(raw, reference)
        if form not in ("auto", "directory"):
            raise UsageError(f"cannot import {self._origin} as {form}: it is a directory")
        with members_below(path, self._reporter) as members:
            self.tree.add_layer(members, self._origin)
        return "directory"

    def _unpack_squashfs(self, path: str) -> None:
        """Unpack through sqfs2tar(1), which writes a tar archive and no file."""
        if path == STANDARD_INPUT:
            raise UsageError(
                "cannot import a squashfs from standard input: its program needs a file; name it"
            )
        self._consumed = os.stat(path).st_size
        command = ("sqfs2tar", "--root-becomes", ".", os.path.abspath(path))
        with through_program(command, None) as pieces:
            self._unpack_root(Unpacked(pieces))

    def _unpack_root(self, file: Unpacked) -> None:
        """Unpack the tar archive of a root, to its end."""
        self.tree.add_layer(members_of(file), self._origin)
        if not self.tree.problems:
            file.drain()

    def _unpack_archive(self, file: Unpacked, form: ImageFormat, reference: str) -> str:
        """Unpack a tar archive of a root, or of a layout: its first file tells which, unless `form` does."""
        members = members_of(file)
        before: list[Member] = []
        is_archive = form in ("oci", "docker")
        for member in members if form == "auto" else ():
            before.append(member)
            if member.kind != "directory" or not is_part(member.path.rstrip(b"/")):
                is_archive = member.kind == "regular" and is_part(member.path)
                break
        rest = _followed_by(before, members)
        if not is_archive:
            self.tree.add_layer(rest, self._origin)
            if not self.tree.problems:
                file.drain()
            return "tar"
        os.mkdir(_LAYOUT, 0o700, dir_fd=self._new.directory)
        descriptor = os.open(_LAYOUT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._new.directory)
        try:
            layout = ImageTree(descriptor, self._limits, self._count, self._reporter)
            layout.add_layer(rest, self._origin)
            self.tree.problems += layout.problems
            if self.tree.problems:
                return ""
            file.drain()
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            return self._unpack_layers(os.fsencode(path), reference)
        finally:
            os.close(descriptor)
            remove_tree(self._new.directory, _LAYOUT)

    def _unpack_layers(self, directory: bytes, reference: str) -> str:
        form, layers = layers_of(directory, reference)
        for number, layer in enumerate(layers, 1):
            origin = f"{self._origin}: layer {number}"
            with self._refusing(origin):
                self._unpack_layer(directory, layer, origin)
            if self.tree.problems:
                break
        return form

    def _unpack_layer(self, directory: bytes, layer: Layer, origin: str) -> None:
        with opened_part(directory, layer.path) as descriptor:
            packed = self._layer = Packed(descriptor, digest=bool(layer.digest))
            with unpacked(packed, digest=True) as file:
                self.tree.add_layer(members_of(file), origin, whiteouts=True)
                if self.tree.problems:
                    return
                file.drain()
        self._consumed += packed.consumed
        self._layer = None
        if layer.digest and f"sha256:{packed.hexdigest()}" != layer.digest:
            raise DamagedError(f"it is damaged: its digest is not {layer.digest}")
        if f"sha256:{file.hexdigest()}" != layer.diff_id:
            raise DamagedError(f"it is damaged: the digest of its content is not {layer.diff_id}")

    @contextlib.contextmanager
    def _refusing(self, origin: str) -> Iterator[None]:
        """Note that an archive is damaged, as a problem beside those of its members."""
        try:
            yield
        except DamagedError as error:
            self.tree.problems.append(Problem(origin, printable(str(error))))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open the source: a file, a pipe, or standard input."""
    if path == STANDARD_INPUT:
        yield 0
        return
    descriptor = os.open(path, _OPEN)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISFIFO(found.st_mode):
            refuse_irregular(found, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _followed_by(first: list[Member], others: Iterator[Member]) -> Iterator[Member]:
    yield from first
    yield from others


def _name_of(path: str) -> str:
    """Return a source's name without its endings."""
    if path == STANDARD_INPUT:
        raise UsageError("cannot import standard input without a name: give one")
    name, before = os.path.basename(os.path.abspath(path)), ""
    while name != before:
        name, before = _ENDINGS.sub("", name), name
    return name


def _left_out_texts(left_out: LeftOut) -> list[str]:
    rows = [
        (
            left_out.special,
            "device node, FIFO or socket is",
            "device nodes, FIFOs and sockets are",
            "left out",
        ),
        (left_out.set_id, "file has", "files have", "no set-user-ID or set-group-ID on the disk"),
        (left_out.attributes, "name has", "names have", "lost extended attributes"),
    ]
    return [f"{number:,} {one if number == 1 else many} {what}" for number, one, many, what in rows if number]
