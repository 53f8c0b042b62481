"""The package database of a Debian root: the parts of this package put together."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from pkgjail.backends.alternatives import read_alternatives
from pkgjail.backends.debian.generated import GENERATED
from pkgjail.backends.debian.matching import Installed
from pkgjail.backends.debian.paths import Paths
from pkgjail.backends.debian.relations import parse_group
from pkgjail.backends.debian.root import Root
from pkgjail.backends.debian.status import read_status, refuse_interrupted
from pkgjail.backends.debian.unmet import UnmetReasons
from pkgjail.backends.release import read_distribution

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pkgjail.backends.debian.status import Reader
    from pkgjail.core.model import (
        AlternativeGroup,
        DependencyGroup,
        Distribution,
        Generated,
        Package,
        Relation,
    )


class DebianDatabase:
    """`model.PackageDatabase` for a dpkg root; see there for what each method promises."""

    family = "debian"

    def __init__(self, root: bytes, reader: Reader) -> None:
        """Read the status file below `root` (an absolute path). Raises `DatabaseError`."""
        self._root = Root(root)
        self._reader = reader
        refuse_interrupted(self._root)
        self._installed = Installed(self._root, tuple(read_status(self._root, reader)), reader.compare)
        self._packages = MappingProxyType({key: one.package for key, one in self._installed.complete.items()})
        self._paths = Paths(self._root, self._installed.complete)
        self._unmet_reasons = UnmetReasons(self._root, self._installed)

    @property
    def backend(self) -> str:
        """The reader's name."""
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
        """Read one requirement as Policy 7.1 writes it: `gcc:any (>= 4:10) | clang`."""
        if "," in text:
            raise ValueError(
                f"{text!r} has a comma, so it is more than one requirement; write an entry for each"
            )
        return (parse_group(text, "whitelist"),)

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Pre-Depends and Depends, and Recommends when asked for, as the stanza orders them."""
        return self._installed.requirements(package, recommends=recommends)

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Who satisfies `relation`, by dpkg's own rules for architectures and virtual packages."""
        return self._installed.candidates(relation, architecture)

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """The nearest miss: version, architecture, a package that is not whole, or none at all."""
        return self._unmet_reasons.explain(relation, architecture)

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """The lines of the package's list file, each where dpkg-divert(1) has put it."""
        return self._paths.owned(package)

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Whose file list has each of `paths`, after diversions."""
        return self._paths.owners(paths, self.packages.values())

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """The status file's Conffiles that the package still ships, where diversions have put them."""
        return self._paths.conffiles(package)

    def digests(self, package: Package) -> dict[bytes, str]:
        """The package's md5sums file, where diversions have put what it lists."""
        return self._paths.digests(package)

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Every group of update-alternatives(1)."""
        return read_alternatives(self._root, self._root.admin(b"alternatives"))

    def generated(self) -> tuple[Generated, ...]:
        """The allow-list; the same for every Debian root."""
        return GENERATED
