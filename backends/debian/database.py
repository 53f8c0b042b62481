"""The package database of a Debian root: the parts of this package put together."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pkgjail.backends.alternatives import read_alternatives
from pkgjail.backends.debian.available import Available
from pkgjail.backends.debian.database_files import list_database_files
from pkgjail.backends.debian.file_lists import FileLists
from pkgjail.backends.debian.generated import GENERATED, emacs_packages
from pkgjail.backends.debian.matching import Installed
from pkgjail.backends.debian.relations import parse_entry
from pkgjail.backends.debian.root import Root
from pkgjail.backends.debian.status import read_status, refuse_interrupted
from pkgjail.backends.debian.ucf import read_ucf
from pkgjail.backends.debian.unmet import UnmetReasons
from pkgjail.backends.release import read_distribution

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.backends.debian.status import Reader
    from pkgjail.core.model import (
        AlternativeGroup,
        DatabaseFile,
        DependencyGroup,
        Distribution,
        Generated,
        Package,
        Relation,
    )


class DebianDatabase:
    """`model.PackageDatabase` for a root with dpkg; the methods are described there."""

    family = "debian"

    def __init__(self, root: bytes, reader: Reader) -> None:
        """Read the status file below `root` (an absolute path). Raises `DatabaseError`."""
        self._root = Root(root)
        self._reader = reader
        refuse_interrupted(self._root)
        self._installed = Installed(self._root, tuple(read_status(self._root, reader)), reader.compare)
        self._packages = MappingProxyType({key: one.package for key, one in self._installed.complete.items()})
        self._file_lists = FileLists(self._root, self._installed.complete)
        self._available = Available(self._root)
        self._unmet_reasons = UnmetReasons(self._root, self._installed)

    @property
    def backend(self) -> str:
        """The name of the reader."""
        return self._reader.name

    @property
    def packages(self) -> Mapping[str, Package]:
        """The packages whose Status ends in "ok installed"."""
        return self._packages

    @property
    def architecture(self) -> str:
        """Dpkg's native architecture."""
        return self._installed.architecture

    @cached_property
    def distribution(self) -> Distribution:
        """`ID` and `VERSION_ID` of os-release(5)."""
        return read_distribution(self._root)

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one requirement in the syntax of Policy 7.1: `gcc:any (>= 4:10) | clang`."""
        return parse_entry(text)

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return Pre-Depends and Depends, and with `recommends` Recommends, in the order of the stanza."""
        return self._installed.requirements(package, recommends=recommends)

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation`, by dpkg's rules for architectures and provisions."""
        return self._installed.candidates(relation, architecture)

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Explain the nearest miss: version, architecture, a package in another state, or no such package."""
        return self._unmet_reasons.explain(relation, architecture)

    def available_names(self) -> Collection[str]:
        """Return the names in apt's lists, with those that packages provide."""
        return self._available.names

    def available_with(self, path: bytes) -> tuple[str, ...]:
        """Return the packages that have a path, by the lists of contents that apt-file(1) has apt fetch."""
        return self._available.having(path)

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """Return the paths in the package's list file, as moved by dpkg-divert(1)."""
        return self._file_lists.owned(package)

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the package whose file list has each of `paths`, after diversions."""
        return self._file_lists.owners(paths, self.packages.values())

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return the Conffiles in the status file that the package still ships, as diversions moved them."""
        return self._file_lists.conffiles(package)

    def digests(self, package: Package) -> dict[bytes, str]:
        """Return the digests in the package's md5sums file, with paths as diversions moved them."""
        return self._file_lists.digests(package)

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Return every group of update-alternatives(1)."""
        return read_alternatives(self._root, self._root.admin(b"alternatives"))

    def generated(self) -> tuple[Generated, ...]:
        """Return the allow-list, the same for every Debian root, and the files that ucf installed."""
        return self._generated

    @cached_property
    def _generated(self) -> tuple[Generated, ...]:
        return (*GENERATED, *emacs_packages(self._root), *read_ucf(self._root))

    def script_words(self, package: Package) -> frozenset[bytes]:
        """Return the words in the package's maintainer scripts."""
        return self._file_lists.script_words(package)

    def database_files(self, packages: Collection[Package]) -> tuple[DatabaseFile, ...]:
        """Return dpkg's files about these packages, and those that are made at entry."""
        return list_database_files(self._root, self._file_lists, packages)
