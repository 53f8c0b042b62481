"""The active environment of a Spack, recorded in a small file in Spack's own root.

Every process finds it there, whatever its variables say, including those started by cron, and so does every
user of this Spack. A user who may not write there can have an environment of their own: its file is in
Spack's cache of that user, and precedes. No command in the jail may write to either place. Each Spack
command imports this module when it starts, so it imports little.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import NamedTuple

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
_FILE = "active.json"
_CACHE = "instances.json"
_MOST_BYTES = 1 << 20
# How writing to Spack's root fails for a user who may not.
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
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
            _make_directory(directory, public=_is_in_root(directory, root))
        above = directory
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if above == directory or os.lstat(above).st_uid == os.geteuid():
            directories.append(directory)
    return tuple(directories)


def may_change(active: ActiveEnvironment) -> bool:
    """Check whether this user may replace or remove the environment: whoever may write its record."""
    return os.access(active.directory, os.W_OK)


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
        except PermissionError as error:
            advice = "it must be as readable as Spack itself (chmod a+rX)"
            raise ValueError(f"cannot read {path}: {error.strerror}; {advice}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "this pkgjail did not write it"
            raise ValueError(f"cannot read {path}: {why}; look at it, and delete it") from error
    return None


def save_active(active: ActiveEnvironment, root: str, variables: Mapping[str, str]) -> ActiveEnvironment:
    """Write the file atomically to the first directory that can be written to.

    An environment whose file has a directory keeps it. Raises `OSError` if no directory can be written to, or
    if the first that this user may write to has no room.
    """
    of_all, of_user = state_directories(root, variables)
    try:
        return _save(active._replace(directory=active.directory or of_all), root)
    except OSError as error:
        if active.directory or error.errno not in _NOT_OURS:
            raise
    return _save(active._replace(directory=of_user), root)


def _save(active: ActiveEnvironment, root: str) -> ActiveEnvironment:
    _make_directory(active.directory, public=_is_in_root(active.directory, root))
    values = {
        "schema": SCHEMA,
        "environment": active.environment,
        "python": active.python,
        "made": active.built,
        "removing": active.removing,
        "passed": active.passed,
    }
    _write(os.path.join(active.directory, _FILE), values, umask=False)
    return active


def _is_in_root(directory: str, root: str) -> bool:
    return directory == os.path.join(os.path.realpath(root), *_IN_ROOT)


def _make_directory(path: str, *, public: bool = False) -> None:
    """Create a directory, and those above, so that nobody else may write to it, whatever the umask.

    If `public`, everybody may read it who may read the directory above: a command of another user of this
    Spack that cannot read the record cannot start.
    """
    if path and not os.path.isdir(path):
        _make_directory(os.path.dirname(path), public=public)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
            if public:
                os.chmod(path, 0o755)  # noqa: S103 - nobody may enter who may not enter Spack


def clear_active(active: ActiveEnvironment) -> None:
    """Delete the file, so that no environment is active, and the cache beside it."""
    for name in (_CACHE, _FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(active.directory, name))
    with contextlib.suppress(OSError):
        os.rmdir(active.directory)


def _cache_directory(active: ActiveEnvironment) -> str:
    """Return where this user's cache is: beside the record, or among the user's own files."""
    if may_change(active):
        return active.directory
    # The record is in Spack's root, since everybody may write their own.
    root = os.path.dirname(os.path.dirname(active.directory))
    return state_directories(root, os.environ)[1]


def load_cache(active: ActiveEnvironment) -> dict[str, object]:
    """Return what `save_cache` wrote; empty if that cannot be read."""
    try:
        found = json.loads(_read(os.path.join(_cache_directory(active), _CACHE)))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: str) -> str:
    """Return the content of a file; another process of this user may have replaced it by anything.

    `pkgjail.core.untrusted` reads whatever is not a small regular file, or says why it does not. Its import
    takes longer than all the rest here.
    """
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES:
        # It may have been replaced since: nothing waits, and the end of a longer one is no JSON.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            data = file.read(_MOST_BYTES)
    else:
        from pkgjail.core.untrusted import read_named

        data = read_named(path, _MOST_BYTES)
    return data.decode("utf-8", "surrogateescape")


def save_cache(active: ActiveEnvironment, values: Mapping[str, object]) -> None:
    """Write what Spack need not be asked again. If it cannot be written, Spack will be asked."""
    with contextlib.suppress(OSError):
        directory = _cache_directory(active)
        _make_directory(directory)
        _write(os.path.join(directory, _CACHE), values)


def _write(path: str, values: Mapping[str, object], *, umask: bool = True) -> None:
    from pkgjail.storage.atomic import replace_file

    text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    data = text.encode("utf-8", "surrogateescape")
    replace_file(path, data, mode=0o644, umask=umask, replace_special=True)
