"""Build an environment in the place of another, which can be entered until the new one is ready.

The new one is built beside it, under a name that no user would choose. Two renames then replace it: between
them there is no environment, so that an entry fails, and none enters anything else.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import InputError, PkgjailError
from pkgjail.core.text import text_path
from pkgjail.environments.directory import parent_and_name
from pkgjail.environments.remove import check_removal, remove_environment

if TYPE_CHECKING:
    from pkgjail.core.reporter import Reporter

_NEW, _OLD = b"new", b"old"


def choose_place(directory: bytes, reporter: Reporter) -> bytes:
    """Return where to build an environment that will replace what is in `directory`.

    That is `directory` itself if it is missing or empty; what an interrupted build or removal left there is
    removed first, and so is what an interrupted replacement left beside it.

    Raises:
        InputError: there is something else than an environment.
        PkgjailError, ModifiedEnvironmentError: the environment cannot be removed, as one that is in use.
        OSError: likewise.

    """
    remove_leftovers(directory, reporter)
    if not exists(directory) or (os.path.isdir(directory) and not os.listdir(directory)):
        return directory
    if check_removal(directory) == "built":
        return _beside(directory, _NEW)
    remove_environment(directory, reporter=reporter)
    return directory


def remove_leftovers(directory: bytes, reporter: Reporter) -> None:
    """Remove what an interrupted replacement of the environment in `directory` left beside it.

    Raises:
        PkgjailError, ModifiedEnvironmentError, OSError: as `remove_environment`.

    """
    for path in (_beside(directory, kind) for kind in (_NEW, _OLD)):
        if exists(path):
            with contextlib.suppress(InputError):  # not ours; if it is in the way, the build says so
                remove_environment(path, reporter=reporter)


def move_into_place(built: bytes, directory: bytes) -> bytes:
    """Give the environment in `built` the name `directory`; return the new name of the one that had it.

    Raises:
        OSError: nothing was renamed.

    """
    old = _beside(directory, _OLD)
    os.rename(directory, old)
    try:
        os.rename(built, directory)
    except BaseException:
        os.rename(old, directory)
        raise
    return old


def move_back(built: bytes, directory: bytes) -> None:
    """Undo `move_into_place`."""
    os.rename(directory, built)
    os.rename(_beside(directory, _OLD), directory)


def remove_replaced(directory: bytes, reporter: Reporter) -> None:
    """Remove an environment that was replaced; if it cannot be removed, warn of what is left."""
    try:
        remove_environment(directory, reporter=reporter)
    except (PkgjailError, OSError) as error:
        path = text_path(directory)
        reporter.warn(
            f"the new environment is active, but the earlier one is still in {path}: {error}; remove it with "
            f"'pkgjail remove {path}'"
        )


def _beside(directory: bytes, kind: bytes) -> bytes:
    parent, name = parent_and_name(directory)
    return parent.rstrip(b"/") + b"/." + name + b".pkgjail-" + kind


def exists(path: bytes) -> bool:
    """Check whether a path exists; raise `OSError` if that cannot be seen, unlike `os.path.lexists`."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
