"""What tests of whole ways build: GNU hello, and a program that takes zlib if it finds it."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SOURCE = "http://deb.debian.org/debian/pool/main/h/hello/hello_2.10.orig.tar.gz"
_SHA256 = "31e066137a962676e89f69d1b65382de95a7ef7d914b8cb956f41ea72e0f516b"
_BUILD = """\
cd /srv && tar -xf hello.tar.gz || exit
(cd hello-2.10 && ./configure --quiet && make -s) >/dev/null 2>log || exit
if cc -include zlib.h empty.c -lz -o /tmp/empty 2>/dev/null; then found='-D ZLIB -lz'; fi
cc -O2 -o hello-z hello-z.c $found || exit
hello-2.10/hello && exec ./hello-z
"""
_HELLO_Z = """\
#include <stdio.h>
#ifdef ZLIB
#include <zlib.h>
int main(void) { puts(zlibVersion()); return 3; }
#else
int main(void) { puts("no zlib"); return 3; }
#endif
"""
COMMAND = ("sh", "/srv/build")
"""The build, where the directory of `prepare` is shown at /srv; it ends with 3."""


def download() -> bytes:
    """Return the archive of GNU hello's source."""
    source = subprocess.run(["curl", "--fail", "--silent", _SOURCE], capture_output=True, check=True).stdout
    assert hashlib.sha256(source).hexdigest() == _SHA256
    return source


def prepare(place: Path, source: bytes) -> Path:
    """Make a directory with what is built; the programs will be `hello-2.10/hello` and `hello-z`."""
    place.mkdir()
    (place / "hello.tar.gz").write_bytes(source)
    (place / "build").write_text(_BUILD)
    (place / "empty.c").write_text("int main(void) { return 0; }\n")
    (place / "hello-z.c").write_text(_HELLO_Z)
    return place
