"""Backends, which read the databases of package managers, and the choice of one of them.

A backend is a module of this package that is imported only when needed. So a host without python-apt or
python-debian neither fails nor waits because of them.

root          files below a root, and errors
release       os-release(5)
machine       the architecture of a root without a package database
alternatives  the records of update-alternatives(1) and alternatives(8)
unowned       rows of a backend's allow-list of unowned files
debian        everything that the backends apt and dpkg share
"""

from __future__ import annotations

if __name__ != "pkgjail.backends":
    raise ImportError(
        f"this package was imported as {__name__!r}, so its types would not be those of pkgjail; "
        "import 'pkgjail.backends' (the same directory, through a link)"
    )


import importlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import DatabaseError
from pkgjail.core.families import ARCH, DEBIAN, RHEL, SUSE, family_of
from pkgjail.core.given import path_bytes
from pkgjail.core.model import record
from pkgjail.core.paths import resolve_inside
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Distribution, PackageDatabase

__all__ = ["ENTRY_POINTS", "BackendStatus", "available", "open_database", "version_order"]

ENTRY_POINTS = "pkgjail.backends"
"""The group of entry points by which other Python distributions add backends.

The name of an entry point is that of the backend. Its object has `open_database(root)`, which returns a
`PackageDatabase`; `SERVES`, a text that names the systems it is for; and `MARKERS`, absolute paths as
bytes: a root with any of them has such a database.
"""


@record
class BackendStatus:
    """The status of a backend for one root. `reason` says what was found or is missing.

    `serves` names the systems that the backend is for, `aliases` are its other names.
    """

    name: str
    serves: str
    usable: bool
    reason: str
    aliases: tuple[str, ...] = ()


@record
class _Backend:
    """A backend, the module or program that it needs, and the files that show its database.

    `families` are those of systems with this database.
    """

    name: str
    serves: str
    remedy: str
    markers: tuple[bytes, ...]
    module: str = ""
    program: str = ""
    aliases: tuple[str, ...] = ()
    families: frozenset[str] = frozenset()
    load: Callable[[], Any] | None = None


_STATUS = (b"/var/lib/dpkg/status",)
_RPM_DIRECTORIES = (b"/usr/lib/sysimage/rpm/", b"/var/lib/rpm/", b"/usr/share/rpm/")

# In the order of preference: of two for one database, the faster one is first.
_BACKENDS = (
    _Backend(
        name="apt",
        serves="Debian and its derivatives, with python-apt",
        module="apt_pkg",
        remedy="install python3-apt and use the distribution's own python3, or use the backend 'dpkg'",
        markers=_STATUS,
        families=frozenset({DEBIAN}),
    ),
    _Backend(
        name="dpkg",
        serves="Debian and its derivatives, with python-debian",
        module="debian.deb822",
        remedy="install python-debian (python3-debian in Debian)",
        markers=_STATUS,
        families=frozenset({DEBIAN}),
    ),
    _Backend(
        name="rpm",
        serves="Fedora, RHEL and its rebuilds, openSUSE, and systems of rpm-ostree",
        program="rpm",
        remedy="install rpm; it need not be the root's own",
        markers=tuple(
            directory + name
            for directory in _RPM_DIRECTORIES
            for name in (b"rpmdb.sqlite", b"Packages.db", b"Packages")
        ),
        aliases=("dnf", "yum", "zypper"),
        families=frozenset({RHEL, SUSE}),
    ),
    _Backend(
        name="pacman",
        serves="Arch Linux and its derivatives",
        remedy="",
        markers=(b"/var/lib/pacman/local",),
        families=frozenset({ARCH}),
    ),
)


def available(root: AnyPath = b"/") -> tuple[BackendStatus, ...]:
    """Return the status of every backend for the database of `root`, in the order of preference.

    A backend whose database the root has is preferred, and of several such, the one that fits its
    os-release(5). A damaged database counts as usable: `open_database` says what is wrong with it. One that
    has no packages does not.
    """
    root = path_bytes(root, "root")
    return tuple(_status(backend, root) for backend in _ordered((*_BACKENDS, *_others()), root))


def open_database(root: AnyPath = b"/", backend: str = "auto") -> PackageDatabase:
    """Read the package database of the system below `root` (an absolute path).

    `backend` is a name or an alias of `available`, or "auto" for the first that is usable. Raises
    `DatabaseError` if there is no such backend or no such database, or if reading fails.
    """
    root = path_bytes(root, "root")
    chosen = _named(backend, root)
    present = [candidate for candidate in _ordered(chosen, root) if _marker(candidate, root)]
    if not present:
        raise _error(root, *_nothing(chosen))
    failures = []
    for candidate in present:
        lack = _lack(candidate)
        if not lack:
            database: PackageDatabase = _load(candidate).open_database(root)
            return database
        failures.append((candidate, lack))
    why = "; ".join(f"the backend {tried.name!r} {lack}" for tried, lack in failures)
    raise _error(root, why, failures[-1][0].remedy)


def version_order(distribution: Distribution) -> Callable[[str, str], int] | None:
    """Return a function that compares two versions as a distribution's family does: negative, 0 or positive.

    The result is None if the order is unknown, or the backend cannot be imported. No database is read. The
    function may raise `ValueError` for a text that is not a version.
    """
    family = family_of(distribution)
    if family == DEBIAN:
        try:
            from pkgjail.backends.dpkg import DpkgReader
        except ImportError:
            return None
        return DpkgReader().compare
    if family in {RHEL, SUSE}:
        from pkgjail.backends.rpm.versions import compare as of_rpm

        return of_rpm
    if family == ARCH:
        from pkgjail.backends.pacman.versions import compare as of_pacman

        return of_pacman
    return None


def _named(name: str, root: bytes) -> tuple[_Backend, ...]:
    """The backends that `name` may mean; entry points are read only if none of ours fits."""
    ours = tuple(one for one in _BACKENDS if name in {"auto", one.name, *one.aliases})
    if any(_marker(one, root) for one in ours):
        return ours
    chosen = (*ours, *(one for one in _others() if name in {"auto", one.name}))
    if not chosen:
        known = [word for one in (*_BACKENDS, *_others()) for word in (one.name, *one.aliases)]
        raise _error(root, f"there is no backend {name!r}", f"use one of {', '.join(('auto', *known))}")
    return chosen


def _others() -> tuple[_Backend, ...]:
    """The backends of entry points, by name; they cannot replace ours."""
    from importlib.metadata import entry_points  # takes longer than most backends

    found: Any = entry_points()
    points = found.select(group=ENTRY_POINTS) if hasattr(found, "select") else found.get(ENTRY_POINTS, ())
    taken = {word for one in _BACKENDS for word in (one.name, *one.aliases)}
    return tuple(
        _other(point.name, point.load)
        for point in sorted(points, key=lambda point: str(point.name))
        if point.name not in taken
    )


def _other(name: str, load: Callable[[], Any]) -> _Backend:
    """The backend of an entry point; one that cannot be loaded is listed with the reason."""
    try:
        module = load()
        serves, markers = str(module.SERVES), tuple(module.MARKERS)
    except Exception as error:  # noqa: BLE001 - other people's code may raise anything
        serves, markers = f"nothing: it cannot be loaded ({error})", ()
    return _Backend(
        name=name,
        serves=serves,
        remedy=f"repair the package that provides {name!r}",
        markers=markers,
        load=load,
    )


def _ordered(backends: Iterable[_Backend], root: bytes) -> list[_Backend]:
    """Sort backends with a database first; of several such, the one that fits the root's os-release."""
    candidates = tuple(backends)
    markers = {one.name: _marker(one, root) for one in candidates}
    databases = {one.markers for one in candidates if markers[one.name]}
    are_several = len(databases) > 1
    named = _named_families(root) if are_several else ()
    return sorted(
        candidates,
        key=lambda one: (
            not markers[one.name],
            are_several and _is_empty(one, root, markers[one.name]),
            next((place for place, each in enumerate(named) if each in one.families), len(named)),
        ),
    )


def _named_families(root: bytes) -> tuple[str, ...]:
    """The families that os-release(5) names; none if it cannot be read."""
    from pkgjail.backends.release import read_release, release_families
    from pkgjail.backends.root import Root

    try:
        return release_families(read_release(Root(root)))
    except DatabaseError:
        return ()


def _status(backend: _Backend, root: bytes) -> BackendStatus:
    """Return the status of a backend. A missing database says more than a missing library."""
    marker, lack = _marker(backend, root), ""
    is_empty = bool(marker) and _is_empty(backend, root, marker)
    if is_empty:
        reason = f"{text_path(os.path.join(root, marker[1:]))} is there, but has no packages"
    elif not marker:
        reason = _nothing((backend,))[0].replace("it has", f"{text_path(root)} has", 1)
    elif lack := _lack(backend):
        reason = f"{text_path(os.path.join(root, marker[1:]))} is there, but '{backend.name}' {lack}"
        reason = f"{reason}; {backend.remedy}"
    else:
        means = backend.module or backend.program or backend.name
        reason = f"{text_path(os.path.join(root, marker[1:]))} is read with {means}"
    return BackendStatus(
        name=backend.name,
        serves=backend.serves,
        usable=bool(marker) and not is_empty and not lack,
        reason=reason,
        aliases=backend.aliases,
    )


def _nothing(backends: Iterable[_Backend]) -> tuple[str, str]:
    """Say what a root would need for any of `backends`, and what to do."""
    directories: dict[str, None] = {}
    for one in backends:
        several = len(one.markers) > 1
        names = sorted({os.path.dirname(name) for name in one.markers}) if several else one.markers
        directories.update(dict.fromkeys(text_path(name).lstrip("/") for name in names))
    what = " or ".join(directories) or "database for a backend that cannot be loaded"
    return f"it has no {what}", "name the root directory of a system that a backend serves"


def _marker(backend: _Backend, root: bytes) -> bytes:
    """The first of the backend's files that exists, if possible one with packages; b"" if none does."""
    found = [marker for marker in backend.markers if _is_there(root, marker)]
    if len(found) > 1:
        found = [*(marker for marker in found if not _is_empty(backend, root, marker)), *found]
    return found[0] if found else b""


def _is_there(root: bytes, marker: bytes) -> bool:
    try:
        return os.path.lexists(resolve_inside(root, marker))
    except OSError:  # A loop of links, which the backend reports.
        return True


def _is_empty(backend: _Backend, root: bytes, marker: bytes) -> bool:
    """Check whether a database has no packages, as a package manager leaves one that is not the root's own.

    What cannot be read is not empty: the backend reports it. Of other people's markers nothing is known.
    """
    if backend.load is not None or not marker:
        return False
    try:
        place = resolve_inside(root, marker)
        state = os.stat(place)
        if stat.S_ISDIR(state.st_mode):
            return not os.listdir(place)
    except OSError:
        return False
    if not stat.S_ISREG(state.st_mode) or state.st_size == 0:
        return state.st_size == 0
    if not marker.endswith(b".sqlite"):
        return False
    from pkgjail.backends.rpm.store import has_no_packages

    return has_no_packages(place)


def _lack(backend: _Backend) -> str:
    """Say why a backend cannot be used on any root; "" if it can."""
    if backend.program and shutil.which(backend.program) is None:
        return f"needs the program {backend.program}, which is not in PATH"
    try:
        _load(backend)
    except ImportError as error:
        return f"cannot be imported ({error})"
    return ""


def _load(backend: _Backend) -> Any:
    """The backend's module, or the object of its entry point."""
    if backend.load is not None:
        return backend.load()
    return importlib.import_module(f"{__name__}.{backend.name}")


def _error(root: bytes, why: str, remedy: str) -> DatabaseError:
    return DatabaseError(f"cannot read the package database of {text_path(root)}: {why}; {remedy}")
