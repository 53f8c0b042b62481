"""The rpm backend, for dnf, yum, zypper and rpm-ostree alike, because all have rpm's database.

store      find and copy the database
query      call rpm, and split its output
versions   rpm's order of versions
boolean    requirements, including rich ones
installed  the installed packages that satisfy a requirement
unmet      the reasons why none does, in words
generated  the allow-list of unowned files
database   all of these as one `PackageDatabase`
"""

from __future__ import annotations

from pkgjail.backends.rpm.database import RpmDatabase

__all__ = ["RpmDatabase", "open_database"]


def open_database(root: bytes) -> RpmDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return RpmDatabase(root)
