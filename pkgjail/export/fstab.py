r"""Export lines for fstab(5) that make a permanent jail from a skeleton, one bind mount per file.

Spaces, tabs, line feeds and backslashes are written as \040, \011, \012 and \134, which both
libmount and getmntent(3) read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, Problem
from pkgjail.core.jail_names import DEVICES
from pkgjail.core.parameters import parameter
from pkgjail.core.text import escape_octal
from pkgjail.export.common import host_files, on_host, scratch_directories

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

_HEAD = b"""\
# Written by pkgjail export: a jail at %s, which has its skeleton.
# Without nofail, a file that an upgrade removes would keep the host from booting.
"""
_SPECIAL = re.compile(rb"[ \t\n\\]")


def write(manifest: Manifest, root: bytes, at: bytes | None) -> bytes:
    """Return the lines in mount order; `at` is the jail's directory.

    Raises:
        InputError: there is no `at`.

    """
    if at is None:
        raise InputError(
            [Problem("", f"cannot export to fstab: name the jail's directory with {parameter('at')}")]
        )
    tmpfs = (b"/dev/shm", *scratch_directories(manifest))
    lines = [
        _HEAD % _escape(at),
        _line(at, at, b"none", b"bind,ro,nosuid,nodev,nofail"),
        _line(b"proc", on_host(at, b"/proc"), b"proc", b"nosuid,nodev,noexec,nofail"),
        _line(b"/sys", on_host(at, b"/sys"), b"none", b"bind,ro,nosuid,nodev,noexec,nofail"),
        *(_bind(b"/dev/" + name, at, b"/dev/" + name, b"bind,nosuid,noexec,nofail") for name in DEVICES),
        *(_line(b"tmpfs", on_host(at, p), b"tmpfs", b"mode=1777,nosuid,nodev,nofail") for p in tmpfs),
        *(
            _bind(on_host(root, entry.path), at, entry.path, b"bind,ro,nosuid,nodev,nofail")
            for entry in host_files(manifest)
        ),
    ]
    return b"".join(lines)


def _bind(source: bytes, at: bytes, path: bytes, options: bytes) -> bytes:
    return _line(source, on_host(at, path), b"none", options)


def _line(source: bytes, place: bytes, kind: bytes, options: bytes) -> bytes:
    return b"%s %s %s %s 0 0\n" % (_escape(source), _escape(place), kind, options)


def _escape(path: bytes) -> bytes:
    return escape_octal(path, _SPECIAL)
