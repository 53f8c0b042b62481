"""The active environment of a Spack, recorded in a small file in Spack's own root.

Every process finds it there, whatever its variables say, including those started by cron. If the root
belongs to another user, the file is in Spack's cache of this user. No command in the jail may write to
either place. Each Spack command imports this module when it starts, so it imports little.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import NamedTuple

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
_FILE = "active.json"
_CACHE = "instances.json"
# Spack's own git ignores `opt`.
_IN_ROOT = ("opt", ".pkgjail")


class ActiveEnvironment(NamedTuple):
    """The active environment of a Spack.

    `environment` is its directory, `python` Spack's interpreter, and `built` the time when it was built (ns
    since 1970). `removing` is true during its removal. `directory` is the one that has the file. `passed` are
    names and patterns of variables that each command gets of its caller's, besides the usual ones.
    """

    environment: str
    python: str
    built: int
    removing: bool
    directory: str
    passed: tuple[str, ...] = ()


def state_directories(root: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """Return the directories that may have the file: that of this Spack, and that of this user for it."""
    import hashlib  # loads OpenSSL

    real = os.path.realpath(root)
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    return os.path.join(real, *_IN_ROOT), os.path.join(_user_directory(variables), name)


def _user_directory(variables: Mapping[str, str]) -> str:
    cache = variables.get("SPACK_USER_CACHE_PATH") or os.path.join(os.path.expanduser("~"), ".spack")
    return os.path.join(cache, "pkgjail")


def protected_directories(root: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the directories that no command in the jail may write to: they say what is active.

    This includes the user's default one even if a variable names another, as commands started by cron
    look there. Missing ones are created, as a missing directory cannot be shown read-only. A directory in
    one of another user, where this user cannot create it, is omitted: no command in the jail can either.
    """
    directories = []
    candidates = (state_directories(root, variables)[0], _user_directory(variables), _user_directory({}))
    for directory in dict.fromkeys(candidates):
        with contextlib.suppress(OSError):
            _make_directory(directory)
        above = directory
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if above == directory or os.lstat(above).st_uid == os.geteuid():
            directories.append(directory)
    return tuple(directories)


def _existing_directories(root: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return those of `state_directories` that may exist, the one that takes precedence first."""
    with contextlib.suppress(OSError):
        if os.listdir(_user_directory(variables)):
            return state_directories(root, variables)[::-1]
    return (os.path.join(os.path.realpath(root), *_IN_ROOT),)


def load_active(root: str, variables: Mapping[str, str]) -> ActiveEnvironment | None:
    """Return the active environment of the Spack in `root`; None if there is none.

    Raises:
        ValueError: there is a file that pkgjail did not write; it may not be ignored.

    """
    for directory in _existing_directories(root, variables):
        path = os.path.join(directory, _FILE)
        try:
            values = json.loads(_read(path))
            if values["schema"] != SCHEMA:
                raise ValueError  # noqa: TRY301 - reported below, like any other fault in it
            return ActiveEnvironment(
                str(values["environment"]),
                str(values["python"]),
                int(values["made"]),
                bool(values["removing"]),
                directory,
                tuple(map(str, values.get("passed", ()))),
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "this pkgjail did not write it"
            raise ValueError(f"cannot read {path}: {why}; look at it, and delete it") from error
    return None


def save_active(active: ActiveEnvironment, root: str, variables: Mapping[str, str]) -> ActiveEnvironment:
    """Write the file atomically to the first directory that can be written to.

    An environment whose file has a directory keeps it. Raises `OSError` if no directory can be written to.
    """
    *earlier, last = [active.directory] if active.directory else state_directories(root, variables)
    for directory in earlier:
        with contextlib.suppress(OSError):
            return _save(active._replace(directory=directory))
    return _save(active._replace(directory=last))


def _save(active: ActiveEnvironment) -> ActiveEnvironment:
    _make_directory(active.directory)
    values = {
        "schema": SCHEMA,
        "environment": active.environment,
        "python": active.python,
        "made": active.built,
        "removing": active.removing,
        "passed": active.passed,
    }
    _write(os.path.join(active.directory, _FILE), values)
    return active


def _make_directory(path: str) -> None:
    """Create a directory, and those above, so that nobody else may write to it, whatever the umask."""
    if path and not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)


def clear_active(active: ActiveEnvironment) -> None:
    """Delete the file, so that no environment is active, and the cache beside it."""
    for name in (_CACHE, _FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(active.directory, name))
    with contextlib.suppress(OSError):
        os.rmdir(active.directory)


def load_cache(active: ActiveEnvironment) -> dict[str, object]:
    """Return what `save_cache` wrote; empty if that cannot be read."""
    try:
        found = json.loads(_read(os.path.join(active.directory, _CACHE)))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: str) -> str:
    """Return the content of a file; another process of this user may have replaced it by anything."""
    from pkgjail.core.untrusted import MIB, read_named

    return read_named(path, MIB).decode("utf-8", "surrogateescape")


def save_cache(active: ActiveEnvironment, values: Mapping[str, object]) -> None:
    """Write what Spack need not be asked again. If it cannot be written, Spack will be asked."""
    with contextlib.suppress(OSError):
        _write(os.path.join(active.directory, _CACHE), values)


def _write(path: str, values: Mapping[str, object]) -> None:
    from pkgjail.storage.atomic import replace_file

    text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    replace_file(path, text.encode("utf-8", "surrogateescape"), mode=0o644, replace_special=True)
