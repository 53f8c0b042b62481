"""The working directory, by the path that the caller came by. Every entry imports this module."""

from __future__ import annotations

import contextlib
import os


def path_of_working_directory() -> bytes:
    """Return the path of the working directory: that of the variable PWD, or the one without links.

    A shell sets PWD to the path by which the user came. As in `pwd -L` (POSIX.1-2017, XCU), it counts if it
    is absolute, has neither "." nor "..", and leads to the working directory.

    Raises:
        FileNotFoundError: the directory was deleted, or cannot be reached from the root directory.

    """
    path = os.environb.get(b"PWD", b"")
    names = path.split(b"/")
    if path.startswith(b"/") and b"." not in names and b".." not in names:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samestat(os.stat(path), os.stat(".")):
                return b"/" + b"/".join(filter(None, names))
    return os.getcwdb()
