"""Names beside those of a manifest, in its directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.paths import Names
from pkgjail.core.untrusted import real_directories
from pkgjail.review.verify.result import Difference
from pkgjail.storage.baseline import baseline_key, is_directory, load_own_baseline, names_in
from pkgjail.storage.fingerprint import is_variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.core.model import Manifest, PackageDatabase
    from pkgjail.storage.baseline import Baseline


def find_extras(
    manifest: Manifest, root: bytes, database: PackageDatabase | None, *, strict: bool
) -> Iterator[Difference]:
    """The names below the real path `root` that the manifest neither has nor has dropped.

    They are looked for where `pkgjail.storage.baseline` looks: not in parts of a host where names come and
    go while
    it runs. With a baseline of this host, only what came later is reported. Without one, on a host with
    packages, nobody knows what came later: there, unless `strict`, names of other packages and of none are
    merely beside. Of a directory its own name is reported, not what is in it.
    """
    baseline = load_own_baseline(baseline_key(manifest.files, root))
    names = {entry.path for entry in manifest.files}
    passed = names | {dropped.path for dropped in manifest.dropped}
    found = [path for path in _names(manifest, root, baseline) if path not in passed]
    # dpkg lists what it installed by older names too (/bin/x for /usr/bin/x).
    aliases = _aliases(manifest)
    spellings = {path: tuple(_spellings(path, aliases)) for path in found}
    owners: Mapping[bytes, str] = {}
    if database is not None:
        owners = database.owners({one for each in spellings.values() for one in each})
    packages = {package.key for package in manifest.packages}
    for path, spelled in spellings.items():
        owner = next((owners[one] for one in spelled if one in owners), "")
        yield Difference(
            path=path,
            what="extra",
            detail=_detail(owner, owner in packages, since=baseline is not None),
            owners=(owner,) if owner else (),
            beside=baseline is None and database is not None and owner not in packages and not strict,
        )


def _spellings(path: bytes, aliases: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    yield path
    yield from (alias + path[len(real) :] for real, alias in aliases if path.startswith(real))


def _detail(owner: str, known: bool, *, since: bool) -> str:  # noqa: FBT001 - of the owner
    later = ", and came after the manifest was made" if since else ""
    if not owner:
        return f"no package owns it{later}"
    return f"it belongs to {owner}, which is {'' if known else 'not '}in the manifest{later}"


def _names(manifest: Manifest, root: bytes, baseline: Baseline | None) -> Iterator[bytes]:
    prefix = root.rstrip(b"/")
    there = real_directories(manifest.files, root)
    for entry in manifest.files:
        place = prefix + entry.path
        if entry.path not in there or is_variable(entry.path) or not is_directory(place):
            continue
        before = {} if baseline is None else baseline.names.get(place, {})
        above = entry.path.rstrip(b"/")
        for name in names_in(place).keys() - before.keys():
            path = above + b"/" + name
            # The kernel's and the host's own directories, such as /proc, are no more in / than in a jail's.
            if not (above == b"" and is_variable(path)):
                yield path


def _aliases(manifest: Manifest) -> tuple[tuple[bytes, bytes], ...]:
    """The directories that links of the root directory stand for: (b"/usr/bin/", b"/bin/")."""
    names = Names(manifest.files)
    links = (e.path for e in manifest.files if e.kind == "symlink" and os.path.dirname(e.path) == b"/")
    return tuple((names.find(path).place + b"/", path + b"/") for path in links)
