"""A small tree, and ways to change an environment of it, for the tests of environments."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tests.tree_text import walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable


HOST = """
/bin -> usr/bin
/usr/bin/a 0755 = alpha
/usr/bin/b 4755 = beta
/usr/bin/to-a -> a
/usr/closed/ 0555
/usr/closed/c 0444 = gamma
/usr/empty/
/usr/nowhere -> /no/where
/var/sticky/ 1777
/zero =
"""


def around(path: bytes) -> list[str]:
    """Return all names in and beside the environment."""
    return walk_lines(os.path.dirname(path))


def put(path: bytes, content: bytes) -> None:
    """Write a file, and overwrite an existing one."""
    with open(path, "wb") as file:
        file.write(content)


def replace_file(path: bytes, content: bytes) -> None:
    """Replace a file by a new one, as editors do."""
    put(path + b"~", content)
    os.rename(path + b"~", path)


def rewrite_unseen(path: bytes, content: bytes) -> None:
    """Write other content of the same size, and restore the times."""
    found = os.stat(path)
    os.chmod(path, 0o600)  # the owner need not be root
    put(path, content)
    os.chmod(path, found.st_mode)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace_by_link(path: bytes) -> None:
    """Replace a directory of the tree by a link to the user's own directory."""
    os.rename(path, os.path.dirname(path.partition(b"/env/")[0] + b"/") + b"/old")
    os.symlink(path.partition(b"/env/")[0] + b"/precious", path)


def replace_directory(path: bytes) -> None:
    """Replace a directory of the tree by another one with the same names."""
    mode = os.stat(path).st_mode
    os.rename(path, path + b".old")
    os.chmod(path + b".old", 0o700)  # the owner need not be root
    os.mkdir(path)
    os.rename(path + b".old/c", path + b"/c")
    os.rmdir(path + b".old")
    os.chmod(path, mode)


def remove_directory(path: bytes) -> None:
    """Remove a directory, including directories in it that are not writable."""
    for directory, _, _ in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


def in_turn(*changes: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return a change that makes all of `changes`, one after the other."""

    def change(path: bytes) -> None:
        for each in changes:
            each(path)

    return change
