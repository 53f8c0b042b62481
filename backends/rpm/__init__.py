"""The rpm backend: what serves dnf, yum, zypper and rpm-ostree alike, as all have rpm's database.

store         where the database is, and a copy of it
query         one call of rpm, and its answer in pieces
versions      rpm's order of versions
boolean       requirements, the rich ones too
installed     which installed packages satisfy a requirement
shortcomings  why none does, in words
generated     the allow-list of files that no package owns
database      all of these as one `PackageDatabase`
"""

from __future__ import annotations

from pkgjail.backends.rpm.database import RpmDatabase

__all__ = ["RpmDatabase", "open_database"]


def open_database(root: bytes) -> RpmDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return RpmDatabase(root)
