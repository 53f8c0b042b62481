"""The dpkg backend: dpkg's status file, read in Python alone (python-debian without apt_pkg).

It serves any interpreter and any host, and gives the apt backend's answers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from debian.deb822 import Packages
from debian.debian_support import NativeVersion

from pkgjail.backends.debian import FIELDS, DebianDatabase, text_field

if TYPE_CHECKING:
    from collections.abc import Iterator


_PRIVATE = 0xE000  # the first of Unicode's characters for private use
_OUTSIDE = re.compile(r"[^\t\n -~]")
_CARRIED = re.compile("[\ue000-\ue0ff]")


class DpkgReader:
    """A `debian.Reader` on python-debian."""

    name = "dpkg"

    def stanzas(self, data: bytes) -> Iterator[dict[str, str]]:
        """Each stanza's `FIELDS`, in the order of the file."""
        lines = _carry(data).split("\n")
        for paragraph in Packages.iter_paragraphs(lines, fields=list(FIELDS), use_apt_pkg=False):
            yield {key: text_field(_fetch(paragraph[key])) for key in paragraph}

    def compare(self, left: str, right: str) -> int:
        """Negative, 0 or positive, as `left` is the older, the same or the newer version."""
        older, newer = _version(left), _version(right)
        return int(older > newer) - int(older < newer)


def _carry(data: bytes) -> str:
    """Text for Deb822 that stands for any bytes: all but ASCII's own moves to a private plane.

    Deb822 guesses where text is not UTF-8, takes every Unicode space for white space, and refuses
    what `str.splitlines` would break, such as a form feed in a file's name.
    """
    return _OUTSIDE.sub(lambda match: chr(_PRIVATE + ord(match[0])), data.decode("latin-1"))


def _fetch(text: str) -> bytes:
    """The bytes that `_carry` made `text` of."""
    if text.isascii():
        return text.encode("ascii")
    return _CARRIED.sub(lambda match: chr(ord(match[0]) - _PRIVATE), text).encode("latin-1")


@lru_cache(maxsize=4096)
def _version(text: str) -> NativeVersion:
    return NativeVersion(text)


def open_database(root: bytes) -> DebianDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return DebianDatabase(root, DpkgReader())
