"""A host, or a tree, held against a manifest: what is missing, what was changed, what is there besides.

Unlike `pkgjail.jail.drift`, which an entry pays for, it looks at everything, and says of each difference what
the package manager knows. `comparing` looks at the names of the manifest, `extras` at the others,
`witness` asks the package manager.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, JailError, Problem
from pkgjail.core.model import text_path
from pkgjail.core.reporter import SILENT
from pkgjail.review.verify.compare import compare_names
from pkgjail.review.verify.extras import find_extras
from pkgjail.review.verify.package_record import Witness
from pkgjail.review.verify.result import Difference, Verification

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter

__all__ = ["Difference", "Verification", "verify_manifest"]


def verify_manifest(  # noqa: PLR0913 - what, and by name how
    manifest: Manifest,
    *,
    root: bytes = b"/",
    quick: bool = False,
    packages: bool = False,
    extra: bool = True,
    strict: bool = False,
    database: PackageDatabase | None = None,
    reporter: Reporter = SILENT,
) -> Verification:
    """Hold the files below `root` against `manifest`.

    Args:
        manifest: what should be there.
        root: the host's root directory, or that of a tree.
        quick: look at metadata alone (kind, mode, size, link), and read no file.
        packages: hold every file against its package's record as well, not the changed ones alone.
        extra: look for names that the manifest does not have, in its directories.
        strict: names count as extra that may have been there all the time, too.
        database: the package database of `root`, which is the second witness; None where there is none.
        reporter: hears of progress by number of files ("hashing").

    Raises:
        InputError: there is no such directory.
        JailError: not `quick`, and the manifest has no digests.
        OSError: a file went while it was read.
        PkgjailError: a file kept changing while it was read.

    """
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        raise InputError([Problem(text_path(root), "there is no such directory to verify")])
    if not quick and not any(entry.sha256 for entry in manifest.files):
        raise JailError(
            "cannot verify by hash: the manifest has no digests; make it again with 'pkgjail resolve', "
            "without --no-hash, or verify with '--quick'"
        )
    compared = compare_names(manifest.files, root, quick=quick, reporter=reporter)
    witness = Witness(manifest, root, database, reporter)
    differences = list(witness.heard(compared.differences))
    if packages:
        told = {difference.path for difference in differences}
        differences += (d for d in witness.unlike_their_packages() if d.path not in told)
    extras = tuple(find_extras(manifest, root, database, strict=strict)) if extra else ()
    return Verification(
        differences=_sorted(differences),
        extras=_sorted(one for one in extras if not one.beside),
        beside=_sorted(one for one in extras if one.beside),
        unread=compared.unread,
        names=compared.names,
        hashed=compared.hashed,
    )


def _sorted(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(differences, key=lambda difference: (difference.path, difference.what)))
