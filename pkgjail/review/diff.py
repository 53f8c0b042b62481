"""Compare two manifests: the differences, and what caused each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pkgjail.closure.reasons import Chains, first_new
from pkgjail.core.model import record
from pkgjail.review.causes import Aspect, Cause, Causes, PackageChangeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pkgjail.core.model import Dependency, FileEntry, Header, Manifest, Unmet

    Compare = Callable[[str, str], int]


FileChangeKind = Literal["added", "removed", "changed"]


@record
class PackageChange:
    """A package that only one of the manifests has, or that differs between them.

    `change` is "changed" if the order of the versions is unknown, or if something other than the version
    changed. A version is "" for the manifest that lacks the package. The bytes are those of the regular
    files that it lists. For an added or removed package, `because` is the first edge of its shortest chain
    that the other manifest does not have.
    """

    package: str
    change: PackageChangeKind
    old_version: str = ""
    new_version: str = ""
    old_bytes: int = 0
    new_bytes: int = 0
    because: Dependency | None = None


@record
class FileChange:
    """A path that only one of the manifests has, or that differs between them.

    `what` names what changed of a path that both have; "origin" includes its detail. "digest" means that
    one manifest has no digest, so the contents could not be compared. The bytes are those of regular files.
    """

    path: bytes
    change: FileChangeKind
    cause: Cause
    what: tuple[Aspect, ...] = ()
    old_bytes: int = 0
    new_bytes: int = 0

    @property
    def is_consequence(self) -> bool:
        """Return whether only the list of owners differs, because a package that lists the path changed."""
        return self.cause.kind == "package" and self.what == ("owners",)


@record
class Totals:
    """Counts of one manifest; `bytes` are those of its regular files."""

    packages: int
    names: int
    bytes: int
    dropped: int
    missing: int


@record
class Difference:
    """All differences between two manifests. Every tuple is sorted, and empty if nothing differs.

    `settings` are header fields with their old and new values as text. `rules` are blacklist rules with the
    numbers of names that each dropped in the old and the new manifest, if the numbers differ. `dropped` and
    `missing` count the records of these kinds that only one manifest has. Devices are their patterns.
    """

    old: Totals
    new: Totals
    settings: tuple[tuple[str, str, str], ...] = ()
    packages: tuple[PackageChange, ...] = ()
    files: tuple[FileChange, ...] = ()
    rules: tuple[tuple[str, int, int], ...] = ()
    edges_removed: tuple[Dependency, ...] = ()
    edges_added: tuple[Dependency, ...] = ()
    unmet_removed: tuple[Unmet, ...] = ()
    unmet_added: tuple[Unmet, ...] = ()
    devices_removed: tuple[str, ...] = ()
    devices_added: tuple[str, ...] = ()
    dropped: int = 0
    missing: int = 0
    same: bool = False

    def by_cause(self) -> tuple[tuple[Cause, tuple[FileChange, ...]], ...]:
        """Group the changed files by cause, the cause with the most files first."""
        found: dict[Cause, list[FileChange]] = {}
        for change in self.files:
            found.setdefault(change.cause, []).append(change)
        ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
        return tuple((cause, tuple(changes)) for cause, changes in ordered)

    def came_and_went(self) -> tuple[PackageChange, ...]:
        """Return the packages that were added, then those that were removed."""
        return tuple(one for change in ("added", "removed") for one in self.packages if one.change == change)

    def other_versions(self) -> tuple[PackageChange, ...]:
        """Return the packages that both manifests have and that differ."""
        return tuple(one for one in self.packages if one.change not in {"added", "removed"})

    def own_edges(self, edges: Iterable[Dependency]) -> tuple[Dependency, ...]:
        """Return those of `edges` that no added or removed package explains."""
        moved = {one.package for one in self.came_and_went()}
        return tuple(edge for edge in edges if not moved & {edge.source, edge.target})


def diff_manifests(old: Manifest, new: Manifest, *, compare: Compare | None = None) -> Difference:
    """Compare `old` and `new`; `same` is set if they are equal to the byte.

    `compare` orders two versions as the distribution does (negative, 0 or positive), so that upgrades and
    downgrades can be distinguished, or raises `ValueError`; see `pkgjail.backends.version_order`.
    """
    packages = _package_changes(old, new, compare)
    moved: dict[str, PackageChangeKind] = {
        one.package: one.change for one in packages if one.old_version != one.new_version
    }
    before, after = set(old.dependencies), set(new.dependencies)
    return Difference(
        old=_totals(old),
        new=_totals(new),
        settings=tuple(_settings(old.header, new.header)),
        packages=packages,
        files=_file_changes(old, new, Causes(old, new, moved)),
        rules=_rules(old, new),
        edges_removed=tuple(edge for edge in old.dependencies if edge not in after),
        edges_added=tuple(edge for edge in new.dependencies if edge not in before),
        unmet_removed=tuple(unmet for unmet in old.unmet if unmet not in new.unmet),
        unmet_added=tuple(unmet for unmet in new.unmet if unmet not in old.unmet),
        devices_removed=_only_in(old, new),
        devices_added=_only_in(new, old),
        dropped=len(set(old.dropped) ^ set(new.dropped)),
        missing=len(set(old.missing) ^ set(new.missing)),
        same=old == new,
    )


def _only_in(one: Manifest, other: Manifest) -> tuple[str, ...]:
    """The patterns of devices that the other manifest does not have."""
    known = {device.pattern for device in other.devices}
    return tuple(device.pattern for device in one.devices if device.pattern not in known)


def _totals(manifest: Manifest) -> Totals:
    return Totals(
        packages=len(manifest.packages),
        names=len(manifest.files),
        bytes=sum(entry.size or 0 for entry in manifest.files),
        dropped=len(manifest.dropped),
        missing=len(manifest.missing),
    )


def _settings(old: Header, new: Header) -> list[tuple[str, str, str]]:
    """The fields of the headers that differ, as text."""
    pairs = [(_header_texts(old)[name], text, name) for name, text in _header_texts(new).items()]
    return [(name, before, after) for before, after, name in pairs if before != after]


def _header_texts(header: Header) -> dict[str, str]:
    return {
        "schema": str(header.schema),
        "distribution": f"{header.distribution.id} {header.distribution.version}".strip(),
        "architecture": header.architecture,
        "policy": header.policy,
        "whitelists": ", ".join(header.whitelists),
        "blacklists": ", ".join(header.blacklists),
        "recommends": "yes" if header.recommends else "no",
        "essential": "yes" if header.essential else "no",
    }


def _package_changes(old: Manifest, new: Manifest, compare: Compare | None) -> tuple[PackageChange, ...]:
    before = {package.key: package for package in old.packages}
    after = {package.key: package for package in new.packages}
    sizes = _sizes(old), _sizes(new)
    chains = Chains(old.dependencies), Chains(new.dependencies)
    edges = frozenset(old.dependencies), frozenset(new.dependencies)
    changes = []
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        if one == other:
            continue
        because = None
        change: PackageChangeKind
        if one is None:
            change, because = "added", first_new(chains[1].shortest(key), edges[0])
        elif other is None:
            change, because = "removed", first_new(chains[0].shortest(key), edges[1])
        else:
            change = _direction(one.version, other.version, compare)
        changes.append(
            PackageChange(
                package=key,
                change=change,
                old_version=one.version if one else "",
                new_version=other.version if other else "",
                old_bytes=sizes[0][key],
                new_bytes=sizes[1][key],
                because=because,
            )
        )
    return tuple(changes)


def _direction(old: str, new: str, compare: Compare | None) -> PackageChangeKind:
    try:
        order = compare(old, new) if compare is not None and old != new else 0
    except ValueError:  # not a version by the distribution's rules
        order = 0
    return "upgraded" if order < 0 else "downgraded" if order > 0 else "changed"


def _sizes(manifest: Manifest) -> Mapping[str, int]:
    """Sum the bytes of the files that each package lists."""
    sizes: Counter[str] = Counter()
    for entry in manifest.files:
        for owner in entry.owners:
            sizes[owner] += entry.size or 0
    return sizes


def _rules(old: Manifest, new: Manifest) -> tuple[tuple[str, int, int], ...]:
    before = Counter(dropped.rule for dropped in old.dropped)
    after = Counter(dropped.rule for dropped in new.dropped)
    rules = sorted(before.keys() | after.keys())
    return tuple((rule, before[rule], after[rule]) for rule in rules if before[rule] != after[rule])


def _file_changes(old: Manifest, new: Manifest, causes: Causes) -> tuple[FileChange, ...]:
    before = {entry.path: entry for entry in old.files}
    after = {entry.path: entry for entry in new.files}
    changes = []
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one == other:
            continue
        what = () if one is None or other is None else _what_changed(one, other)
        changes.append(
            FileChange(
                path=path,
                change="added" if one is None else "removed" if other is None else "changed",
                cause=causes.of(path, one, other, what),
                what=what,
                old_bytes=one.size or 0 if one else 0,
                new_bytes=other.size or 0 if other else 0,
            )
        )
    return tuple(changes)


def _what_changed(old: FileEntry, new: FileEntry) -> tuple[Aspect, ...]:
    pairs: dict[Aspect, bool] = {
        "type": old.kind != new.kind,
        "content": None not in {old.sha256, new.sha256} and old.sha256 != new.sha256,
        "digest": (old.sha256 is None) != (new.sha256 is None) and old.kind == new.kind,
        "size": old.size != new.size,
        "mode": old.mode != new.mode,
        "target": old.target != new.target,
        "owners": old.owners != new.owners,
        "origin": (old.origin, old.detail) != (new.origin, new.detail),
    }
    return tuple(name for name, differs in pairs.items() if differs)
