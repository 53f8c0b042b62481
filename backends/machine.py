"""The architecture of a root that has no package database: that of the programs in it."""

from __future__ import annotations

import os
from contextlib import suppress

from pkgjail.core.architectures import architecture_of_elf
from pkgjail.core.untrusted import names_below, opened_below

_FIRST = (b"/bin/sh", b"/usr/bin/env", b"/bin/busybox", b"/sbin/init")
_DIRECTORIES = (b"/bin", b"/usr/bin", b"/usr/local/bin", b"/sbin", b"/usr/sbin", b"/")
_MOST_TRIED = 200  # of each directory
_HEADER = 64


def machine_of(root: bytes) -> str:
    """Return the kernel's word for the architecture of a root, by the first program that has one.

    It is this machine's if there is no such program.
    """
    top = root.rstrip(b"/")
    for path in _FIRST:
        if found := _machine_of_file(root, top + path):
            return found
    for directory in (top + path for path in _DIRECTORIES):
        names: list[bytes] = []
        with suppress(OSError):
            names = sorted(names_below(root, directory))[:_MOST_TRIED]
        for name in names:
            if found := _machine_of_file(root, os.path.join(directory, name)):
                return found
    return os.uname().machine


def _machine_of_file(root: bytes, path: bytes) -> str:
    with suppress(OSError), opened_below(root, path) as descriptor:
        found = architecture_of_elf(os.read(descriptor, _HEADER))
        return found.machine if found else ""
    return ""
