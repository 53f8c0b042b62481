"""The package database of a pacman root: the parts of this package put together."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pkgjail.backends.pacman.generated import AT_ENTRY, GENERATED
from pkgjail.backends.pacman.local import read_digests, read_files, read_local
from pkgjail.backends.pacman.relations import group_of, group_of_name, parse_relation
from pkgjail.backends.pacman.versions import satisfies
from pkgjail.backends.release import read_distribution
from pkgjail.backends.root import Root
from pkgjail.core.model import Package, text_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.backends.pacman.local import Entry
    from pkgjail.core.model import AlternativeGroup, DependencyGroup, Distribution, Generated, Relation

BASE = "base"
"""The package whose closure is what no Arch system is without: the counterpart of Debian's Essential."""

_CONFIGURATION = b"/etc/pacman.conf"
_HOLD = re.compile(r"^[ \t]*HoldPkg[ \t]*=(.*)$", re.MULTILINE)


class PacmanDatabase:
    """`model.PackageDatabase` for a pacman root; see there for what each method promises."""

    backend = "pacman"
    family = "arch"

    def __init__(self, root: bytes) -> None:
        """Read the local database below `root` (an absolute path). Raises `DatabaseError`."""
        self._root = Root(root)
        held = self._held()
        self._entries: dict[str, Entry] = {}
        found: dict[str, Package] = {}
        for entry in read_local(self._root):
            package = Package(
                name=entry.name,
                version=entry.version,
                architecture=entry.architecture,
                essential=entry.name == BASE,
                protected=entry.name in held,
                size=entry.size,
            )
            self._entries[package.key] = entry
            found[package.key] = package
        self._packages = MappingProxyType(dict(sorted(found.items())))
        self._providers: dict[str, list[tuple[str, Relation]]] = {}
        self._members: dict[str, list[str]] = {}
        self._keys: dict[str, list[str]] = {}
        for key, package in self._packages.items():
            self._keys.setdefault(package.name, []).append(key)
            self._index(key)
        self._lists: dict[str, tuple[tuple[bytes, ...], frozenset[bytes]]] = {}

    def _held(self) -> frozenset[str]:
        """HoldPkg of pacman.conf(5): what pacman asks twice about before it removes it."""
        text = text_path(self._root.read(self._root.inside(_CONFIGURATION), missing=b""))
        return frozenset(name for line in _HOLD.findall(text) for name in line.split())

    def _index(self, key: str) -> None:
        entry = self._entries[key]
        for text in entry.fields.get("PROVIDES", ()):
            relation = self._relation(entry, "PROVIDES", text)
            self._providers.setdefault(relation.name, []).append((key, relation))
        for name in entry.fields.get("GROUPS", ()):
            self._members.setdefault(name, []).append(key)

    @property
    def packages(self) -> Mapping[str, Package]:
        """All that is installed."""
        return self._packages

    @cached_property
    def architecture(self) -> str:
        """The architecture that most packages have; `any` is none."""
        counts = Counter(package.architecture for package in self._packages.values())
        del counts["any"]
        return min(counts, key=lambda name: (-counts[name], name), default="any")

    @cached_property
    def distribution(self) -> Distribution:
        """`ID` and `VERSION_ID` of os-release(5)."""
        return read_distribution(self._root)

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Read one requirement as PKGBUILD(5) writes it, or the name of a group: all its packages."""
        group = group_of(text, "whitelist")
        relation = group.alternatives[0]
        members = self._members.get(relation.name, ())
        if relation.operator or not members or self.candidates(relation, self.architecture):
            return (group,)
        return tuple(group_of_name(self._packages[key].name, "whitelist") for key in members)

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """%DEPENDS%, as `desc` orders it. What is optional is no more than suggested, so never taken."""
        del recommends
        entry = self._entries[package.key]
        try:
            return tuple(group_of(text, "Depends") for text in entry.fields.get("DEPENDS", ()))
        except ValueError as error:
            raise self._bad_field(entry, "DEPENDS", error) from error

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """The package of that name if its version fits, then those that provide it (alpm_find_satisfier).

        What is provided without a version answers no requirement that asks for one.
        """
        del architecture  # pacman knows one
        if relation.architecture:
            return ()
        found = [one for one in self._named(relation.name) if _fits(one.version, relation)]
        found += [
            self._packages[key]
            for key, offer in self._providers.get(relation.name, ())
            if not relation.operator or (offer.operator == "=" and _fits(offer.version, relation))
        ]
        return tuple(dict.fromkeys(found))

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """The nearest miss: version, or none at all."""
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

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """The package's %FILES%, less what a jail makes of its own."""
        return tuple(path for path in self._list(package.key)[0] if path not in AT_ENTRY)

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Whose file list has each of `paths`."""
        found: dict[bytes, str] = {}
        for key in self._packages if paths else ():
            for path in self._list(key)[0]:
                if path in paths:
                    found.setdefault(path, key)
        return found

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """The package's %BACKUP%: what pacman keeps when the administrator has changed it."""
        return self._list(package.key)[1]

    def digests(self, package: Package) -> dict[bytes, str]:
        """The SHA-256 in the package's `mtree`, or MD5 where it has no other."""
        paths = set(self.owned_paths(package)) - self.conffiles(package)
        listed = read_digests(self._root, self._entries[package.key])
        return {path: digest for path, digest in listed.items() if path in paths}

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """None: Arch has no such program."""
        return ()

    def generated(self) -> tuple[Generated, ...]:
        """The allow-list; the same for every pacman root."""
        return GENERATED

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


def _fits(version: str, relation: Relation) -> bool:
    return not relation.operator or satisfies(version, relation.operator, relation.version)
