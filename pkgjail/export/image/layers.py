"""The layers of an image: which names of a manifest go into which layer, as pure data.

Images share the layers that are equal. So a package has a layer of its own, and its layer has nothing that
depends on other packages: directories, which packages share, and everything that no package lists or that
several do, are in the last layer. It has the files made at entry, too.

Engines handle a few dozen layers well and a few hundred badly. Of more packages than `MOST_LAYERS` allows,
the largest have a layer of their own, and the others are grouped by their names. A manifest does not record
source packages, so that a group has the packages of the same `stem`, which those of one source mostly have.
Sizes are compared by their powers of two: a new version of a package seldom changes which are the largest.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING

from pkgjail.core.model import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import FileEntry, Manifest, Package

MOST_LAYERS = 64
ALONE = 48
"""The number of packages with a layer of their own, if there are too many for one each."""

_GROUPS = MOST_LAYERS - 1 - ALONE
_OF_PACKAGES = frozenset({"package", "conffile"})
_MOST_OF_A_SOURCE = 8  # packages; a stem that more of them have is no source's, such as `python`
_STEM = re.compile(r"(?:lib)?([a-z]*)")


@record
class Layer:
    """Some names of a manifest, by path, and the packages that they belong to.

    The last layer of an image has no packages.
    """

    packages: tuple[Package, ...]
    entries: tuple[FileEntry, ...]


def layers_of(manifest: Manifest) -> tuple[Layer, ...]:
    """Return the layers of a manifest's image, the lowest first; there is at least the last one.

    Those of essential packages come first: other images begin with them too, and engines share on the disk
    what images begin with.
    """
    owned: dict[str, list[FileEntry]] = {}
    last = []
    for entry in manifest.files:
        if entry.origin in _OF_PACKAGES and entry.kind != "directory" and len(entry.owners) == 1:
            owned.setdefault(entry.owners[0], []).append(entry)
        else:
            last.append(entry)
    packages = {package.key: package for package in manifest.packages if package.key in owned}
    layers = [_layer(keys, packages, owned) for keys in _groups(packages, owned)]
    layers.sort(key=lambda layer: (not all(p.essential for p in layer.packages), layer.packages[0].key))
    return (*layers, Layer(packages=(), entries=tuple(last)))


def _layer(keys: list[str], packages: Mapping[str, Package], owned: Mapping[str, list[FileEntry]]) -> Layer:
    entries = sorted((e for key in keys for e in owned[key]), key=lambda entry: entry.path)
    return Layer(packages=tuple(packages[key] for key in sorted(keys)), entries=tuple(entries))


def _groups(packages: Mapping[str, Package], owned: Mapping[str, list[FileEntry]]) -> list[list[str]]:
    """Return the keys of the packages of each layer."""
    if len(packages) < MOST_LAYERS:
        return [[key] for key in packages]
    largest = sorted(packages, key=lambda key: (-_size_class(owned[key]), key))
    stems = {key: stem(package.name) for key, package in packages.items()}
    counts = Counter(stems.values())  # of all packages: it is the same for other versions of them
    groups: dict[int, list[str]] = {}
    for key in largest[ALONE:]:
        common = counts[stems[key]] > _MOST_OF_A_SOURCE
        groups.setdefault(_number(packages[key].name if common else stems[key]), []).append(key)
    return [*([key] for key in largest[:ALONE]), *groups.values()]


def _size_class(entries: list[FileEntry]) -> int:
    return sum(entry.size or 0 for entry in entries).bit_length()


def stem(name: str) -> str:
    """Return the part of a package's name that those of one source share: `pam` of `libpam-modules`."""
    match = _STEM.match(name)
    return (match[1] if match else "") or name


def _number(text: str) -> int:
    """Return the number of the group of a stem, the same on every host."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _GROUPS
