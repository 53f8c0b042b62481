"""The package database of an rpm root: the parts of this package put together."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pkgjail.backends.alternatives import read_alternatives
from pkgjail.backends.release import read_distribution, read_release, release_families
from pkgjail.backends.root import Root
from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.generated import AT_ENTRY, GENERATED
from pkgjail.backends.rpm.installed import Installed
from pkgjail.backends.rpm.query import query_digests, query_first
from pkgjail.backends.rpm.store import find_stores
from pkgjail.backends.rpm.unmet import UnmetReasons, installer
from pkgjail.core.families import RHEL, SUSE
from pkgjail.core.model import DatabaseFile, DependencyGroup, Relation
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.core.model import AlternativeGroup, Distribution, Generated, Package

_CONFIG, _GHOST = 1, 64  # RPMFILE_CONFIG, RPMFILE_GHOST
_PROTECTED = (b"/etc/dnf/protected.d", b"/etc/yum/protected.d")
_ALTERNATIVES = b"/var/lib/alternatives"


class RpmDatabase:
    """`model.PackageDatabase` for a root with rpm; the methods are described there."""

    backend = "rpm"

    def __init__(self, root: bytes) -> None:
        """Read the database below `root` (an absolute path) with rpm. Raises `DatabaseError`."""
        self._root = Root(root)
        self._store, headers = query_first(self._root, find_stores(self._root))
        self._installed = Installed(self._root, headers, self._protected())
        self._packages = MappingProxyType(dict(self._installed.packages))
        self._unmet_reasons = UnmetReasons(self._root, self._installed, self._installer)

    def _protected(self) -> frozenset[str]:
        """The names of packages that dnf and yum refuse to remove (dnf.conf(5), `protected_packages`)."""
        names: set[str] = set()
        for candidate in _PROTECTED:
            directory = self._root.inside(candidate)
            for name in sorted(self._root.names(directory)):
                if name.endswith(b".conf"):
                    lines = text_path(self._root.read(os.path.join(directory, name))).splitlines()
                    names.update(word for line in lines if not line.startswith("#") for word in line.split())
        return frozenset(names)

    @property
    def family(self) -> str:
        """`suse` for openSUSE and SLE, `rhel` for all others.

        If os-release(5) names neither, `aaa_base` decides, which is in the base set of `suse` alone.
        """
        return self._family

    @cached_property
    def _family(self) -> str:
        known = (one for one in release_families(read_release(self._root)) if one in {RHEL, SUSE})
        has_base = any(package.name == "aaa_base" for package in self._packages.values())
        return next(known, SUSE if has_base else RHEL)

    def _installer(self) -> str:
        return installer((package.name for package in self._packages.values()), self.family)

    @property
    def packages(self) -> Mapping[str, Package]:
        """All packages, without imported keys."""
        return self._packages

    @property
    def architecture(self) -> str:
        """The architecture of most packages."""
        return self._installed.architecture

    @cached_property
    def distribution(self) -> Distribution:
        """`ID` and `VERSION_ID` of os-release(5)."""
        return read_distribution(self._root)

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse a requirement in the syntax of spec files, rich ones included, or dnf's `name.arch`.

        Alternatives, the preferred first, stand between `|`.
        """
        if text.startswith("@"):
            raise ValueError(
                f"{text!r} is a group of a repository's, not of what is installed; name packages"
            )
        return tuple(
            replace(group, alternatives=tuple(map(self._with_architecture, group.alternatives)))
            for group in boolean.entry_groups(text)
        )

    def _with_architecture(self, relation: Relation) -> Relation:
        """Split `name.arch`, unless it is a name itself."""
        name, architecture = self._installed.whitelisted(relation.name)
        if boolean.is_rich(name) or not architecture:
            return relation
        return replace(relation, name=name, architecture=architecture)

    def database_files(self, packages: Collection[Package]) -> tuple[DatabaseFile, ...]:
        """Return rpm's database, which is made at entry, where the root's rpm looks for it.

        Of formats other than SQLite nobody but rpm can remove packages.
        """
        rpm = next((package.key for package in packages if package.name == "rpm"), None)
        if rpm is None:
            return ()
        store, obstacle = self._store, ""
        if store.format.name != "sqlite":
            obstacle = f"{text_path(store.path)} has the format {store.format.name}, which only rpm can write"
        return (DatabaseFile(path=store.path, package=rpm, manager="rpm", at_entry=True, obstacle=obstacle),)

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return Requires, and with `recommends` Recommends, in the order of the package's header."""
        return self._installed.requirements(package, recommends=recommends)

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation` by what they provide or by their files."""
        return self._installed.candidates(relation, architecture)

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, architecture, or no such package."""
        return self._unmet_reasons.explain(relation, architecture)

    def available_names(self) -> Collection[str]:
        """Return no names: the metadata of repositories is not read."""
        return ()

    def available_with(self, path: bytes) -> tuple[str, ...]:
        """Return no packages: the metadata of repositories is not read."""
        del path
        return ()

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """Return the files that the package installed, and those of its ghosts that exist.

        Files that a jail makes itself are left out, and so are ghosts that are links of alternatives.
        """
        return tuple(
            path
            for flags, path in self._installed.files(package)
            if path not in AT_ENTRY
            and not (flags & _GHOST and (path in self._alternative_links or not self._is_there(path)))
        )

    def _is_there(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        return os.path.lexists(os.path.join(self._root.inside(directory or b"/"), name))

    @cached_property
    def _alternative_links(self) -> frozenset[bytes]:
        return frozenset(path for group in self.alternatives() for pair in group.links for path in pair)

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the package whose file list has each of `paths`."""
        return {path: self._owners[path] for path in paths if path in self._owners} if paths else {}

    @cached_property
    def _owners(self) -> Mapping[bytes, str]:
        found: dict[bytes, str] = {}
        for key, package in self._packages.items():
            for _, path in self._installed.files(package):
                found.setdefault(path, key)
        return found

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return the files that the spec file marks `%config`."""
        return frozenset(path for flags, path in self._installed.files(package) if flags & _CONFIG)

    def digests(self, package: Package) -> dict[bytes, str]:
        """Return the digests in the package's header, without those of `%config` files.

        rpm is called for them when they are first needed. A package that was replaced since has none.
        """
        listed = self._digests.get((package.name, package.version, package.architecture), {})
        plain = (path for flags, path in self._installed.files(package) if not flags & (_CONFIG | _GHOST))
        return {path: listed[path] for path in plain if path in listed and path not in AT_ENTRY}

    @cached_property
    def _digests(self) -> Mapping[tuple[str, str, str], Mapping[bytes, str]]:
        return query_digests(self._root, self._store)

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Return every group of alternatives(8), or of openSUSE's update-alternatives(1)."""
        return self._groups

    @cached_property
    def _groups(self) -> tuple[AlternativeGroup, ...]:
        return read_alternatives(self._root, self._root.inside(_ALTERNATIVES), ended=False)

    def generated(self) -> tuple[Generated, ...]:
        """Return the allow-list, which is the same for every root with rpm."""
        return GENERATED

    def script_words(self, package: Package) -> frozenset[bytes]:
        """Return nothing: what scripts make is in the allow-list."""
        del package
        return frozenset()
