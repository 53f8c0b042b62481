"""`pkgjail-spack-python`: what `SPACK_PYTHON` may name, so that Spack itself knows nothing of pkgjail.

Spack's script executes whatever `SPACK_PYTHON` names, with its own path and arguments. This enters
the jail and executes the real interpreter there; where nothing is active, here.
"""

from __future__ import annotations

import os
import sys

from pkgjail.cli.streams import open_streams
from pkgjail.integrations.spack.argv import extension_option, is_own_command, split_words
from pkgjail.integrations.spack.extensions import extension_paths, has_isolate
from pkgjail.integrations.spack.hook import complain, run_inside
from pkgjail.integrations.spack.state import load_state

NAME = "pkgjail-spack-python"
"""The program's name."""

VARIABLE = "PKGJAIL_SPACK_PYTHON"
"""The variable that names the real interpreter; else it is the one that built the environment."""

_NAMES = ("python3", "python")


def main() -> int:
    """Go on in the jail, or as the real interpreter; returns the exit status of the former."""
    open_streams()
    words = sys.argv[1:]
    root = spack_root(words)
    try:
        python = real_python(root)
    except ValueError as error:
        return complain(str(error))
    if python is None:
        return complain(f"cannot find Spack's Python; name it in {VARIABLE}")
    status = None if root is None else run_inside(root, python, words, words[1:])
    if status is None:
        os.execv(python, [python, *words[:1], *_loading(root, words[1:]), *words[1:]])
    return status


def _loading(root: str | None, words: list[str]) -> list[str]:
    """What has Spack know `spack jail`, where that is asked for and Spack can be told."""
    if root is None or not is_own_command(split_words(words)[1], has_isolate=has_isolate(root)):
        return []
    with open(os.path.join(root, "lib", "spack", "spack", "main.py"), encoding="utf-8") as file:
        if '"--config"' not in file.read():
            return []
    return [word for folder in extension_paths(root) for word in extension_option(folder)]


def spack_root(words: list[str]) -> str | None:
    """The root of the Spack whose script these words begin with; None where it is another program."""
    if not words or os.path.basename(words[0]) != "spack":
        return None
    root = os.path.dirname(os.path.dirname(os.path.realpath(words[0])))
    return root if os.path.isdir(os.path.join(root, "lib", "spack", "spack")) else None


def real_python(root: str | None) -> str | None:
    """The interpreter that Spack is to run on.

    Raises:
        ValueError: as `load_state`.

    """
    named = os.environ.get(VARIABLE)
    if named:
        return _which(named)
    state = None if root is None else load_state(root, os.environ)
    if state is not None and os.access(state.python, os.X_OK):
        return state.python
    found = map(_which, _NAMES)
    return next((path for path in found if path and not _is_wrapper(path)), None)


def _which(name: str) -> str | None:
    """The program of this name; one that has a directory in its name is what it says."""
    if os.path.dirname(name):
        return name if os.access(name, os.X_OK) and not os.path.isdir(name) else None
    import shutil  # takes as long to import as all else here

    return shutil.which(name)


def _is_wrapper(path: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(sys.argv[0])
