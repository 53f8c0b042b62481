"""The installed state of a Debian system from dpkg's records: everything that apt and dpkg backends share.

The two differ in the library that splits the status file into stanzas and orders versions (`Reader`).

relations  the grammar of requirements and versions
status     the status file, stanza by stanza
matching   the installed packages that satisfy a requirement
unmet      the reasons why none does, in words
paths      file lists, diversions, conffiles
generated  the allow-list of unowned files
root       dpkg's directory
database   all of these as one `PackageDatabase`
"""

from __future__ import annotations

from pkgjail.backends.debian.database import DebianDatabase
from pkgjail.backends.debian.status import FIELDS, Reader, text_field

__all__ = ["FIELDS", "DebianDatabase", "Reader", "text_field"]
