"""A manifest in the forms that other programs read: one module a form, one function for all.

docs/export.md says what each form is for, how it was tried, and what it can't do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.export import bwrap, fstab, landlock, mtree, nspawn, sbom_libraries, sha256sums
from pkgjail.export.common import refuse_misleading

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import Manifest

_WRITERS: dict[str, Callable[[Manifest, bytes, bytes | None], bytes]] = {
    "bwrap": bwrap.write,
    "cyclonedx": sbom_libraries.write_cyclonedx,
    "fstab": fstab.write,
    "landlock": landlock.write,
    "mtree": mtree.write,
    "nspawn": nspawn.write,
    "sha256sums": sha256sums.write,
    "spdx": sbom_libraries.write_spdx,
}

_LAUNCHERS = frozenset({"bwrap", "fstab", "nspawn"})

FORMS = tuple(_WRITERS)
"""The forms that `export_manifest` knows, by name."""


def export_manifest(manifest: Manifest, form: str, *, root: bytes = b"/", at: bytes | None = None) -> bytes:
    """Write `manifest` in the form of another program.

    Args:
        manifest: what the jail holds.
        form: one of `FORMS`.
        root: the directory that holds the manifest's files, absolute and normal; in "mtree" and
            "sha256sums" names are relative to it, whatever it is.
        at: the directory of the skeleton (see `skeleton.write_skeleton`), absolute and normal.
            "fstab" needs it; "bwrap" takes the files made at entry from it, and leaves them out
            where it is None; the others take no notice.

    Returns:
        The same bytes for the same arguments, but for "landlock", which looks at the files below
        `root`. "spdx" reads them all, for a digest that the manifest does not have. What a launcher is to
        mount is looked at for links.

    Raises:
        InputError: the form is unknown, or it cannot carry this manifest; every name that it
            cannot carry is told.
        PkgjailError: a library that the form needs is not installed.

    """
    writer = _WRITERS.get(form)
    if writer is None:
        raise InputError([Problem("", f"cannot export to {form!r}: the forms are {', '.join(FORMS)}")])
    if form in _LAUNCHERS:
        refuse_misleading(form, manifest, root)
    return writer(manifest, root, at)
