"""Find extra names in the directories of a manifest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.paths import Names
from pkgjail.core.untrusted import real_directories
from pkgjail.review.verify.result import Difference
from pkgjail.storage.baseline import baseline_key, is_directory, load_own_baseline, names_in
from pkgjail.storage.fingerprint import in_package_database, is_variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.storage.baseline import Baseline


def find_extras(
    manifest: Manifest, root: bytes, database: PackageDatabase | None, *, strict: bool
) -> Iterator[Difference]:
    """Yield the names below the real path `root` that the manifest neither has nor has dropped.

    As for `pkgjail.storage.baseline`, directories in which names come and go on a running host are not
    searched, nor are the package database's, which have names for every package. With a baseline of this
    host, only names that came later are reported. Without one, on a host with packages, it is unknown which
    names came later: names of other packages and of none are then `uncounted`, unless `strict`. For an extra
    directory only its own name is reported, not its content.
    """
    baseline = load_own_baseline(baseline_key(manifest.files, root))
    names = {entry.path for entry in manifest.files}
    expected = names | {dropped.path for dropped in manifest.dropped}
    found = [path for path in _new_names(manifest, root, baseline) if path not in expected]
    # dpkg may list a file by its name from before /usr was merged (/bin/x for /usr/bin/x).
    aliases = _aliases(manifest)
    spellings = {path: tuple(_spellings(path, aliases)) for path in found}
    owners: Mapping[bytes, str] = {}
    if database is not None:
        owners = database.owners({spelling for each in spellings.values() for spelling in each})
    packages = {package.key for package in manifest.packages}
    for path, spelled in spellings.items():
        owner = next((owners[spelling] for spelling in spelled if spelling in owners), "")
        yield Difference(
            path=path,
            what="extra",
            detail=_detail(owner, in_manifest=owner in packages, came_later=baseline is not None),
            owners=(owner,) if owner else (),
            uncounted=baseline is None and database is not None and owner not in packages and not strict,
        )


def _spellings(path: bytes, aliases: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    """Yield the path, and its names through links of the root directory."""
    yield path
    yield from (alias + path[len(real) :] for real, alias in aliases if path.startswith(real))


def _detail(owner: str, *, in_manifest: bool, came_later: bool) -> str:
    later = ", and came after the manifest was made" if came_later else ""
    if not owner:
        return f"no package owns it{later}"
    return f"it belongs to {owner}, which is {'' if in_manifest else 'not '}in the manifest{later}"


def _new_names(manifest: Manifest, root: bytes, baseline: Baseline | None) -> Iterator[bytes]:
    """Yield the names in directories of the manifest that the baseline, if there is one, does not have."""
    prefix = root.rstrip(b"/")
    directories = real_directories(manifest.files, root)
    for entry in manifest.files:
        place = prefix + entry.path
        if entry.path not in directories or not is_directory(place):
            continue
        if is_variable(entry.path) or in_package_database(entry.path):
            continue
        before = {} if baseline is None else baseline.names.get(place, {})
        above = entry.path.rstrip(b"/")
        for name in names_in(place).keys() - before.keys():
            path = above + b"/" + name
            # /proc and other directories of the kernel and the host are expected in /, as in a jail.
            if not (above == b"" and is_variable(path)):
                yield path


def _aliases(manifest: Manifest) -> tuple[tuple[bytes, bytes], ...]:
    """Return each directory that a link of the root directory stands for: (b"/usr/bin/", b"/bin/")."""
    names = Names(manifest.files)
    links = (e.path for e in manifest.files if e.kind == "symlink" and os.path.dirname(e.path) == b"/")
    return tuple((names.find(path).place + b"/", path + b"/") for path in links)
