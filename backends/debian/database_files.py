"""The files of dpkg's database that describe exactly a set of packages, for the dpkg in a jail.

The files in `info` are for one package each, so they are the host's. The other files are for all packages
of the host; `pkgjail.jails.package_database` makes their like when a jail is entered. The rest of the
directory is for changes of the database, which a jail cannot make: locks, triggers, the scripts of
maintainers, available packages, older versions, and stat overrides, which name users of the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.core.model import DatabaseFile

if TYPE_CHECKING:
    from collections.abc import Collection

    from pkgjail.backends.debian.file_lists import FileLists
    from pkgjail.backends.debian.root import Root
    from pkgjail.core.model import Package

_MANAGER = "dpkg"
_DIRECTORY = b"/var/lib/dpkg/"
_AT_ENTRY = (b"arch", b"diversions", b"status")
# What dpkg-query(1), dpkg-shlibdeps(1) and dpkg --verify read: deb-md5sums(5), deb-shlibs(5),
# deb-symbols(5), deb-triggers(5).
_KINDS = (b".conffiles", b".list", b".md5sums", b".shlibs", b".symbols", b".triggers")


def list_database_files(
    root: Root, file_lists: FileLists, packages: Collection[Package]
) -> tuple[DatabaseFile, ...]:
    """Return the files that dpkg reads about `packages`; none if dpkg is not among them.

    Raises:
        DatabaseError: the directory `info` cannot be read.

    """
    dpkg = next((package.key for package in packages if package.name == _MANAGER), None)
    if dpkg is None:
        return ()
    present = frozenset(root.names(root.admin(b"info")))
    found = [
        DatabaseFile(path=_DIRECTORY + name, package=dpkg, manager=_MANAGER, at_entry=True)
        for name in _AT_ENTRY
    ]
    owned = [(b"format", dpkg)]
    owned += [(file_lists.info_name(package) + kind, package.key) for package in packages for kind in _KINDS]
    found += [
        DatabaseFile(path=_DIRECTORY + b"info/" + name, package=key, manager=_MANAGER)
        for name, key in owned
        if name in present
    ]
    return tuple(found)
