"""Which environment is active for a Spack: a small file in Spack's own root.

There every process finds it, whatever its variables say: cron's too. Where the root is another
user's, the file is where Spack keeps this user's caches. No command inside may write to either place.
What is read at the start of each Spack command is here, so it imports little.
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
# `opt` is ignored by Spack's own git.
_IN_ROOT = ("opt", ".pkgjail")


class State(NamedTuple):
    """The environment's directory, Spack's Python, and when it was built (ns since 1970).

    `removing` while it is taken away. `place` is the directory that has the file.
    """

    environment: str
    python: str
    made: int
    removing: bool
    place: str


def places(root: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """The directories that may have the file: this Spack's, and this user's for this Spack."""
    import hashlib  # loads OpenSSL

    real = os.path.realpath(root)
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    return os.path.join(real, *_IN_ROOT), os.path.join(_of_user(variables), name)


def _of_user(variables: Mapping[str, str]) -> str:
    cache = variables.get("SPACK_USER_CACHE_PATH") or os.path.join(os.path.expanduser("~"), ".spack")
    return os.path.join(cache, "pkgjail")


def closed_places(root: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """The directories that no command inside may write to: what is there says what is active.

    Also the user's own where no variable names one, for cron's commands look there. Those that are not there
    are made, for what is not there cannot be shown read-only. Left out are those in a directory of another
    user's where this one may make none; nor may a command inside.
    """
    found = []
    for place in dict.fromkeys((places(root, variables)[0], _of_user(variables), _of_user({}))):
        with contextlib.suppress(OSError):
            _make_directory(place)
        above = place
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if above == place or os.lstat(above).st_uid == os.geteuid():
            found.append(place)
    return tuple(found)


def _likely(root: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Those of `places` that may be there, the one that counts first."""
    with contextlib.suppress(OSError):
        if os.listdir(_of_user(variables)):
            return places(root, variables)[::-1]
    return (os.path.join(os.path.realpath(root), *_IN_ROOT),)


def load_state(root: str, variables: Mapping[str, str]) -> State | None:
    """What is active for the Spack in `root`; None where nothing is.

    Raises:
        ValueError: there is a file that pkgjail did not write. Nothing may go on as if there were none.

    """
    for place in _likely(root, variables):
        path = os.path.join(place, _FILE)
        try:
            values = json.loads(_read(path))
            if values["schema"] != SCHEMA:
                raise ValueError  # noqa: TRY301 - told below, as all that is wrong with it
            return State(
                str(values["environment"]),
                str(values["python"]),
                int(values["made"]),
                bool(values["removing"]),
                place,
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "this pkgjail did not write it"
            raise ValueError(f"cannot read {path}: {why}; look at it, and delete it") from error
    return None


def save_state(state: State, root: str, variables: Mapping[str, str]) -> State:
    """Write the file, at one stroke, to the first place that can be written to.

    A state that has a place keeps it. Raises `OSError` where there is none.
    """
    *earlier, last = [state.place] if state.place else places(root, variables)
    for place in earlier:
        with contextlib.suppress(OSError):
            return _save(state._replace(place=place))
    return _save(state._replace(place=last))


def _save(state: State) -> State:
    _make_directory(state.place)
    values = {"schema": SCHEMA, **state._asdict()}
    del values["place"]
    _write(os.path.join(state.place, _FILE), values)
    return state


def _make_directory(path: str) -> None:
    """Make a directory, and those above, that nobody else may write to, whatever the umask."""
    if path and not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)


def drop_state(state: State) -> None:
    """Nothing is active any more."""
    for name in (_CACHE, _FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state.place, name))
    with contextlib.suppress(OSError):
        os.rmdir(state.place)


def load_cache(state: State) -> dict[str, object]:
    """What was kept by `save_cache`; empty where that cannot be read."""
    try:
        found = json.loads(_read(os.path.join(state.place, _CACHE)))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: str) -> str:
    """The content of a file, which another process of this user may have replaced by anything."""
    from pkgjail.core.untrusted import MIB, read_named

    return read_named(path, MIB).decode("utf-8", "surrogateescape")


def save_cache(state: State, values: Mapping[str, object]) -> None:
    """Keep what need not be asked for again. Where it cannot be written, it will be asked for."""
    with contextlib.suppress(OSError):
        _write(os.path.join(state.place, _CACHE), values)


def _write(path: str, values: Mapping[str, object]) -> None:
    from pkgjail.storage.atomic import replace_file

    text = json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    replace_file(path, text.encode("utf-8", "surrogateescape"), mode=0o644, replace_special=True)
