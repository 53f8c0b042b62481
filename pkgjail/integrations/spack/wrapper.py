"""The program `pkgjail-spack-python`: `SPACK_PYTHON` may name it, so that Spack needs no extension.

Spack's script executes the program in `SPACK_PYTHON` with its own path and arguments. If an environment is
active, this program runs the real interpreter in the jail; otherwise it becomes the real interpreter.
"""

from __future__ import annotations

import os
import sys

from pkgjail.cli.streams import open_streams
from pkgjail.integrations.spack.active import load_active
from pkgjail.integrations.spack.caller.argv import extension_option, is_jail_command, split_argv
from pkgjail.integrations.spack.extensions import extension_paths, has_isolate
from pkgjail.integrations.spack.inside import run_inside
from pkgjail.integrations.spack.messages import print_error

NAME = "pkgjail-spack-python"
"""The program's name."""

VARIABLE = "PKGJAIL_SPACK_PYTHON"
"""The variable that names the real interpreter; by default it is the one that built the environment."""

_NAMES = ("python3", "python")


def main() -> int:
    """Run Spack in the jail and return its exit status, or become the real interpreter."""
    open_streams()
    arguments = sys.argv[1:]
    root = spack_root(arguments)
    try:
        python = real_python(root)
    except ValueError as error:
        return print_error(str(error))
    if python is None:
        return print_error(f"cannot find Spack's Python; name it in {VARIABLE}")
    status = None if root is None else run_inside(root, python, arguments, arguments[1:])
    if status is None:
        extension = _extension_options(root, arguments[1:])
        os.execv(python, [python, *arguments[:1], *extension, *arguments[1:]])
    return status


def _extension_options(root: str | None, spack_arguments: list[str]) -> list[str]:
    """Return the options that make Spack load `spack jail`, if that is the command and Spack has them."""
    if root is None or not is_jail_command(split_argv(spack_arguments)[1], has_isolate=has_isolate(root)):
        return []
    with open(os.path.join(root, "lib", "spack", "spack", "main.py"), encoding="utf-8") as file:
        if '"--config"' not in file.read():
            return []
    return [argument for folder in extension_paths(root) for argument in extension_option(folder)]


def spack_root(arguments: list[str]) -> str | None:
    """Return the root of the Spack whose script is the first argument; None if it is another program."""
    if not arguments or os.path.basename(arguments[0]) != "spack":
        return None
    root = os.path.dirname(os.path.dirname(os.path.realpath(arguments[0])))
    return root if os.path.isdir(os.path.join(root, "lib", "spack", "spack")) else None


def real_python(root: str | None) -> str | None:
    """Return the interpreter that runs Spack; None if there is none.

    Raises:
        ValueError: as `load_active`.

    """
    named = os.environ.get(VARIABLE)
    if named:
        return _which(named)
    active = None if root is None else load_active(root, os.environ)
    if active is not None and os.access(active.python, os.X_OK):
        return active.python
    found = map(_which, _NAMES)
    return next((path for path in found if path and not _is_wrapper(path)), None)


def _which(name: str) -> str | None:
    """Return the path of a program; a name with a directory in it is a path."""
    if os.path.dirname(name):
        return name if os.access(name, os.X_OK) and not os.path.isdir(name) else None
    import shutil  # its import takes as long as everything else here

    return shutil.which(name)


def _is_wrapper(path: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(sys.argv[0])
