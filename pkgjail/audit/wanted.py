"""What a command wanted from its source and did not get, by package; and what it used of its manifest."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pkgjail.core.model import record

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from pkgjail.audit.model import Audit, LookUp
    from pkgjail.core.model import Manifest

# Directories of what a build is made from, in which a look-up says more than elsewhere.
_TELLING = (b"/include/", b"/pkgconfig/", b"/cmake/", b"/aclocal", b"/bin/", b"/sbin/", b"/lib")
_NOISE = (b"/locale/", b"/locale-langpack/", b"/etc/localtime", b"/zoneinfo", b"/share/doc/", b"/share/man/")
# Where an administrator puts files that no package has: FHS 3.0, sections 3 and 4.9.
_LOCAL = (b"bin", b"etc", b"include", b"lib", b"sbin", b"share", b"src")
_OF_EVERYBODY = frozenset(
    (
        *(b"/home", b"/media", b"/mnt", b"/opt", b"/root", b"/srv", b"/usr/local"),
        *(b"/usr/local/" + name for name in _LOCAL),
    )
)


@record
class WantedPackage:
    """A package of the source with the paths of it that a command asked for, the most telling first.

    `package` is its key, or "" for paths that no package has.
    """

    package: str
    look_ups: tuple[LookUp, ...]


def wanted(audit: Audit) -> tuple[WantedPackage, ...]:
    """Return the packages that the source has and the command asked for in vain, the most telling first.

    A directory counts only if one package alone has it, or if no package has anything in it, as in a tree of
    /opt: many packages share the others, and to look whether they are there says little.
    """
    unpackaged = {listing.path for listing in audit.listings if listing.hidden.keys() == {""}}
    by_package: dict[str, list[LookUp]] = defaultdict(list)
    for look_up in audit.look_ups:
        if look_up.is_wanted and len(look_up.owners) <= 1 and not _is_shared(look_up, unpackaged):
            by_package["".join(look_up.owners)].append(look_up)
    found = [
        WantedPackage(package=package, look_ups=tuple(sorted(look_ups, key=_order)))
        for package, look_ups in by_package.items()
    ]
    return tuple(sorted(found, key=lambda each: (_order(each.look_ups[0]), each.package)))


def _is_shared(look_up: LookUp, unpackaged: Container[bytes]) -> bool:
    """Return whether it is a directory that many things are in, as far as the audit knows."""
    if look_up.source != "directory" or look_up.owners:
        return False
    return look_up.path not in unpackaged or look_up.path in _OF_EVERYBODY


def _order(look_up: LookUp) -> tuple[object, ...]:
    """Return what orders look-ups: tests of the build's first, then by place, then by what was asked."""
    path = look_up.path
    directory = path.rpartition(b"/")[0] + b"/"
    place = next((number for number, word in enumerate(_TELLING) if word in directory), len(_TELLING))
    return (
        any(word in path for word in _NOISE),
        look_up.clue == "listed" and not look_up.mentions,
        not look_up.mentions,
        look_up.source == "directory",
        place,
        -sum(look_up.calls.values()),
        path,
    )


@record
class Used:
    """The part of a manifest that a command used: packages of which it asked for a file, and the others."""

    packages: tuple[str, ...]
    unused: tuple[str, ...]
    files: int


def used(audit: Audit, manifest: Manifest) -> Used:
    """Return which packages of `manifest` the command used: it asked for a file or a link of them.

    Directories do not count, since many packages share them.
    """
    files = list(used_files(audit))
    touched = {owner for look_up in files for owner in look_up.owners}
    keys = sorted(package.key for package in manifest.packages)
    return Used(
        packages=tuple(key for key in keys if key in touched),
        unused=tuple(key for key in keys if key not in touched),
        files=len(files),
    )


def used_files(audit: Audit) -> Iterable[LookUp]:
    """Yield the files and links of the manifest that the command asked for and got."""
    for look_up in audit.look_ups:
        if look_up.area == "manifest" and look_up.inside in {"regular", "symlink"}:
            yield look_up
