"""A Debian system's installed state, from dpkg's own records: all that the apt and dpkg backends share.

The two differ in who cuts the status file into stanzas and who orders versions (`Reader`); the
rules are here, a module for each of dpkg's records:

    relations      the grammar of requirements and versions
    status         the status file, stanza by stanza
    matching       which installed packages satisfy a requirement
    shortcomings   why none does, in words
    paths          file lists, diversions, conffiles
    generated      the allow-list of files that no package owns
    root           where dpkg keeps them
    database       all of these as one `PackageDatabase`
"""

from __future__ import annotations

from pkgjail.backends.debian.database import DebianDatabase
from pkgjail.backends.debian.status import FIELDS, Reader, text_field

__all__ = ["FIELDS", "DebianDatabase", "Reader", "text_field"]
