"""The package database of a pacman root: the parts of this package put together."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pkgjail.backends.pacman.database_files import list_database_files
from pkgjail.backends.pacman.generated import AT_ENTRY, GENERATED
from pkgjail.backends.pacman.local import read_digests, read_files, read_local
from pkgjail.backends.pacman.relations import entry_groups, fits, group_of, offer_fits, parse_relation
from pkgjail.backends.release import read_distribution
from pkgjail.backends.root import Root
from pkgjail.core.model import Package, in_order
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.backends.pacman.local import Entry
    from pkgjail.core.model import (
        AlternativeGroup,
        DatabaseFile,
        DependencyGroup,
        Distribution,
        Generated,
        Relation,
    )

BASE = "base"
"""The package whose closure every Arch system has; it corresponds to Debian's Essential."""

_CONFIGURATION = b"/etc/pacman.conf"
_HOLD = re.compile(r"^[ \t]*HoldPkg[ \t]*=(.*)$", re.MULTILINE)


class PacmanDatabase:
    """`model.PackageDatabase` for a root with pacman; the methods are described there."""

    backend = "pacman"
    family = "arch"

    def __init__(self, root: bytes) -> None:
        """Read the local database below `root` (an absolute path). Raises `DatabaseError`."""
        self._root = Root(root)
        protected = self._protected()
        self._entries: dict[str, Entry] = {}
        found: dict[str, Package] = {}
        for entry in read_local(self._root):
            package = Package(
                name=entry.name,
                version=entry.version,
                architecture=entry.architecture,
                essential=entry.name == BASE,
                protected=entry.name in protected,
                size=entry.size,
            )
            self._entries[package.key] = entry
            found[package.key] = package
        self._packages = MappingProxyType(in_order(found))
        self._providers: dict[str, list[tuple[str, Relation]]] = {}
        self._members: dict[str, list[str]] = {}
        self._keys: dict[str, list[str]] = {}
        for key, package in self._packages.items():
            self._keys.setdefault(package.name, []).append(key)
            self._index(key)
        self._lists: dict[str, tuple[tuple[bytes, ...], frozenset[bytes]]] = {}

    def _protected(self) -> frozenset[str]:
        """HoldPkg of pacman.conf(5): the packages that pacman removes only after a second confirmation."""
        text = text_path(self._root.read(self._root.inside(_CONFIGURATION), missing=b""))
        return frozenset(name for line in _HOLD.findall(text) for name in line.split())

    def _index(self, key: str) -> None:
        entry = self._entries[key]
        for text in entry.fields.get("PROVIDES", ()):
            relation = self._relation(entry, "PROVIDES", text)
            self._providers.setdefault(relation.name, []).append((key, relation))
        for name in entry.fields.get("GROUPS", ()):
            self._members.setdefault(name, []).append(entry.name)

    @property
    def packages(self) -> Mapping[str, Package]:
        """All installed packages."""
        return self._packages

    @cached_property
    def architecture(self) -> str:
        """The architecture of most packages; `any` does not count."""
        counts = Counter(package.architecture for package in self._packages.values())
        del counts["any"]
        return min(counts, key=lambda name: (-counts[name], name), default="any")

    @cached_property
    def distribution(self) -> Distribution:
        """`ID` and `VERSION_ID` of os-release(5)."""
        return read_distribution(self._root)

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one requirement in the syntax of PKGBUILD(5), or the name of a group for all its packages.

        Alternatives, the preferred first, stand between `|`.
        """
        return entry_groups(text, self._members, lambda one: bool(self.candidates(one, self.architecture)))

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return %DEPENDS% in the order of `desc`. Optional dependencies are only suggestions."""
        del recommends
        entry = self._entries[package.key]
        try:
            return tuple(group_of(text, "Depends") for text in entry.fields.get("DEPENDS", ()))
        except ValueError as error:
            raise self._bad_field(entry, "DEPENDS", error) from error

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the package of that name if its version fits, then those that provide it.

        These are the rules of alpm_find_satisfier: a provision without a version does not satisfy a
        requirement with one.
        """
        del architecture  # pacman has only one
        if relation.architecture:
            return ()
        found = [one for one in self._named(relation.name) if fits(one.version, relation)]
        found += [
            self._packages[key]
            for key, offer in self._providers.get(relation.name, ())
            if offer_fits(offer, relation)
        ]
        return tuple(dict.fromkeys(found))

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, or no such package. The words become part of manifests."""
        del architecture
        have = [one.version for one in self._named(relation.name)]
        have += [offer.version or "no version" for _, offer in self._providers.get(relation.name, ())]
        sign = {"<<": "<", ">>": ">"}.get(relation.operator, relation.operator)
        if have:
            return (
                f"{relation.name} is there as {', '.join(dict.fromkeys(have))}, and "
                f"({sign}{relation.version}) is asked; install such a version, or change what is asked"
            )
        install = self._root.command(f"pacman -S {relation.name}")
        return f"{relation.name!r} is not installed, and no group of that name; install it with {install}"

    def available_names(self) -> Collection[str]:
        """Return no names: the metadata of repositories is not read."""
        return ()

    def available_with(self, path: bytes) -> tuple[str, ...]:
        """Return no packages: the metadata of repositories is not read."""
        del path
        return ()

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """Return the package's %FILES%, without those that a jail makes itself."""
        return tuple(path for path in self._list(package.key)[0] if path not in AT_ENTRY)

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the package whose file list has each of `paths`."""
        found: dict[bytes, str] = {}
        for key in self._packages if paths else ():
            for path in self._list(key)[0]:
                if path in paths:
                    found.setdefault(path, key)
        return found

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return the package's %BACKUP%: files that pacman preserves if the administrator changed them."""
        return self._list(package.key)[1]

    def digests(self, package: Package) -> dict[bytes, str]:
        """Return the SHA-256 digests in the package's `mtree`, or MD5 if it has only that."""
        paths = set(self.owned_paths(package)) - self.conffiles(package)
        listed = read_digests(self._root, self._entries[package.key])
        return {path: digest for path, digest in listed.items() if path in paths}

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Return none: Arch has no such program."""
        return ()

    def generated(self) -> tuple[Generated, ...]:
        """Return the allow-list, which is the same for every root with pacman."""
        return GENERATED

    def script_words(self, package: Package) -> frozenset[bytes]:
        """Return nothing: what scripts make is in the allow-list."""
        del package
        return frozenset()

    def database_files(self, packages: Collection[Package]) -> tuple[DatabaseFile, ...]:
        """Return pacman's files about these packages; `desc` is made at entry."""
        entries = {package.key: self._entries[package.key] for package in packages}
        return tuple(list_database_files(self._root, entries))

    def _named(self, name: str) -> list[Package]:
        return [self._packages[key] for key in self._keys.get(name, ())]

    def _list(self, key: str) -> tuple[tuple[bytes, ...], frozenset[bytes]]:
        if key not in self._lists:
            self._lists[key] = read_files(self._root, self._entries[key])
        return self._lists[key]

    def _relation(self, entry: Entry, field: str, text: str) -> Relation:
        try:
            return parse_relation(text)
        except ValueError as error:
            raise self._bad_field(entry, field, error) from error

    def _bad_field(self, entry: Entry, field: str, error: ValueError) -> Exception:
        why = f"{text_path(entry.directory)}/desc: %{field}%: {error}"
        return self._root.error(why, "install another version of the package")
