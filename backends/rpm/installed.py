"""The installed packages, and which of them satisfy a requirement: rpm's own rules (its lib/depends.c)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.backends.rpm import boolean
from pkgjail.backends.rpm.query import capabilities, files, quoted, requirements
from pkgjail.backends.rpm.versions import EQUAL, OPERATORS, compare, overlaps
from pkgjail.core.model import Package, Relation, raw_path
from pkgjail.core.untrusted import parsing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pkgjail.backends.root import Root
    from pkgjail.backends.rpm.query import Header
    from pkgjail.core.model import DependencyGroup

# States of a file (RPMFILE_STATE_*) in which it is not on the disk, or not from this package: not
# installed, and of the wrong color, where a package of another architecture has brought it.
_ELSEWHERE = frozenset({2, 4})
# Flags of a requirement (RPMSENSE_*) that say when it is asked; "Requires" alone is for running.
_WHEN = frozenset({
    "pre", "post", "preun", "postun", "pretrans", "posttrans", "preuntrans", "postuntrans", "verify",
})  # fmt: skip
ARCHITECTURES = frozenset({
    "aarch64", "armv7hl", "armv6hl", "i386", "i486", "i586", "i686", "athlon", "loongarch64", "noarch",
    "ppc64", "ppc64le", "riscv64", "s390", "s390x", "x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4",
})  # fmt: skip


class Provision(NamedTuple):
    """What a package provides: the bits of its version's range, and the version."""

    package: Package
    flags: int
    version: str


class Installed:
    """What one call of rpm has told, by key, by what is provided, and by file."""

    def __init__(self, root: Root, headers: Iterable[Header], protected: Collection[str]) -> None:
        """Of packages that are installed more than once (kernels) the newest counts.

        `protected` are names of packages that the package manager will not remove: of the base set too.
        """
        self._root = root
        self.headers: dict[str, Header] = {}
        for header in headers:
            key, before = _key(header), self.headers.get(_key(header))
            # What rpm makes of imported keys has no architecture, and nothing that a jail could have.
            if header.architecture and (before is None or compare(before.evr, header.evr) < 0):
                self.headers[key] = header
        counts = Counter(header.architecture for header in self.headers.values())
        del counts["noarch"]
        self.architecture = min(counts, key=lambda name: (-counts[name], name), default="noarch")
        self.packages: Mapping[str, Package] = {
            key: self._package(header, protected) for key, header in sorted(self.headers.items())
        }
        self.providers: dict[str, list[Provision]] = {}
        for key, package in self.packages.items():
            self._provide(package, self.headers[key])
        self._keys = list(self.packages)
        self._ends = list(accumulate(len(self.headers[key].files) for key in self._keys))
        self._files = b"".join(self.headers[key].files for key in self._keys)
        self._places: dict[bytes, bytes] = {}
        self._cut: dict[str, list[tuple[int, bytes]]] = {}
        self.candidates = lru_cache(maxsize=None)(self._candidates)

    def _reading(self, key: str) -> AbstractContextManager[None]:
        """A context in which what rpm printed of a package is read."""
        return parsing(
            lambda why: self._root.error(f"what rpm printed of {key}: {why}", "try 'rpmdb --rebuilddb' there")
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
        """Note what a package provides: its own name at its version, whether it says so or not."""
        own = Provision(package, EQUAL, header.evr)
        self.providers.setdefault(package.name, []).append(own)
        with self._reading(package.key):
            provided = list(capabilities(header.provides))
        for flags, name, version in provided:
            if name != package.name or version != header.evr:
                self.providers.setdefault(name, []).append(Provision(package, flags, version))

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Requires, and Recommends when asked for; what rpm itself must be able to do is left out."""
        header = self.headers[package.key]
        with self._reading(package.key):
            wanted = [(one, _kind(one[1])) for one in requirements(header.requires)]
            if recommends:
                wanted += [(one, "Recommends") for one in requirements(header.recommends)]
        found: dict[DependencyGroup, None] = {}
        for (flags, _, name, version), kind in wanted:
            if name.startswith("rpmlib("):
                continue
            for group in self._groups(package, name, _operator(flags) if version else "", version, kind):
                found[group] = None
        return tuple(found)

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
        """Who satisfies `relation`: those of that very name first, the asker's architecture before others."""
        if boolean.is_rich(relation.name):
            found = self._rich_candidates(relation.name, architecture)
        else:
            found = self._plain_candidates(relation)
        asker = self.native(architecture)
        name = relation.name

        def rank(package: Package) -> tuple[bool, bool, str]:
            other = self.native(package.architecture) != asker
            return package.name != name, other, package.key

        wanted = relation.architecture
        suiting = [one for one in found if not wanted or self.native(one.architecture) == self.native(wanted)]
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
        """Of `or` all, in its order; of `with` and `without` those packages that both sides leave."""
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
        """The keys of the packages that have brought `path`, by whatever way leads to it in the root.

        As rpm does it: those files of the same last name whose directories are the same once links are
        followed. They are found by a search of the text of all lists, as few requirements are paths.
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
        """The paths of all lists whose last name is `name`, each with its package's key."""
        token = b"/" + quoted(name)[1:]
        at = self._files.find(token)
        while at >= 0:
            key = self._keys[bisect_right(self._ends, at)]
            # A string holds no quote, so the last one before is its beginning.
            start = self._files.rfind(b"'", 0, at) + 1
            path = self._files[start : at + len(token)].partition(b"'")[0].replace(b"\0", b"'")
            if any(path == listed for _, listed in self.files(self.packages[key])):
                yield key, path
            at = self._files.find(token, at + 1)

    def files(self, package: Package) -> list[tuple[int, bytes]]:
        """The flags and path of each file that the package has brought."""
        key = package.key
        if key not in self._cut:
            with self._reading(key):
                found = files(self.headers[key].files)
                self._cut[key] = [(flags, name) for flags, state, name in found if state not in _ELSEWHERE]
        return self._cut[key]

    def native(self, architecture: str) -> str:
        """A package for all architectures counts as one for the native architecture."""
        return self.architecture if architecture == "noarch" else architecture

    def whitelisted(self, text: str) -> tuple[str, str]:
        """Take `name.arch` of a whitelist apart where there is nothing of the whole name; else (name, "")."""
        name, dot, architecture = text.rpartition(".")
        known = {package.architecture for package in self.packages.values()} | ARCHITECTURES
        if not dot or text in self.providers or architecture not in known:
            return text, ""
        return name, architecture


BASE = frozenset({
    "setup", "filesystem", "basesystem", "glibc", "bash", "coreutils", "coreutils-single", "aaa_base",
})  # fmt: skip
"""Without these nothing runs: with what protected.d names, the counterpart of Debian's Essential.

The last is openSUSE's.
"""


def _key(header: Header) -> str:
    return f"{header.name}:{header.architecture}"


def _operator(flags: int) -> str:
    """The bits of a range as an operator; "" for none."""
    return next((operator for operator, bits in OPERATORS.items() if bits == flags & 14), "")


def _kind(words: str) -> str:
    """`Requires`, or `Requires(pre,post)` for what only a package's scripts ask for."""
    when = [word for word in words.split(",") if word in _WHEN]
    return f"Requires({','.join(when)})" if when else "Requires"
