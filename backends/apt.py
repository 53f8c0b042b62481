"""The apt backend: reads dpkg's status file with libapt-pkg, and orders versions with it.

It does not use apt's own cache, which takes ten times as long, and counts `apt` as essential.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import apt_pkg  # pyright: ignore[reportMissingImports]  (not on every host)

from pkgjail.backends.debian import FIELDS, DebianDatabase, text_field
from pkgjail.core.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator


# The separator of apt's own reader of files.
_BETWEEN = re.compile(rb"\n\n+")


class AptReader:
    """A `debian.Reader` on python-apt. Making one initialises apt's packaging system.

    Raises:
        DatabaseError: dpkg's own tables of this host cannot be read.

    """

    name = "apt"

    def __init__(self) -> None:
        # apt's configuration files are not read: none of them affects versions or stanzas.
        try:
            apt_pkg.init_system()
        except (SystemError, apt_pkg.Error) as error:
            raise DatabaseError(
                f"cannot start apt's library: {error}; look at /usr/share/dpkg, or use the dpkg backend"
            ) from error

    def stanzas(self, data: bytes) -> Iterator[dict[str, str]]:
        """Yield the `FIELDS` of each stanza, in the order of the file."""
        try:
            for stanza in filter(None, _BETWEEN.split(data)):
                section = apt_pkg.TagSection(stanza + b"\n", bytes=True)
                # TagSection is a mapping that its stubs for Python 3.11 do not make iterable.
                yield {key: text_field(section[key]) for key in section.keys() if key in FIELDS}  # noqa: SIM118
        except (SystemError, apt_pkg.Error) as error:
            raise ValueError(str(error)) from error

    def compare(self, left: str, right: str) -> int:
        """Compare versions: negative, 0 or positive if `left` is older, equal or newer."""
        return int(apt_pkg.version_compare(left, right))


def open_database(root: bytes) -> DebianDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return DebianDatabase(root, AptReader())
