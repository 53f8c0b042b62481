"""The paths that no command in a jail may change, because later runs outside depend on them.

These are the manifest and the lists, pkgjail's own code, the Python that runs it, environments, and the
user's caches. `pkgjail.jails.protection` protects them in writable binds.
"""

from __future__ import annotations

import contextlib
import os
import site
import sys
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.locations import (
    cache_directory,
    home_directories,
    runtime_directory,
    usual_directories,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.options import JailOptions

_MOVE_IT = "move it to another directory, or bind one further down"
# Python prefixes that have other files too.
_SHARED_PREFIXES = ("/", "/opt", "/usr", "/usr/local")
# The programs that come with pkgjail.
_SCRIPTS = ("pkgjail", "pkgjail-spack-python")
# A prefix with one of these belongs to one Python alone.
_PREFIX_MARKERS = ("pyvenv.cfg", "conda-meta")


class ProtectedPath(NamedTuple):
    """A file or directory that no command may change: an absolute path, which may be missing.

    `noun` ("the environment"), `later` ("later runs") and `advice` are parts of messages. With `read_only`, a
    writable bind shows it read-only; otherwise such a bind is refused. With `complete`, no directory below it
    may be bound writable either. With `single_name`, a file must not have other names (hard links). With
    `made`, a missing directory is made if a bind would show it, because a missing one cannot be mounted. With
    `cache`, it is hidden where the jail shows the host's /dev/shm (`JailOptions.share_ipc`).
    """

    path: bytes
    noun: str
    later: str = "later runs"
    advice: str = "bind a directory further down"
    read_only: bool = True
    complete: bool = True
    single_name: bool = False
    made: bool = False
    cache: bool = False


def protected_paths(options: JailOptions) -> Iterator[ProtectedPath]:
    """Yield what no jail of this process may change: the inputs in `options`, caches, pkgjail and Python."""
    for path in options.inputs:
        yield ProtectedPath(os.path.abspath(path), "the input", advice=_MOVE_IT, single_name=True)
    yield from cache_paths()
    yield from _code()


def protected_environment(directory: bytes) -> ProtectedPath:
    """Return the protection of an environment's directory, a real path. No bind may show it writable."""
    return ProtectedPath(directory, "the environment", "later entries", read_only=False)


def cache_paths() -> Iterator[ProtectedPath]:
    """Yield the user's caches, and the usual paths of caches that other settings would use."""
    advice = "bind a directory further down, or set XDG_CACHE_HOME or XDG_RUNTIME_DIR to another directory"
    for directory in (cache_directory(), runtime_directory()):
        path = os.path.abspath(os.fsencode(directory))
        yield ProtectedPath(path, "pkgjail's cache", "later jails", advice, read_only=False, cache=True)
    for directory in usual_directories():
        made = _may_make(directory) or os.path.isdir(os.path.dirname(directory))
        yield ProtectedPath(os.fsencode(directory), "pkgjail's cache", "later jails", made=made, cache=True)


def directories_of_python(prefix: str) -> tuple[str, ...]:
    """Return the directories of the Python that is installed in `prefix`; none for one of the system's."""
    if any(os.path.exists(os.path.join(prefix, marker)) for marker in _PREFIX_MARKERS):
        return (prefix,)
    if os.path.normpath(prefix) in _SHARED_PREFIXES:
        return ()
    return tuple(os.path.join(prefix, name) for name in ("bin", "lib"))


def _code() -> Iterator[ProtectedPath]:
    """Yield the code of pkgjail, the Python that runs it, and the directories that it imports from."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(os.fsencode(__file__))))
    for path in (package, *(entry.path for entry in os.scandir(package) if entry.is_symlink())):
        yield ProtectedPath(path, "pkgjail's own code")
    for directory in _python_directories():
        yield ProtectedPath(os.fsencode(directory), "the Python that runs pkgjail,")
    for directory in _module_directories():
        only_packages = _has_only_packages(directory)
        noun = "a directory that pkgjail's Python imports from,"
        made = only_packages and _may_make(directory)
        yield ProtectedPath(os.fsencode(directory), noun, complete=only_packages, made=made)


def _python_directories() -> Iterator[str]:
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        yield from directories_of_python(prefix)
    yield os.path.dirname(os.path.abspath(os.__file__))
    if sys.executable:
        yield sys.executable


def _module_directories() -> Iterator[str]:
    """Yield the directories that every run imports modules from, including missing ones that would be used.

    Directories that a program adds to `sys.path` as it runs are left out, and those below the one where
    Python was started, such as "~/.local" of a user without a home directory: docs/security.md.
    """
    found = _script_directories()
    found += [] if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sites = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    for directory in filter(os.path.isabs, sites):
        found += [directory, *_named_by_path_files(directory)]
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):  # setuptools: packages that are imported from a source tree
            found += map(str, getattr(module, "MAPPING", {}).values())
    found.append(sys.pycache_prefix or "")
    yield from dict.fromkeys(map(os.path.abspath, filter(None, found)))


def _script_directories() -> list[str]:
    """Return the directory of the command's script, such as ~/.local/bin: Python imports from it first."""
    script = os.path.basename(sys.argv[0])
    if script not in _SCRIPTS or getattr(sys.flags, "safe_path", False):
        return []
    return [os.path.dirname(os.path.realpath(sys.argv[0]))]


def _named_by_path_files(directory: str) -> Iterator[str]:
    """Yield the directories that the `.pth` files of a site directory add; see the module `site`."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(directory))
    for name in names:
        if name.endswith(".pth"):
            with contextlib.suppress(OSError), open(os.path.join(directory, name), errors="replace") as file:
                lines = [line.strip() for line in file]
                added = (line for line in lines if not line.startswith(("#", "import ", "import\t")))
                yield from (os.path.join(directory, line) for line in filter(None, added))


def _has_only_packages(directory: str) -> bool:
    """Check whether a directory is for packages alone, so that every directory in it is a package's."""
    return os.path.basename(directory) in ("site-packages", "dist-packages")


def _may_make(directory: str) -> bool:
    """Check whether to make a directory if it is missing: for root, only in a home directory that exists.

    Root could make any, also in /usr, where nobody else could then read it.
    """
    if os.geteuid():
        return True
    # HOME may be another one by now than when Python started (`pkgjail.jails.as_user`).
    homes = (*home_directories(), os.path.dirname(site.getuserbase()))
    return any(os.path.isdir(home) and directory.startswith(f"{home}/") for home in homes)
