"""The dpkg backend: reads dpkg's status file in pure Python (python-debian without apt_pkg).

It works with any interpreter on any host, and gives the same results as the apt backend.
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
_ENCODED = re.compile("[\ue000-\ue0ff]")


class DpkgReader:
    """A `debian.Reader` on python-debian."""

    name = "dpkg"

    def stanzas(self, data: bytes) -> Iterator[dict[str, str]]:
        """Yield the `FIELDS` of each stanza, in the order of the file."""
        lines = _encode(data).split("\n")
        for paragraph in Packages.iter_paragraphs(lines, fields=list(FIELDS), use_apt_pkg=False):
            yield {key: text_field(_decode(paragraph[key])) for key in paragraph}

    def compare(self, left: str, right: str) -> int:
        """Compare versions: negative, 0 or positive if `left` is older, equal or newer."""
        older, newer = _version(left), _version(right)
        return int(older > newer) - int(older < newer)


def _encode(data: bytes) -> str:
    """Encode any bytes as text for Deb822: all but ASCII as characters for private use.

    Otherwise Deb822 guesses the encoding of text that is not UTF-8, takes every Unicode space for white
    space, and refuses what `str.splitlines` would split, such as a form feed in a file's name.
    """
    return _OUTSIDE.sub(lambda match: chr(_PRIVATE + ord(match[0])), data.decode("latin-1"))


def _decode(text: str) -> bytes:
    """Decode text that `_encode` encoded."""
    if text.isascii():
        return text.encode("ascii")
    return _ENCODED.sub(lambda match: chr(ord(match[0]) - _PRIVATE), text).encode("latin-1")


@lru_cache(maxsize=4096)
def _version(text: str) -> NativeVersion:
    return NativeVersion(text)


def open_database(root: bytes) -> DebianDatabase:
    """Read the database below `root`. Raises `DatabaseError`."""
    return DebianDatabase(root, DpkgReader())
