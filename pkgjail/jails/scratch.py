"""Temporary directories of this user's that no jail can write to."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.own_files import NEW_PREFIX, opened_directory
from pkgjail.storage.removal import make_locked_directory, remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def runtime_scratch() -> Iterator[str]:
    """Make a new directory in the user's runtime directory, and remove it at the end.

    It is not in TMPDIR, because a command in a jail that shows TMPDIR could write to it.

    Raises:
        OSError: it cannot be made.

    """
    parent = runtime_directory()
    with contextlib.ExitStack() as stack:
        descriptor = stack.enter_context(opened_directory(parent, make=True))
        name = f"{NEW_PREFIX}{os.urandom(8).hex()}"
        in_use = make_locked_directory(descriptor, name)
        stack.callback(remove_tree, descriptor, name)
        stack.callback(os.close, in_use)
        yield f"{parent}/{name}"
