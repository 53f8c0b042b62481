"""Find the installed packages that satisfy a requirement, by dpkg's rules (its lib/dpkg/depcon.c)."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from pkgjail.backends.debian.relations import ARCHITECTURE, is_version, parse_alternative, parse_group
from pkgjail.backends.debian.status import GONE
from pkgjail.core.model import record
from pkgjail.core.text import text_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pkgjail.backends.debian.root import Root
    from pkgjail.backends.debian.status import Installation
    from pkgjail.core.model import DependencyGroup, Package, Relation

_T = TypeVar("_T")


@record
class Provision:
    """A virtual package of `provider`; `architecture` and `version` are "" if the field names none."""

    provider: Installation
    architecture: str
    version: str


class Installed:
    """The packages in the status file by name, by key, and by the names that they provide."""

    def __init__(
        self, root: Root, installations: Iterable[Installation], compare: Callable[[str, str], int]
    ) -> None:
        """Index `installations`; `compare` is a reader's. Raises `DatabaseError` for a bad Provides."""
        self._root = root
        self._compare = compare
        self.by_name: dict[str, list[Installation]] = {}
        complete: dict[str, Installation] = {}
        for one in installations:
            self.by_name.setdefault(one.package.name, []).append(one)
            if one.complete:
                complete[one.package.key] = one
        self.complete = dict(sorted(complete.items(), key=lambda item: item[1].package.order))
        self.providers: dict[str, list[Provision]] = {}
        for one in self.complete.values():
            for name, provision in self._provides(one):
                self.providers.setdefault(name, []).append(provision)

    @cached_property
    def architecture(self) -> str:
        """The architecture of the package `dpkg`, otherwise the first line of dpkg's `arch` file.

        dpkg itself has the native architecture built in: it is that of its package. The file is written
        by `dpkg --add-architecture`, with the native one first.
        """
        for one in self.by_name.get("dpkg", ()):
            if one.state not in GONE:
                return one.package.architecture
        path = self._root.admin(b"arch")
        first = text_path(self._root.read(path, missing=b"").partition(b"\n")[0])
        if ARCHITECTURE.fullmatch(first) is None:
            raise self._root.error(
                "the native architecture is unknown: the package 'dpkg' is not installed, and "
                f"{text_path(path)} does not name one",
                "install dpkg there, or write the architecture into that file",
            )
        return first

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return Pre-Depends and Depends, and with `recommends` Recommends, in the order of the stanza."""
        fields = self.complete[package.key].fields
        included = ("Pre-Depends", "Depends", "Recommends") if recommends else ("Pre-Depends", "Depends")
        return tuple(
            self._field(package, kind, partial(parse_group, kind=kind, lenient=True), entry)
            for kind, value in fields.items()
            if kind in included and value
            for entry in value.split(",")
        )

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation`, by dpkg's rules for architectures and provisions."""
        named = [
            one.package
            for one in self.installed(relation.name)
            if self.suits(one, one.package.architecture, relation, architecture)
            and self._satisfies(one.package.version, relation)
        ]
        asker = self.native(architecture)
        named.sort(key=lambda package: (self.native(package.architecture) != asker, package.architecture))
        provided = [
            provision.provider.package
            for provision in self.providers.get(relation.name, ())
            if self.suits(
                provision.provider,
                provision.architecture or provision.provider.package.architecture,
                relation,
                architecture,
            )
            and self._satisfies(provision.version, relation)
        ]
        return tuple(dict.fromkeys((*named, *provided)))

    def installed(self, name: str) -> list[Installation]:
        """Return the fully installed packages of that very name, one for each architecture."""
        return [one for one in self.by_name.get(name, ()) if one.complete]

    def native(self, architecture: str) -> str:
        """Return an architecture, the native one for packages that are for all architectures."""
        return self.architecture if architecture == "all" else architecture

    def suits(self, one: Installation, architecture: str, relation: Relation, asker: str) -> bool:
        """Return whether `one`, considered as of `architecture`, has an architecture that suits `relation`.

        `architecture` is its own, or the one that a Provides entry names. A package with `Multi-Arch:
        foreign` suits every relation without an architecture; only `allowed` suits `:any`.
        """
        if not relation.architecture and one.multi_arch == "foreign":
            return True
        if relation.architecture == "any":
            return one.multi_arch == "allowed"
        return self.native(architecture) == self.native(relation.architecture or asker)

    def _satisfies(self, version: str, relation: Relation) -> bool:
        """Return whether `version` ("" for a Provides without one) satisfies `relation` (Policy 7.5)."""
        if not relation.operator or not version:
            return not relation.operator
        if not is_version(version):
            raise self._root.error(
                f"the version {version!r} of what is {relation.name!r} is not one by deb-version(7)",
                "install another version of it",
            )
        order = self._compare(version, relation.version)
        return {"<<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">>": order > 0}[
            relation.operator
        ]

    def _provides(self, one: Installation) -> Iterator[tuple[str, Provision]]:
        """The virtual packages of `one` by name. dpkg ignores operators other than `=` there."""
        value = one.fields.get("Provides")
        for entry in value.split(",") if value else ():
            relation = self._field(one.package, "Provides", partial(parse_alternative, lenient=True), entry)
            if relation.operator in {"", "="}:
                yield (
                    relation.name,
                    Provision(provider=one, architecture=relation.architecture, version=relation.version),
                )

    def _field(self, package: Package, field: str, parse: Callable[[str], _T], text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise self._root.error(
                f"the field {field} of the package {package.key}: {error}",
                f"install another version of it, or correct {text_path(self._root.admin())}/status",
            ) from error
