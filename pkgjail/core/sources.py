"""Sources: where packages and files come from. The host, a directory, or an image of a store.

A source is known by its root directory. A manifest records its kind and, for an image, its digest. It never
records a path, and nothing for the host.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

from pkgjail.core.errors import SourceError
from pkgjail.core.model import record
from pkgjail.core.parameters import parameter

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

SourceKind = Literal["host", "directory", "image"]

DIRECTORY = "directory"
"""What a manifest records of a directory."""
IMAGE = "image:"
"""What a manifest records of an image, before its digest."""
RECORDED = re.compile(r"|directory|image:sha256:[0-9a-f]{64}")
"""All that a manifest may record; nothing is the host."""

# The root of an image in a store (`pkgjail.images.store`).
_IMAGE_ROOT = re.compile(rb".*/(sha256)-([0-9a-f]{64})/tree", re.DOTALL)


@record
class Source:
    """Where packages and files come from: its kind, its root directory, and the digest of an image."""

    kind: SourceKind
    root: bytes
    digest: str = ""

    @property
    def recorded(self) -> str:
        """Return what a manifest records of it."""
        return {"host": "", "directory": DIRECTORY, "image": IMAGE + self.digest}[self.kind]


def source_at(root: bytes) -> Source:
    """Return the source whose root directory has the path `root`; a store's image is known by its place."""
    real = os.path.realpath(root)
    if real == b"/":
        return Source(kind="host", root=real)
    match = _IMAGE_ROOT.fullmatch(real)
    if match is not None and os.path.exists(os.path.join(os.path.dirname(real), b"files.jsonl")):
        return Source(kind="image", root=real, digest=f"{match[1].decode()}:{match[2].decode()}")
    return Source(kind="directory", root=real)


def refuse_other_source(manifest: Manifest, root: bytes) -> None:
    """Refuse a manifest that was made from another source than the one at `root`.

    A directory is no other one: it may be a copy of any source, and its files are compared anyway.

    Raises:
        SourceError: names the option that was forgotten.

    """
    made, given = manifest.header.source, source_at(root)
    if given.kind == "directory" or made == given.recorded:
        return
    here = "this host" if given.kind == "host" else f"the image {given.digest}"
    if made == DIRECTORY:
        why = "it was made from a directory"
        advice = f"name that directory with {parameter('root')}"
    elif made:
        why = f"it was made from the image {made[len(IMAGE) :]}"
        advice = f"name that with {parameter('source')} {made}"
    else:
        why = "it was made from a host"
        advice = f"leave out {parameter('source')}"
    raise SourceError(f"cannot use the manifest with {here}: {why}; {advice}, or make it again from {here}")
