"""What the universe asks of a kind of repository: each is a module of this package."""

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
class Loaded:
    """One repository in libsolv's pool.

    `essential` are names of packages that no system is complete without, `preferred` those that are taken
    before others where any of several would do; `groups` are names that stand for several packages.
    `contents` gives the paths of packages by their keys; None where there are no lists.
    `downloads` gives the sizes of their files in bytes, where libsolv has not read them. `extend` reads more
    file names into the pool, which is wanted where paths that packages require (`required`) are not `listed`.
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


class Kind(Protocol):
    """One kind of repository and the rules of its package manager."""

    @property
    def family(self) -> str:
        """The key of `[packages]` in a whitelist."""
        ...

    @property
    def disttype(self) -> str:
        """The name of libsolv's constant for the order of versions, and all else that differs."""
        ...

    @property
    def everywhere(self) -> str:
        """The architecture of packages for every one."""
        ...

    @property
    def multilib(self) -> bool:
        """Whether packages of one name and two architectures can be installed together."""
        ...

    @property
    def fields(self) -> tuple[str, str]:
        """The package manager's words for a requirement, and for one that is met before all else."""
        ...

    def architecture(self, machine: str) -> str:
        """The package manager's word for a `machine` as uname(2) calls it; other words stay."""
        ...

    def load(
        self, solv: Any, pool: Any, path: str, architecture: str, *, contents: bool
    ) -> tuple[Loaded, ...]:
        """Read what is at `path` into the pool. Raises `DatabaseError`."""
        ...

    def parse(self, text: str, names: Names) -> tuple[DependencyGroup, ...]:
        """Read one whitelist entry. Raises `ValueError`."""
        ...

    def base(self, loaded: Collection[Loaded]) -> tuple[tuple[str, ...], ...]:
        """The base set: of each tuple of names one package."""
        ...

    def alternatives(self, text: str) -> tuple[str, ...]:
        """The names in a requirement as libsolv prints it, the preferred one first."""
        ...

    def clauses(self, text: str) -> tuple[Relation, ...]:
        """Those parts of a requirement of libsolv's that have answers of their own; none for a plain one."""
        ...

    def is_answered(self, text: str, provides: Collection[str]) -> bool:
        """Whether what libsolv takes for an answer of a requirement is one to the package manager.

        `provides` are the provides of a package that has not the name that is asked for.
        """
        ...

    def shown(self, text: str) -> str:
        """A requirement that libsolv printed, as the package manager writes it."""
        ...


class Names(Protocol):
    """What a kind asks of the universe to read a whitelist."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """The members of each group that a repository names."""
        ...

    def provides(self, relation: Relation) -> bool:
        """Whether any package satisfies `relation`."""
        ...
