"""Find the installed packages that satisfy a requirement, by rpm's rules (its lib/depends.c)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.query import capabilities, files, quoted, requirements
from pkgjail.backends.rpm.versions import EQUAL, OPERATORS, compare, overlaps
from pkgjail.core.model import Package, Relation, in_order
from pkgjail.core.text import raw_path
from pkgjail.core.untrusted import parsing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.query import Header
    from pkgjail.core.model import DependencyGroup

# States of a file (RPMFILE_STATE_*) that is not on the disk, or not from this package: not installed, and
# wrong color, if the file is from a package of another architecture.
_ELSEWHERE = frozenset({2, 4})
# Flags of a requirement (RPMSENSE_*) that say when it applies; plain "Requires" is for running.
_WHEN = frozenset({
    "pre", "post", "preun", "postun", "pretrans", "posttrans", "preuntrans", "postuntrans", "verify",
})  # fmt: skip
ARCHITECTURES = frozenset({
    "aarch64", "armv7hl", "armv6hl", "i386", "i486", "i586", "i686", "athlon", "loongarch64", "noarch",
    "ppc64", "ppc64le", "riscv64", "s390", "s390x", "x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4",
})  # fmt: skip


class Provision(NamedTuple):
    """A capability that a package provides: the bits of its version range, and the version."""

    package: Package
    flags: int
    version: str


class Installed:
    """The packages that one call of rpm printed, by key, by the names that they provide, and by file."""

    def __init__(self, root: Root, headers: Iterable[Header], protected: Collection[str]) -> None:
        """Index the packages. Of one that is installed more than once (kernels), the newest counts.

        `protected` are names of packages that the package manager does not remove; they are essential too.
        """
        self._root = root
        self.headers: dict[str, Header] = {}
        for header in headers:
            key, before = _key(header), self.headers.get(_key(header))
            # Imported keys look like packages without an architecture, and have no files.
            if header.architecture and (before is None or compare(before.evr, header.evr) < 0):
                self.headers[key] = header
        counts = Counter(header.architecture for header in self.headers.values())
        del counts["noarch"]
        self.architecture = min(counts, key=lambda name: (-counts[name], name), default="noarch")
        self.packages: Mapping[str, Package] = in_order(
            {key: self._package(header, protected) for key, header in self.headers.items()}
        )
        self.providers: dict[str, list[Provision]] = {}
        for key, package in self.packages.items():
            self._provide(package, self.headers[key])
        self._keys = list(self.packages)
        self._ends = list(accumulate(len(self.headers[key].files) for key in self._keys))
        self._files = b"".join(self.headers[key].files for key in self._keys)
        self._places: dict[bytes, bytes] = {}
        self._file_lists: dict[str, list[tuple[int, bytes]]] = {}
        self.candidates = lru_cache(maxsize=None)(self._candidates)

    def _reading(self, key: str) -> AbstractContextManager[None]:
        """A context for parsing what rpm printed about a package."""
        return parsing(
            lambda why: self._root.error(
                f"what rpm printed about {key}: {why}", "try 'rpmdb --rebuilddb' there"
            )
        )

    def _package(self, header: Header, protected: Collection[str]) -> Package:
        is_base = header.name in BASE or header.name in protected
        return Package(
            name=header.name,
            version=header.evr,
            architecture=header.architecture,
            essential=is_base and self.native(header.architecture) == self.architecture,
            protected=header.name in protected,
            size=header.size,
        )

    def _provide(self, package: Package, header: Header) -> None:
        """Note what a package provides; its name in its version is always included."""
        own = Provision(package, EQUAL, header.evr)
        self.providers.setdefault(package.name, []).append(own)
        with self._reading(package.key):
            provided = list(capabilities(header.provides))
        for flags, name, version in provided:
            if name != package.name or version != header.evr:
                self.providers.setdefault(name, []).append(Provision(package, flags, version))

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return Requires, and with `recommends` Recommends, without features that rpm itself must have."""
        header = self.headers[package.key]
        with self._reading(package.key):
            found = [(one, _kind(one[1])) for one in requirements(header.requires)]
            if recommends:
                found += [(one, "Recommends") for one in requirements(header.recommends)]
        unique: dict[DependencyGroup, None] = {}
        for (flags, _, name, version), kind in found:
            if name.startswith("rpmlib("):
                continue
            for group in self._groups(package, name, _operator(flags) if version else "", version, kind):
                unique[group] = None
        return tuple(unique)

    def _groups(
        self, package: Package, name: str, operator: str, version: str, kind: str
    ) -> tuple[DependencyGroup, ...]:
        if not boolean.is_rich(name):
            relation = Relation(name=name, operator=operator, version=version)
            return (boolean.plain_group(relation, kind),)
        try:
            return boolean.groups(name, kind)
        except ValueError as error:
            raise self._root.error(
                f"the package {package.key} {kind.lower()} {name!r}: {error}", "install another version of it"
            ) from error

    def _candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Packages that satisfy `relation`: that very name first, the same architecture before others."""
        if boolean.is_rich(relation.name):
            found = self._rich_candidates(relation.name, architecture)
        else:
            found = self._plain_candidates(relation)
        asker = self.native(architecture)
        name = relation.name

        def rank(package: Package) -> tuple[bool, bool, tuple[str, str]]:
            other = self.native(package.architecture) != asker
            return package.name != name, other, package.order

        required = relation.architecture
        suiting = [
            one for one in found if not required or self.native(one.architecture) == self.native(required)
        ]
        if boolean.is_rich(name):
            return tuple(suiting)
        return tuple(sorted(suiting, key=rank))

    def _plain_candidates(self, relation: Relation) -> list[Package]:
        flags = OPERATORS[relation.operator]
        found = [
            one.package
            for one in self.providers.get(relation.name, ())
            if overlaps(one.version, one.flags, relation.version, flags)
        ]
        if relation.name.startswith("/") and not relation.operator:
            found += [self.packages[key] for key in self.owners_of_file(raw_path(relation.name))]
        return list(dict.fromkeys(found))

    def _rich_candidates(self, text: str, architecture: str) -> list[Package]:
        """For `or`, all packages of its operands in order; for `with` and `without`, those that remain."""
        node = boolean.parse(text)
        assert isinstance(node, boolean.Operation)  # noqa: S101 - it starts with "("
        sets = [
            self.candidates(
                one if isinstance(one, Relation) else Relation(name=boolean.show(one)), architecture
            )
            for one in node.operands
        ]
        if node.operator == "with":
            return [one for one in sets[0] if all(one in other for other in sets[1:])]
        if node.operator == "without":
            return [one for one in sets[0] if not any(one in other for other in sets[1:])]
        return list(dict.fromkeys(one for part in sets for one in part))

    def owners_of_file(self, path: bytes) -> list[str]:
        """Return the keys of the packages that installed `path`, which may go through links of the root.

        As rpm does, this compares files with the same last name: their directories must be the same after
        links are followed. The text of all lists is searched, because few requirements are paths.
        """
        directory, _, name = path.rpartition(b"/")
        place = self._place(directory)
        return [
            key for key, listed in self._of_name(name) if self._place(listed.rpartition(b"/")[0]) == place
        ]

    def _place(self, directory: bytes) -> bytes:
        if directory not in self._places:
            self._places[directory] = self._root.inside(directory or b"/")
        return self._places[directory]

    def _of_name(self, name: bytes) -> Iterator[tuple[str, bytes]]:
        """The paths in all lists with the last name `name`, each with the key of its package."""
        token = b"/" + quoted(name)[1:]
        at = self._files.find(token)
        while at >= 0:
            key = self._keys[bisect_right(self._ends, at)]
            # A string has no quote inside, so the last one before is its start.
            start = self._files.rfind(b"'", 0, at) + 1
            path = self._files[start : at + len(token)].partition(b"'")[0].replace(b"\0", b"'")
            if any(path == listed for _, listed in self.files(self.packages[key])):
                yield key, path
            at = self._files.find(token, at + 1)

    def files(self, package: Package) -> list[tuple[int, bytes]]:
        """Return the flags and path of each file that the package installed."""
        key = package.key
        if key not in self._file_lists:
            with self._reading(key):
                found = files(self.headers[key].files)
                self._file_lists[key] = [
                    (flags, name) for flags, state, name in found if state not in _ELSEWHERE
                ]
        return self._file_lists[key]

    def native(self, architecture: str) -> str:
        """Return an architecture, the native one for packages that are for all architectures."""
        return self.architecture if architecture == "noarch" else architecture

    def whitelisted(self, text: str) -> tuple[str, str]:
        """Split `name.arch` of a whitelist; (text, "") if that whole name is provided or names none."""
        name, dot, architecture = text.rpartition(".")
        known = {package.architecture for package in self.packages.values()} | ARCHITECTURES
        if not dot or text in self.providers or architecture not in known:
            return text, ""
        return name, architecture


BASE = frozenset({
    "setup", "filesystem", "basesystem", "glibc", "bash", "coreutils", "coreutils-single", "aaa_base",
})  # fmt: skip
"""Packages without which nothing runs. With those in protected.d, they correspond to Debian's Essential.

The last is openSUSE's.
"""


def _key(header: Header) -> str:
    return f"{header.name}:{header.architecture}"


def _operator(flags: int) -> str:
    """Return the bits of a range as an operator; "" if there are none."""
    return next((operator for operator, bits in OPERATORS.items() if bits == flags & 14), "")


def _kind(words: str) -> str:
    """Return `Requires`, or `Requires(pre,post)` for requirements of a package's scripts."""
    when = [word for word in words.split(",") if word in _WHEN]
    return f"Requires({','.join(when)})" if when else "Requires"
