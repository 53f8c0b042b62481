"""A package database in memory: the Protocol of model.py for tests, from a few lines of text.

    gcc 12.2 amd64
     Depends: libc6 (>= 2.36), cpp | c-preprocessor
     Recommends: libc6-dev
     Provides: c-compiler, cc (= 12)
     Multi-Arch: foreign
     /usr/bin/gcc
     conffile /etc/gcc.conf
    base-files 12 amd64 essential

A line at the margin is a package: name, version, architecture, then any of `essential` and
`protected`, and `size=BYTES`. An indented line is one of its fields, or a path that it owns. Blank
lines and lines that start with `#` mean nothing. Versions compare by their numbers and letters
from left to right, which is all that tests need.
"""

from __future__ import annotations

import re
from dataclasses import field
from textwrap import dedent
from typing import TYPE_CHECKING

from pkgjail.backends.rpm import boolean
from pkgjail.core.model import (
    AlternativeGroup,
    DatabaseFile,
    DependencyGroup,
    Distribution,
    Generated,
    Package,
    Relation,
    record,
)
from pkgjail.core.text import raw_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_RELATION = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)(?::(?P<architecture>[a-z0-9-]+))?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>)\s*(?P<version>[^\s()]+)\s*\))?"
)
_REQUIREMENTS = ("Pre-Depends", "Depends", "Recommends")


def version_key(version: str) -> list[tuple[int, str]]:
    """Return `1.10a` as a list that sorts after `1.9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|[a-z~]+", version)]


def parse_relation(text: str) -> Relation:
    """Parse one alternative. Raises `ValueError`."""
    match = _RELATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} is not name[:architecture] [(operator version)]")
    return Relation(**match.groupdict(default=""))


def parse_group(text: str, kind: str) -> DependencyGroup:
    """Parse one requirement with its alternatives. Raises `ValueError`."""
    alternatives = tuple(map(parse_relation, text.split("|")))
    return DependencyGroup(kind=kind, alternatives=alternatives, text=" ".join(text.split()))


@record
class Record:
    """One package of the text."""

    package: Package
    requirements: tuple[DependencyGroup, ...] = ()
    provides: tuple[Relation, ...] = ()
    multi_arch: str = "no"
    owned: tuple[bytes, ...] = ()
    conffiles: frozenset[bytes] = field(default_factory=frozenset)


def _record(head: str, lines: Sequence[str]) -> Record:
    name, version, architecture, *flags = head.split()
    size = next((int(flag[5:]) for flag in flags if flag.startswith("size=")), 0)
    package = Package(
        name=name,
        version=version,
        architecture=architecture,
        essential="essential" in flags,
        protected="protected" in flags,
        size=size,
    )
    conffiles = [raw_path(line[len("conffile ") :]) for line in lines if line.startswith("conffile ")]
    fields = dict(line.split(": ", 1) for line in lines if not line.startswith(("/", "conffile ")))
    provides = fields.get("Provides", "")
    return Record(
        package=package,
        requirements=tuple(
            parse_group(text, kind)
            for kind in _REQUIREMENTS
            if kind in fields
            for text in fields[kind].split(",")
        ),
        provides=tuple(map(parse_relation, provides.split(","))) if provides else (),
        multi_arch=fields.get("Multi-Arch", "no"),
        owned=(*(raw_path(line) for line in lines if line.startswith("/")), *conffiles),
        conffiles=frozenset(conffiles),
    )


def parse_records(text: str) -> dict[str, Record]:
    """Return the records of a database's text by key, sorted by name."""
    blocks: list[tuple[str, list[str]]] = []
    for line in dedent(text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            blocks[-1][1].append(line.strip())
        else:
            blocks.append((line, []))
    records = [_record(head, lines) for head, lines in blocks]
    return {each.package.key: each for each in sorted(records, key=lambda each: each.package.order)}


class MemoryDatabase:
    """A `PackageDatabase` over `Record`s. The rest is what the caller gives: `scripts` has words by name."""

    backend = "memory"

    def __init__(  # noqa: PLR0913 - all but the first have defaults
        self,
        records: Mapping[str, Record],
        *,
        family: str = "debian",
        architecture: str = "amd64",
        distribution: Distribution | None = None,
        alternatives: Sequence[AlternativeGroup] = (),
        generated: Sequence[Generated] = (),
        scripts: Mapping[str, str] | None = None,
    ) -> None:
        self.family = family
        self.architecture = architecture
        self.distribution = distribution or Distribution(id="debian", version="12")
        self.packages: Mapping[str, Package] = {key: each.package for key, each in records.items()}
        self._records = records
        self._alternatives = tuple(alternatives)
        self._generated = tuple(generated)
        self._scripts = dict(scripts or {})

    @classmethod
    def from_text(  # noqa: PLR0913 - all but the first have defaults
        cls,
        text: str,
        *,
        family: str = "debian",
        architecture: str = "amd64",
        alternatives: Sequence[AlternativeGroup] = (),
        generated: Sequence[Generated] = (),
        scripts: Mapping[str, str] | None = None,
    ) -> MemoryDatabase:
        """Parse the module's syntax. Raises `ValueError` for any other line."""
        return cls(
            parse_records(text),
            family=family,
            architecture=architecture,
            alternatives=alternatives,
            generated=generated,
            scripts=scripts,
        )

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one whitelist entry in the family's syntax: `a | b (>= 1)`, or `a | b >= 1` of rpm's."""
        if self.family in {"rhel", "suse"}:
            return boolean.entry_groups(text)
        return (parse_group(text, "whitelist"),)

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return Pre-Depends, Depends and, on request, Recommends."""
        groups = self._records[package.key].requirements
        return tuple(group for group in groups if recommends or group.kind != "Recommends")

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return packages of that name, then those that provide it."""
        asker = self.architecture if architecture == "all" else architecture
        real = [
            each.package
            for each in self._records.values()
            if each.package.name == relation.name
            and self._reaches(relation, asker, each)
            and _fits(relation, each.package.version)
        ]
        real.sort(key=lambda package: (package.architecture != asker, package.architecture))
        virtual = [
            each.package
            for each in self._records.values()
            if each.package not in real and self._reaches(relation, asker, each) and _provides(relation, each)
        ]
        return (*real, *virtual)

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Say why there is no candidate."""
        found = [package for package in self.packages.values() if package.name == relation.name]
        if not found:
            return f"{relation.name} is not installed; install it"
        have = ", ".join(f"{package.key} {package.version}" for package in found)
        wanted = relation.architecture or architecture
        asked = f" ({relation.operator} {relation.version})" if relation.operator else ""
        return f"{relation.name}{asked} for {wanted} is asked and {have} is installed"

    def available_names(self) -> Collection[str]:
        """Return no names: the metadata of repositories is not read."""
        return ()

    def available_with(self, path: bytes) -> tuple[str, ...]:
        """Return no packages: the metadata of repositories is not read."""
        del path
        return ()

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """Return the paths in the order of the text, conffiles last."""
        return self._records[package.key].owned

    def owners(self, paths: Collection[bytes]) -> dict[bytes, str]:
        """Return the first package, by name, that owns each path."""
        pairs = [(path, key) for key, each in self._records.items() for path in each.owned if path in paths]
        return dict(reversed(pairs))

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return the paths marked `conffile`."""
        return self._records[package.key].conffiles

    def digests(self, package: Package) -> dict[bytes, str]:
        """Return none."""
        del package
        return {}

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Return the argument of the constructor."""
        return self._alternatives

    def generated(self) -> tuple[Generated, ...]:
        """Return the argument of the constructor."""
        return self._generated

    def script_words(self, package: Package) -> frozenset[bytes]:
        """As `PackageDatabase.script_words`."""
        return frozenset(self._scripts.get(package.name, "").encode().split())

    def database_files(self, packages: Collection[Package]) -> tuple[DatabaseFile, ...]:
        """Return none."""
        del packages
        return ()

    def _reaches(self, relation: Relation, asker: str, each: Record) -> bool:
        """Return whether the package suits the required architecture (Debian's multi-arch rules)."""
        if relation.architecture == "any":
            return each.multi_arch == "allowed" or self._native(each) == asker
        if relation.architecture:
            return self._native(each) == relation.architecture
        return self._native(each) == asker or each.multi_arch == "foreign"

    def _native(self, each: Record) -> str:
        return self.architecture if each.package.architecture == "all" else each.package.architecture


def _provides(relation: Relation, each: Record) -> bool:
    return any(
        offer.name == relation.name
        and (not relation.operator or (bool(offer.version) and _fits(relation, offer.version)))
        for offer in each.provides
    )


def _fits(relation: Relation, version: str) -> bool:
    have, want = version_key(version), version_key(relation.version)
    return {
        "": True,
        "<<": have < want,
        "<=": have <= want,
        "=": have == want,
        ">=": have >= want,
        ">>": have > want,
    }[relation.operator]
