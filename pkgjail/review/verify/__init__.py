"""Compare a host or a tree with a manifest: names that are missing, changed, or extra.

Unlike `pkgjail.jails.drift`, which runs at each entry and must be fast, it examines everything and says what
the package manager knows about each difference. `compare` handles the names of the manifest, `extras` all
others, and `package_record` compares with the package manager's record.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, JailError, Problem
from pkgjail.core.given import path_bytes
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import text_path
from pkgjail.review.verify.compare import compare_names
from pkgjail.review.verify.extras import find_extras
from pkgjail.review.verify.package_record import PackageRecords
from pkgjail.review.verify.result import Difference, Verification

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter

__all__ = ["Difference", "Verification", "verify_manifest"]


def verify_manifest(  # noqa: PLR0913 - all but the manifest are options
    manifest: Manifest,
    *,
    root: AnyPath = b"/",
    quick: bool = False,
    packages: bool = False,
    extra: bool = True,
    strict: bool = False,
    database: PackageDatabase | None = None,
    reporter: Reporter = SILENT,
) -> Verification:
    """Compare the files below `root` with `manifest`.

    Args:
        manifest: what should be there.
        root: the host's root directory, or that of a tree.
        quick: compare only metadata (kind, mode, size, link), and read no file.
        packages: compare every file with its package's record too, not only the changed ones.
        extra: search the manifest's directories for names that it does not have.
        strict: also count extra names that may be older than the manifest.
        database: the package database of `root`; None if there is none.
        reporter: receives progress ("hashing", in files).

    Raises:
        InputError: there is no such directory.
        JailError: not `quick`, and the manifest has no digests.
        OSError: a file vanished while it was read.
        PkgjailError: a file kept changing while it was read.
        SourceError: the manifest was made from another source.

    """
    root = path_bytes(root, "root")
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        raise InputError([Problem(text_path(root), "there is no such directory to verify")])
    refuse_other_source(manifest, root)
    if not quick and not any(entry.sha256 for entry in manifest.files):
        raise JailError(
            "cannot verify by hash: the manifest has no digests; make it again with 'pkgjail resolve', "
            f"without {parameter('hashed=False')}, or verify with {parameter('quick=True')}"
        )
    compared = compare_names(manifest.files, root, quick=quick, reporter=reporter)
    records = PackageRecords(manifest, root, database, reporter)
    differences = list(records.annotate(compared.differences))
    if packages:
        changed = {difference.path for difference in differences}
        differences += (d for d in records.compare_files() if d.path not in changed)
    extras = tuple(find_extras(manifest, root, database, strict=strict)) if extra else ()
    return Verification(
        differences=_sorted(differences),
        extras=_sorted(name for name in extras if not name.uncounted),
        uncounted=_sorted(name for name in extras if name.uncounted),
        unread=compared.unread,
        names=compared.names,
        hashed=compared.hashed,
    )


def _sorted(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(differences, key=lambda difference: (difference.path, difference.what)))
