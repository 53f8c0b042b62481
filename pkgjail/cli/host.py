"""Open a root's package database, and warn if the manifest was made for another system."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.core.reporter import Reporter


def warn_of_absence(manifest: Manifest, root: bytes, reporter: Reporter) -> None:
    """Warn if the manifest is probably of another root, before every missing name is listed."""
    from pkgjail.jails.host_mismatch import absent_paths, explain_absence

    entries = [entry for entry in manifest.files if entry.origin != "entry"]
    absent = absent_paths(entries, root)
    if cause := explain_absence(manifest, root, len(absent), len(entries)):
        reporter.warn(cause)


def database_or_none(root: bytes, reporter: Reporter) -> PackageDatabase | None:
    """Open the package database of a root; if none can be read, warn and return None."""
    from pkgjail.backends import open_database
    from pkgjail.core.errors import DatabaseError

    try:
        return open_database(root)
    except DatabaseError as error:
        reporter.warn(f"{error}; packages outside the manifest cannot be named")
        return None
