"""The data types of the pipeline, all frozen, in the order in which it makes them.

    Rule, Policy -> Package, Dependency, Closure -> FileEntry, FileSet -> Manifest

Paths of the host are `bytes`, absolute and normal: no `.`, no `..`, no double or final slash. They may
contain any byte but NUL. `text_path` converts them to text, and `raw_path` back.

This module contains no logic.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from pkgjail.core.text import is_visible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from typing_extensions import TypeAlias, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """Stand in for PEP 681's decorator, which only type checkers read."""
        return lambda decorator: decorator


T = TypeVar("T")

FileKind = Literal["regular", "directory", "symlink"]
"""The kind of a name in a jail."""

Origin = Literal["package", "conffile", "alternative", "generated", "entry", "include", "parent"]
"""The reason why a name is in a file set: the list of a package, a configuration file, a link of
update-alternatives(1), a file that the host generated, a file made at entry, a whitelist's line, or a
directory that holds such names."""

MissingReason = Literal["absent", "private", "special"]
"""Why a listed path cannot be in a jail: see `Missing`."""

StrategyName = Literal["tree", "mask", "whole", "binds"]
"""The way to show a top directory: data overlay, whiteout overlay, directory binds, file binds."""

PlanOption = Literal["auto", "tree", "mask", "whole", "binds"]
"""A strategy by name, or the first one that this host can use."""

Verify: TypeAlias = Literal["", "all", "hash"]
"""The extent of the comparison of the host with a manifest: see `JailOptions`."""

# Keyword-only and slotted dataclasses came with Python 3.10; on 3.9 they are frozen alone.
_MOST_SHOWN = 3  # items of a tuple in a short `repr`
_OPTIONS: dict[str, bool] = {"kw_only": True, "slots": True} if sys.version_info >= (3, 10) else {}


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass that is constructed by keywords. It does not validate."""
    return dataclass(frozen=True, **_OPTIONS)(cls)


def short_repr(instance: Any) -> str:
    """Return the `repr` of a record that may have thousands of items: a number in the place of each tuple."""
    shown = []
    for each in fields(instance):
        value = getattr(instance, each.name)
        is_long = isinstance(value, (tuple, dict)) and len(value) > _MOST_SHOWN
        shown.append(f"{each.name}={f'<{len(value):,} items>' if is_long else repr(value)}")
    return f"{type(instance).__name__}({', '.join(shown)})"


def is_word(text: str) -> bool:
    """Return whether a text can be the name of a package: visible characters without a blank."""
    return is_visible(text) and " " not in text


# --- policy ---------------------------------------------------------------------------------


@record
class Rule:
    """A pattern of paths in a policy file, and its origin: `spack.toml:7`, never with a directory.

    `shipped` distinguishes pkgjail's own lists, which are for every host, from those of users.
    """

    pattern: str
    origin: str
    shipped: bool = False


@record
class Requirement:
    """One entry of a whitelist that requires packages, and where it stands.

    `text` is as written, with white space folded; `groups` is what the package database made of it.
    """

    text: str
    origin: str
    groups: tuple[DependencyGroup, ...]


@record
class Policy:
    """The packages and files that may be in a jail, for one family of distributions.

    `packages` are the whitelists' requirements; `includes` are patterns of unowned files; `drops` are the
    blacklists' patterns in order, of which the last that matches a path decides; `devices` are patterns of
    devices; `owners` are patterns of files (`pkgjail.core.globs`) whose packages are required. With
    `package_database`, a package manager in the jail finds a package database of exactly the jail's packages.
    """

    whitelists: tuple[str, ...]
    blacklists: tuple[str, ...]
    packages: tuple[Requirement, ...]
    includes: tuple[Rule, ...] = ()
    drops: tuple[Rule, ...] = ()
    devices: tuple[Rule, ...] = ()
    owners: tuple[Rule, ...] = ()
    recommends: bool = False
    essential: bool = True
    package_database: bool = True


# --- the package database -------------------------------------------------------------------


@record
class Distribution:
    """A distribution by the `ID` and `VERSION_ID` of os-release(5); the version is "" for a rolling one.

    `family` is that of its package database, or "" if it follows from `id`: see `core.families`.
    """

    id: str
    version: str
    family: str = ""


@record
class Relation:
    """One member of a requirement's or-group, or its only one: `name[:architecture] [(operator version)]`.

    `architecture` is "" if none is given. `operator` is "" or one of `<< <= = >= >>`; each backend
    converts the operators of its package manager.
    """

    name: str
    architecture: str = ""
    operator: str = ""
    version: str = ""


@record
class DependencyGroup:
    """One requirement, which any of its `alternatives` satisfies (an or-group). The preferred one is first.

    `kind` is the field of the package's record in the distribution's own word ("Depends", "Recommends").
    `text` is the requirement as written there, with white space folded. It applies only if a package of
    the closure satisfies each of `conditions` (rpm's `(a if b)`).
    """

    kind: str
    alternatives: tuple[Relation, ...]
    text: str
    conditions: tuple[Relation, ...] = ()


@record
class Package:
    """One package. `key` is unique in a database.

    `size` is the installed size in bytes that the package manager recorded, or 0 if it recorded none.
    """

    name: str
    version: str
    architecture: str
    essential: bool = False
    protected: bool = False
    size: int = 0

    @property
    def key(self) -> str:
        """Return `name:architecture`, the name of this package in graphs and manifests."""
        return f"{self.name}:{self.architecture}"

    @property
    def order(self) -> tuple[str, str]:
        """Return name and architecture, by which packages are ordered if the first of several counts.

        The order of the keys is another one: `a-b:x` is before `a:x`, and so is `a1:x`.
        """
        return (self.name, self.architecture)


def in_order(packages: Mapping[str, Package]) -> dict[str, Package]:
    """Return `packages`, which have any keys, in the order of `Package.order`."""
    return dict(sorted(packages.items(), key=lambda item: item[1].order))


@record
class AlternativeChoice:
    """One candidate of an alternatives group, with `targets` in the order of the group's links.

    A target is `b""` if the candidate has none for that slave link.
    """

    priority: int
    targets: tuple[bytes, ...]


@record
class AlternativeGroup:
    """A link group of update-alternatives(1).

    `links` pairs each link's path (`/usr/bin/awk`) with the administrative link that it points to
    (`/etc/alternatives/awk`), the master first, then its slaves.
    """

    name: str
    links: tuple[tuple[bytes, bytes], ...]
    choices: tuple[AlternativeChoice, ...]


@record
class Generated:
    """One line of a backend's list of generated files, which no package lists but a package needs.

    `pattern` is an absolute path or a glob(3) pattern. The files are taken if the package named `package`
    is in the closure, or always if it is "". `made_by` names what makes them. With `at_entry` the file is
    made when a jail is entered, and the manifest has only its name; otherwise it is a file of the host,
    recorded with its digest.
    """

    pattern: str
    package: str
    made_by: str
    at_entry: bool = False


@record
class DatabaseFile:
    """One file of a package database that describes only some of the host's packages.

    `package` is the key of the package that it belongs to, and `manager` the program that wrote it. Either
    it is the host's file about that package, or with `at_entry`, it is made when a jail is entered. With an
    `obstacle`, the reason, it cannot be made.
    """

    path: bytes
    package: str
    manager: str
    at_entry: bool = False
    obstacle: str = ""


class PackageNames(Protocol):
    """The packages that a whitelist can name: those of a system, or of repositories."""

    @property
    def family(self) -> str:
        """The key of `[packages]` in a whitelist for these packages ("debian")."""
        ...

    @property
    def architecture(self) -> str:
        """Return the native architecture, in the package manager's word ("amd64")."""
        ...

    @property
    def packages(self) -> Mapping[str, Package]:
        """Every available package by its `key`, in the order of names and architectures (`Package.order`)."""
        ...

    def parse(self, text: str) -> tuple[DependencyGroup, ...]:
        """Parse one whitelist entry in the family's syntax (kind "whitelist"). Raises `ValueError`.

        The result is one requirement, or several if the family has a name for them (pacman's groups).
        """
        ...

    def candidates(self, relation: Relation, architecture: str) -> tuple[Package, ...]:
        """Return the packages that satisfy `relation` for a package of `architecture`.

        Packages of that very name come first (those of the same architecture, then by architecture),
        followed by those that provide it, by name. If names include no architecture (rpm), providers of
        the same architecture also come before the others.
        """
        ...

    def unmet_reason(self, relation: Relation, architecture: str) -> str:
        """Say why `candidates` is empty, and what to do: for a message, without a full stop."""
        ...

    def available_names(self) -> Collection[str]:
        """Return names of packages that are not there and could be; empty if that is not known.

        For advice alone: they come from what a package manager has fetched at some time.
        """
        ...


class PackageDatabase(PackageNames, Protocol):
    """The installed state of one root as its package manager recorded it, read once.

    `packages` are those that are fully installed. An implementation never changes visibly: two calls
    return the same. All methods raise `DatabaseError` if a record cannot be read.
    """

    @property
    def backend(self) -> str:
        """The name of the backend ("apt", "dpkg"). It is not part of a manifest."""
        ...

    @property
    def distribution(self) -> Distribution:
        """Return the distribution of the root, from its os-release file."""
        ...

    def requirements(self, package: Package, *, recommends: bool) -> tuple[DependencyGroup, ...]:
        """Return the requirements of `package` in the order of its record, with its names of fields."""
        ...

    def owned_paths(self, package: Package) -> tuple[bytes, ...]:
        """Return the paths that the package's record lists: as recorded, unless a diversion moved them."""
        ...

    def owners(self, paths: Collection[bytes]) -> Mapping[bytes, str]:
        """Return the key of a package for each of `paths` that is among its `owned_paths`."""
        ...

    def available_with(self, path: bytes) -> tuple[str, ...]:
        """Return packages of `available_names` that have an absolute path, or any path of this last name.

        For advice alone, as `available_names`; empty if that is not known.
        """
        ...

    def conffiles(self, package: Package) -> frozenset[bytes]:
        """Return those of `owned_paths` whose content the administrator may have changed."""
        ...

    def digests(self, package: Package) -> Mapping[bytes, str]:
        """Return the recorded digests of the contents of `owned_paths`, without conffiles.

        A value is `ALGORITHM:HEX`, with the algorithm's name as in hashlib. If the package manager
        recorded none, the result is empty.
        """
        ...

    def alternatives(self) -> tuple[AlternativeGroup, ...]:
        """Return every alternatives group of the root, by name."""
        ...

    def generated(self) -> tuple[Generated, ...]:
        """Return the allow-list of generated files that no package owns."""
        ...

    def script_words(self, package: Package) -> frozenset[bytes]:
        """Return the words, such as names of files, in the scripts that are run for a package."""
        ...

    def database_files(self, packages: Collection[Package]) -> tuple[DatabaseFile, ...]:
        """Return the files of a package database of exactly these packages.

        Empty if the package manager, which would read them, is not among the packages.
        """
        ...


# --- closure --------------------------------------------------------------------------------


@record
class Dependency:
    """An edge of the closure: `source` (a package's key, a rule's origin, or "essential") requires `target`.

    `target` is the key of the package that satisfies the requirement, `kind` its field, `text` its text.
    """

    source: str
    target: str
    kind: str
    text: str


@record
class Unmet:
    """A requirement that no installed package satisfies."""

    source: str
    kind: str
    text: str
    reason: str


@record
class Closure:
    """The packages that a policy requires, and everything that they require in turn.

    `packages` and `dependencies` are sorted. `reasons` has, for the key of each package, the last edge
    of the shortest chain from a whitelist's line (or "essential") to it.
    """

    def __repr__(self) -> str:
        return short_repr(self)

    packages: tuple[Package, ...]
    dependencies: tuple[Dependency, ...]
    reasons: Mapping[str, Dependency]
    unmet: tuple[Unmet, ...] = ()

    def why(self, key: str) -> tuple[Dependency, ...]:
        """Return the shortest chain of edges from a rule to the package `key`, the rule's edge first.

        Raises `KeyError` if the package is not in the closure.
        """
        chain = [self.reasons[key]]
        while chain[-1].source in self.reasons:
            chain.append(self.reasons[chain[-1].source])
        return tuple(reversed(chain))


# --- files ----------------------------------------------------------------------------------


class FileEntry(NamedTuple):
    """One name in the jail.

    `mode` has the permission bits (0o7777; 0o777 for a symlink), `size` the bytes of a regular file,
    `target` the text of a symlink, `sha256` the digest of a regular file in hex. `size` and `sha256` are
    None for a file made at entry; `sha256` is also None for a file that others may not read, whoever makes
    the manifest. `detail` adds to `origin` (the group, the program that made it, the rule).

    This is a tuple and not a `record`: there are tens of thousands of them, and a tuple is made in a third
    of the time.
    """

    path: bytes
    kind: FileKind
    mode: int
    size: int | None = None
    target: bytes | None = None
    sha256: str | None = None
    owners: tuple[str, ...] = ()
    origin: Origin = "package"
    detail: str = ""


@record
class Dropped:
    """A path that the policy would have included, and the blacklist's `rule` that dropped it."""

    path: bytes
    rule: str


@record
class Missing:
    """A path that a package lists and that cannot be in the jail.

    `reason` is "absent" (not on the disk), "private" (below a directory that others may not search) or
    "special" (neither a regular file, nor a directory, nor a symlink).
    """

    path: bytes
    reason: MissingReason
    owners: tuple[str, ...] = ()


@record
class FileSet:
    """The names in the jail, and what was left out; each tuple is sorted by path."""

    def __repr__(self) -> str:
        return short_repr(self)

    entries: tuple[FileEntry, ...]
    dropped: tuple[Dropped, ...] = ()
    missing: tuple[Missing, ...] = ()


# --- manifest -------------------------------------------------------------------------------


@record
class Header:
    """The manifest's first record: which policy was resolved, and on which distribution.

    `source` is what is recorded of the source (`pkgjail.core.sources`): "" for the host, "directory", or
    `image:` and the digest of an image.
    """

    schema: int
    distribution: Distribution
    architecture: str
    policy: str
    whitelists: tuple[str, ...]
    blacklists: tuple[str, ...]
    recommends: bool
    essential: bool
    source: str = ""


@record
class DevicePattern:
    """A pattern of devices that the jail shows, and the line of a whitelist that allows it."""

    pattern: str
    rule: str


@record
class Manifest:
    """The complete description of a jail, for people to review and for `run` to enter."""

    def __repr__(self) -> str:
        return short_repr(self)

    header: Header
    packages: tuple[Package, ...]
    dependencies: tuple[Dependency, ...]
    files: tuple[FileEntry, ...]
    dropped: tuple[Dropped, ...] = ()
    missing: tuple[Missing, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    devices: tuple[DevicePattern, ...] = ()


# --- package plans ----------------------------------------------------------------------


@record
class Repository:
    """Metadata that a plan was made from: its name, without a directory, and the digest of its content."""

    name: str
    sha256: str


@record
class PlannedPackage:
    """A package that would be installed from `repository`; `download` is the size of its file in bytes.

    `files` are the paths in the repository's file list; None if it has no list, or none was requested.
    """

    package: Package
    repository: str
    download: int = 0
    files: tuple[bytes, ...] | None = None


@record
class PackagePlan:
    """The closure that a policy would have with packages of a distribution's repositories.

    It is not a `Manifest`. `dropped` counts the paths that blacklists removed from the packages' `files`.
    """

    def __repr__(self) -> str:
        return short_repr(self)

    family: str
    architecture: str
    policy: str
    whitelists: tuple[str, ...]
    blacklists: tuple[str, ...]
    recommends: bool
    essential: bool
    repositories: tuple[Repository, ...]
    packages: tuple[PlannedPackage, ...]
    dependencies: tuple[Dependency, ...]
    reasons: Mapping[str, Dependency]
    dropped: int = 0
