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


import importlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import record, text_path
from pkgjail.core.paths import resolve_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pkgjail.core.model import Distribution, PackageDatabase

__all__ = ["ENTRY_POINTS", "BackendStatus", "available", "open_database", "version_order"]

ENTRY_POINTS = "pkgjail.backends"
"""The group of entry points by which other distributions of Python packages add backends.

The name of an entry point is the backend's. Its object has `open_database(root)`, which returns a
`PackageDatabase`, `SERVES`, which says for which systems it is, and `MARKERS`, the paths (bytes,
absolute) of which any shows that a root has such a database.
"""


@record
class BackendStatus:
    """Whether a backend can read one root: `reason` says what was found, or what is not there.

    `serves` tells people which systems the backend is for, `aliases` are other names for it.
    """

    name: str
    serves: str
    usable: bool
    reason: str
    aliases: tuple[str, ...] = ()


@record
class _Backend:
    """A backend: what it needs (a module, or a program), and the files by which its database is known.

    `ids` are the words of os-release(5)'s ID and ID_LIKE of systems whose own database it is.
    """

    name: str
    serves: str
    remedy: str
    markers: tuple[bytes, ...]
    module: str = ""
    program: str = ""
    aliases: tuple[str, ...] = ()
    ids: frozenset[str] = frozenset()
    load: Callable[[], Any] | None = None


_STATUS = (b"/var/lib/dpkg/status",)
_RPM_DIRECTORIES = (b"/usr/lib/sysimage/rpm/", b"/var/lib/rpm/", b"/usr/share/rpm/")
_DEBIAN = frozenset({"debian", "ubuntu"})
# Those that order versions by deb-version(7), by the ID in their os-release.
_OF_DEBIAN = _DEBIAN | {"devuan", "kali", "linuxmint", "pop", "raspbian"}

# In the order of preference: where both can be used, the faster one is first.
_BACKENDS = (
    _Backend(
        name="apt",
        serves="Debian and its derivatives, with python-apt",
        module="apt_pkg",
        remedy="install python3-apt and use the distribution's own python3, or use the backend 'dpkg'",
        markers=_STATUS,
        ids=_DEBIAN,
    ),
    _Backend(
        name="dpkg",
        serves="Debian and its derivatives, with python-debian",
        module="debian.deb822",
        remedy="install python-debian (python3-debian in Debian)",
        markers=_STATUS,
        ids=_DEBIAN,
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
        ids=frozenset({"fedora", "rhel", "centos", "suse", "opensuse", "amzn", "mageia", "openmandriva"}),
    ),
    _Backend(
        name="pacman",
        serves="Arch Linux and its derivatives",
        remedy="",
        markers=(b"/var/lib/pacman/local",),
        ids=frozenset({"arch", "archarm", "manjaro", "artix"}),
    ),
)


def available(root: bytes = b"/") -> tuple[BackendStatus, ...]:
    """Every backend, the preferred first, and whether it can read the database of `root`.

    Preferred is one whose database the root has, of several such the one that its os-release(5)
    speaks for. A database that is there and damaged counts as usable: `open_database` says what is
    wrong.
    """
    return tuple(_status(backend, root) for backend in _ordered((*_BACKENDS, *_others()), root))


def open_database(root: bytes = b"/", backend: str = "auto") -> PackageDatabase:
    """Read the package database of the system below `root` (an absolute path).

    `backend` is a name or an alias of `available`, or "auto" for the first that is usable. Raises
    `DatabaseError` when there is no such backend, nothing to read, or the reading fails.
    """
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
    """The function that orders two versions as a distribution does: negative, 0 or positive.

    None where its order is not known, or its backend cannot be imported. No database is read. The function
    may raise `ValueError` for what is no version.
    """
    if distribution.id in _OF_DEBIAN:
        try:
            from pkgjail.backends.dpkg import DpkgReader
        except ImportError:
            return None
        return DpkgReader().compare
    found = next((one.name for one in _BACKENDS if distribution.id in one.ids), "")
    if found == "rpm":
        from pkgjail.backends.rpm.versions import compare as of_rpm

        return of_rpm
    if found == "pacman":
        from pkgjail.backends.pacman.versions import compare as of_pacman

        return of_pacman
    return None


def _named(name: str, root: bytes) -> tuple[_Backend, ...]:
    """The backends that `name` may mean. Those of others are looked for when ours do not serve."""
    ours = tuple(one for one in _BACKENDS if name in {"auto", one.name, *one.aliases})
    if any(_marker(one, root) for one in ours):
        return ours
    chosen = (*ours, *(one for one in _others() if name in {"auto", one.name}))
    if not chosen:
        known = [word for one in (*_BACKENDS, *_others()) for word in (one.name, *one.aliases)]
        raise _error(root, f"there is no backend {name!r}", f"use one of {', '.join(('auto', *known))}")
    return chosen


def _others() -> tuple[_Backend, ...]:
    """The backends of other distributions of Python packages, by name; ours keep their names."""
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
    """The backend of an entry point; one that cannot be loaded is there all the same, to be told."""
    try:
        module = load()
        serves, markers = str(module.SERVES), tuple(module.MARKERS)
    except Exception as error:  # noqa: BLE001 - whatever somebody else's code raises
        serves, markers = f"nothing: it cannot be loaded ({error})", ()
    return _Backend(
        name=name, serves=serves, remedy=f"repair what brings {name!r}", markers=markers, load=load
    )


def _ordered(backends: Iterable[_Backend], root: bytes) -> list[_Backend]:
    """Those whose database is there first; of several, that of the distribution that the root says it is."""
    kept = tuple(backends)
    present = {one.name: bool(_marker(one, root)) for one in kept}
    databases = {one.markers for one in kept if present[one.name]}
    ids = _ids(root) if len(databases) > 1 else frozenset()
    return sorted(kept, key=lambda one: (not present[one.name], not one.ids & ids if ids else False))


def _ids(root: bytes) -> frozenset[str]:
    """ID and ID_LIKE of os-release(5); none where it cannot be read."""
    from pkgjail.backends.release import read_release
    from pkgjail.backends.root import Root

    try:
        fields = read_release(Root(root))
    except DatabaseError:
        return frozenset()
    return frozenset(f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace("-", " ").split())


def _status(backend: _Backend, root: bytes) -> BackendStatus:
    """Look for the database first: it says more than a library that is not there."""
    marker, lack = _marker(backend, root), ""
    if not marker:
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
        usable=bool(marker) and not lack,
        reason=reason,
        aliases=backend.aliases,
    )


def _nothing(backends: Iterable[_Backend]) -> tuple[str, str]:
    """What a root lacks for any of `backends`, and what to do."""
    directories: dict[str, None] = {}
    for one in backends:
        several = len(one.markers) > 1
        names = sorted({os.path.dirname(name) for name in one.markers}) if several else one.markers
        directories.update(dict.fromkeys(text_path(name).lstrip("/") for name in names))
    what = " or ".join(directories) or "database for a backend that cannot be loaded"
    return f"it has no {what}", "name the root directory of a system that a backend serves"


def _marker(backend: _Backend, root: bytes) -> bytes:
    """The first of the backend's files that is there; b"" for none."""
    return next((marker for marker in backend.markers if _is_there(root, marker)), b"")


def _is_there(root: bytes, marker: bytes) -> bool:
    try:
        return os.path.lexists(resolve_inside(root, marker))
    except OSError:  # A loop of links: the backend's to report.
        return True


def _lack(backend: _Backend) -> str:
    """What keeps a backend from being used on any root; "" for nothing."""
    if backend.program and shutil.which(backend.program) is None:
        return f"needs the program {backend.program}, which is not in PATH"
    try:
        _load(backend)
    except ImportError as error:
        return f"cannot be imported ({error})"
    return ""


def _load(backend: _Backend) -> Any:
    """The backend's module, or what an entry point names."""
    if backend.load is not None:
        return backend.load()
    return importlib.import_module(f"{__name__}.{backend.name}")


def _error(root: bytes, why: str, remedy: str) -> DatabaseError:
    return DatabaseError(f"cannot read the package database of {text_path(root)}: {why}; {remedy}")
