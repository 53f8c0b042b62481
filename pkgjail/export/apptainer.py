"""Export a definition file for Apptainer and Singularity, which builds their image from an OCI archive.

The user guide's chapter on definition files describes it: a header, and sections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.parameters import parameter
from pkgjail.core.text import printable
from pkgjail.manifest import dump_manifest, manifest_digest

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

_DEFINITION = b"""\
# Written by pkgjail export. The archive is that of: pkgjail export --format oci-archive
Bootstrap: oci-archive
From: %s

%%labels
    pkgjail.manifest %s
"""


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the definition; `at` is the archive that `--format oci-archive` wrote.

    Raises:
        InputError: there is no `at`, or a definition cannot express it.

    """
    del root
    if at is None:
        problem = f"cannot export to apptainer: name the OCI archive with {parameter('at')}"
        raise InputError([Problem("", problem)])
    if not at.isascii() or not at.decode().isprintable() or any(c in b" :{}#" for c in at):
        problem = (
            f"cannot export to apptainer: a definition cannot express the archive's path {printable(at)}; "
            "use letters, digits and '/', '.', '_' or '-'"
        )
        raise InputError([Problem("", problem)])
    return _DEFINITION % (at, manifest_digest(dump_manifest(manifest)).encode())
