"""The package managers that pkgjail can ask, and how one of them is chosen.

A backend is a module of this package that is imported only when it is wanted, so that a host
without python-apt, or without python-debian, pays and fails for neither.
"""

from __future__ import annotations

if __name__ != "pkgjail.backends":
    raise ImportError(
        f"this package was imported as {__name__!r}, and its types would not be pkgjail's; "
        "import 'pkgjail.backends' (the same directory, by way of a link)"
    )

import errno
import importlib
import os
from typing import TYPE_CHECKING

from pkgjail.errors import DatabaseError
from pkgjail.model import record, text_path

if TYPE_CHECKING:
    from types import ModuleType

    from pkgjail.model import PackageDatabase

__all__ = ["BackendStatus", "available", "open_database", "resolve_inside"]


@record
class BackendStatus:
    """Whether a backend can read one root: `reason` says what was found, or what is not there.

    `serves` tells people which systems the backend is for.
    """

    name: str
    serves: str
    usable: bool
    reason: str


@record
class _Backend:
    """A backend: its module here, the module it needs, the file by which its database is known."""

    name: str
    serves: str
    needs: str
    remedy: str
    marker: bytes


_MAXIMUM_LINKS = 40  # as path_resolution(7) has it
_STATUS = b"var/lib/dpkg/status"

# In the order of preference: where both can be used, the faster one is first.
_BACKENDS = (
    _Backend(
        name="apt",
        serves="Debian and its derivatives, with python-apt",
        needs="apt_pkg",
        remedy="install python3-apt and use the distribution's own python3, or use the backend 'dpkg'",
        marker=_STATUS,
    ),
    _Backend(
        name="dpkg",
        serves="Debian and its derivatives, with python-debian",
        needs="debian.deb822",
        remedy="install python-debian (python3-debian in Debian)",
        marker=_STATUS,
    ),
)


def available(root: bytes = b"/") -> tuple[BackendStatus, ...]:
    """Every backend, the preferred first, and whether it can read the database of `root`.

    A database that is there and damaged counts as usable: `open_database` says what is wrong.
    """
    return tuple(_status(backend, root) for backend in _BACKENDS)


def open_database(root: bytes = b"/", backend: str = "auto") -> PackageDatabase:
    """Read the package database of the system below `root` (an absolute path).

    `backend` is a name of `available`, or "auto" for the first that is usable. Raises
    `DatabaseError` when there is no such backend, nothing to read, or the reading fails.
    """
    known = [candidate.name for candidate in _BACKENDS]
    if backend not in {"auto", *known}:
        raise _error(root, f"there is no backend {backend!r}", f"use one of {', '.join(('auto', *known))}")
    chosen = [candidate for candidate in _BACKENDS if backend in {"auto", candidate.name}]
    present = [candidate for candidate in chosen if _present(candidate, root)]
    if not present:
        missing = " or ".join(sorted({text_path(candidate.marker) for candidate in chosen}))
        raise _error(root, f"it has no {missing}", "name the root directory of a Debian or derived system")
    failures = []
    for candidate in present:
        module = _module(candidate)
        if not isinstance(module, ImportError):
            database: PackageDatabase = module.open_database(root)
            return database
        failures.append((candidate, module))
    why = "; ".join(f"the backend {tried.name!r} cannot be imported ({error})" for tried, error in failures)
    raise _error(root, why, failures[-1][0].remedy)


def resolve_inside(root: bytes, path: bytes) -> bytes:
    """The place of the absolute `path` of another system whose root directory is `root`.

    Links are followed as that system would follow them: an absolute one starts at `root`, and
    `..` stops there. What does not exist is left as it is. Raises `OSError` (ELOOP) for a loop.
    It is no defence against a system that changes meanwhile.
    """
    pending, links = path.split(b"/")[::-1], 0
    done: list[bytes] = []
    while pending:
        name = pending.pop()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            del done[-1:]
            continue
        try:
            target = os.readlink(os.path.join(root, *done, name))
        except OSError:
            done.append(name)
            continue
        links += 1
        if links > _MAXIMUM_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.path.join(root, path.lstrip(b"/")))
        if target.startswith(b"/"):
            done.clear()
        pending.extend(target.split(b"/")[::-1])
    return os.path.join(root, *done)


def _status(backend: _Backend, root: bytes) -> BackendStatus:
    """Look for the database first: it says more than a library that is not there."""
    if not _present(backend, root):
        reason = f"{text_path(root)} has no {text_path(backend.marker)}"
        return BackendStatus(name=backend.name, serves=backend.serves, usable=False, reason=reason)
    module = _module(backend)
    if isinstance(module, ImportError):
        reason = f"{backend.needs} cannot be imported ({module}); {backend.remedy}"
        return BackendStatus(name=backend.name, serves=backend.serves, usable=False, reason=reason)
    reason = f"{text_path(os.path.join(root, backend.marker))} is read with {backend.needs}"
    return BackendStatus(name=backend.name, serves=backend.serves, usable=True, reason=reason)


def _present(backend: _Backend, root: bytes) -> bool:
    try:
        return os.path.lexists(resolve_inside(root, backend.marker))
    except OSError:  # A loop of links: the backend's to report.
        return True


def _module(backend: _Backend) -> ModuleType | ImportError:
    """The backend's module, or the `ImportError` that says why it cannot be had."""
    try:
        return importlib.import_module(f"{__name__}.{backend.name}")
    except ImportError as error:
        return error


def _error(root: bytes, why: str, remedy: str) -> DatabaseError:
    return DatabaseError(f"cannot read the package database of {text_path(root)}: {why}; {remedy}")
