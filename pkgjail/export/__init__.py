"""Export a manifest in the formats of other programs: one module per format, one function for all.

docs/export.md says what each format is for, how it was tested, and what it cannot express.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.given import path_bytes
from pkgjail.export import apptainer, bwrap, fstab, landlock, mtree, nspawn, sbom_libraries, sha256sums
from pkgjail.export.common import refuse_misleading

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest

_WRITERS: dict[str, Callable[[Manifest, bytes, bytes | None], bytes]] = {
    "apptainer": apptainer.write,
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
_WITHOUT_DEVICES = frozenset({"fstab", "nspawn"})

FORMS = tuple(_WRITERS)
"""The names of the formats. Those that have the manifest's files are in `pkgjail.export.image`."""


def export_manifest(manifest: Manifest, form: str, *, root: AnyPath = b"/", at: bytes | None = None) -> bytes:
    """Return `manifest` in the format of another program.

    Args:
        manifest: what the jail has.
        form: one of `pkgjail.export.FORMS`.
        root: the directory with the manifest's files, absolute and normal. "mtree" and "sha256sums" have
            names relative to it, and do not use it.
        at: the directory of the skeleton (`pkgjail.export.skeleton.write_skeleton`), absolute and normal.
            "fstab" needs it; "bwrap" takes the files made at entry from it, or leaves them out if it is
            None; "apptainer" needs the path of an OCI archive; the other formats ignore it.

    Returns:
        The same bytes for the same arguments, except for "landlock", which examines the files below
        `root`. "spdx" reads them all, for a digest that the manifest lacks. For launchers, the files to
        mount are checked for links.

    Raises:
        InputError: the format is unknown or cannot express this manifest; lists every such name.
        PkgjailError: a library that the format needs is not installed.

    """
    root = path_bytes(root, "root")
    writer = _WRITERS.get(form)
    if writer is None:
        raise InputError([Problem("", f"cannot export to {form!r}: the formats are {', '.join(FORMS)}")])
    if form in _WITHOUT_DEVICES and manifest.devices:
        patterns = ", ".join(device.pattern for device in manifest.devices)
        raise InputError(
            [
                Problem(
                    "",
                    f"cannot export to {form}: the manifest allows devices ({patterns}), which the format "
                    "cannot look for when the jail starts; use 'pkgjail run' or the format bwrap",
                )
            ]
        )
    if form in _LAUNCHERS:
        refuse_misleading(form, manifest, root)
    return writer(manifest, root, at)
