"""The interface of a repository format. Each format is a module of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pkgjail.core.model import record

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pkgjail.core.model import DependencyGroup, Package, Relation
    from pkgjail.repositories.metadata import Metadata

    Downloads = Callable[[Collection[Package]], Mapping[str, int]]
    Contents = Callable[[Collection[Package]], Mapping[str, tuple[bytes, ...]]]


@record
class LoadedRepository:
    """One repository in libsolv's pool; `handle` is libsolv's object for it.

    `essential` are the names of packages without which no system is complete, `preferred` those that are
    preferred if any of several satisfies a requirement, and `groups` names that stand for several packages.
    `contents` returns the paths of packages by key; it is None if there are no lists. `downloads` returns
    the download sizes in bytes, if libsolv has not read them. `extend` reads more file names into libsolv's
    pool, which is needed if packages require paths (`required`) that are not `listed`.
    """

    name: str
    metadata: Metadata
    handle: Any
    essential: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]
    contents: Contents | None
    downloads: Downloads | None = None
    preferred: frozenset[str] = frozenset()
    required: frozenset[bytes] = frozenset()
    listed: frozenset[bytes] = frozenset()
    extend: Callable[[], None] | None = None


class RepositoryFormat(Protocol):
    """One format of repositories, and the rules of its package manager."""

    @property
    def family(self) -> str:
        """The key of `[packages]` in a whitelist."""
        ...

    @property
    def disttype(self) -> str:
        """The name of libsolv's constant for the order of versions and other differences."""
        ...

    @property
    def everywhere(self) -> str:
        """The architecture of packages that are for every architecture."""
        ...

    @property
    def multilib(self) -> bool:
        """Return whether packages of one name and two architectures can be installed together."""
        ...

    @property
    def fields(self) -> tuple[str, str]:
        """The package manager's words for a requirement, and for one that must be installed before."""
        ...

    def architecture(self, machine: str) -> str:
        """Return the package manager's word for a `machine` of uname(2), and other words unchanged."""
        ...

    def load(
        self, solv: Any, solv_pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[LoadedRepository, ...]:
        """Read the repositories at `path` into libsolv's pool. Raises `DatabaseError`."""
        ...

    def parse(self, text: str, index: PoolIndex) -> tuple[DependencyGroup, ...]:
        """Parse one whitelist entry. Raises `ValueError`."""
        ...

    def base(self, loaded: Collection[LoadedRepository]) -> tuple[tuple[str, ...], ...]:
        """Return the base set: one package of each tuple of names is needed."""
        ...

    def alternatives(self, text: str) -> tuple[str, ...]:
        """Return the names in a requirement that libsolv printed, the preferred one first."""
        ...

    def groups(self, text: str, kind: str) -> tuple[DependencyGroup, ...]:
        """Return the parts of a requirement that are satisfied separately; none for a plain one."""
        ...

    def is_satisfied(self, text: str, offer: Offer) -> bool:
        """Return whether a package that satisfies a requirement for libsolv does so for the package manager.

        `text` is the requirement as libsolv printed it.
        """
        ...

    def native(self, text: str) -> str:
        """Return a requirement that libsolv printed as the package manager writes it."""
        ...


class Offer(Protocol):
    """A package of a repository: what a requirement is compared with."""

    @property
    def name(self) -> str:
        """The name of the package."""
        ...

    @property
    def version(self) -> str:
        """The version of the package."""
        ...

    @property
    def provides(self) -> Collection[str]:
        """The provisions as libsolv prints them; its own name may be among them."""
        ...


class PoolIndex(Protocol):
    """The part of a pool that a format needs to parse a whitelist."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The members of each group that a repository names."""
        ...

    def provides(self, relation: Relation) -> bool:
        """Return whether any package satisfies `relation`."""
        ...
