"""Operations on manifests that need no package database: add what another one brings, take roots away.

The results are made from records and not from a policy, so they may differ from what `pkgjail.api.resolve`
makes of a changed list: a choice that was made for the whole manifest (the provider of a virtual package, the
candidate of alternatives) is not made again. Their policy digest names what they were derived from and how.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import UsageError
from pkgjail.manifest.records import DEPENDENCY, DEVICE, DROPPED, FILE, MISSING, PACKAGE, UNMET, schema_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from pkgjail.core.model import Dependency, FileEntry, Header, Manifest, Missing, Unmet

_ENTRY = "whitelist"
_MANAGERS = ("dpkg", "pacman", "rpm")
_MADE = ("generated", "entry")  # the origins of the files of a package database
_FIRST = (_ENTRY, "essential")  # the kinds of edges that no package has


class Root(NamedTuple):
    """An entry of a whitelist that requires packages: where it stands (`spack.toml:7`), and its text."""

    source: str
    text: str


def whitelist_roots(manifest: Manifest) -> tuple[Root, ...]:
    """Return the entries of whitelists that brought packages, sorted. What "essential" brought is none."""
    return tuple(sorted({_root(edge) for edge in manifest.dependencies if edge.kind == _ENTRY}))


def has_package_database(manifest: Manifest) -> bool:
    """Return whether the jail has a package database of its packages."""
    return any(entry.detail in _MANAGERS and entry.origin in _MADE for entry in manifest.files)


def packages_below(manifest: Manifest, roots: Collection[Root]) -> frozenset[str]:
    """Return the keys of the packages that these roots require, directly or not."""
    return _reachable(manifest, (e for e in manifest.dependencies if _is_root(e) and _root(e) in roots))


def without_roots(manifest: Manifest, roots: Collection[Root]) -> Manifest:
    """Return the manifest without the packages that only these roots require, and without their files.

    A file of several packages stays as long as one of them does, and so do files of none: those that a
    whitelist includes, and those that every jail has. Directories and links that are there only because of
    what they lead to go with it. Which package a dropped path was of is not recorded, so these records stay.
    """
    if not roots:
        return manifest
    gone_edges = {edge for edge in manifest.dependencies if _is_root(edge) and _root(edge) in roots}
    required = _reachable(manifest, (edge for edge in manifest.dependencies if edge.kind in _FIRST))
    # A package that no root requires stays, with what it requires: nothing says that it should go.
    left = (edge for edge in manifest.dependencies if edge.source not in required and edge not in gone_edges)
    gone = _reachable(manifest, gone_edges) - _reachable(manifest, left)
    return _finished(
        replace(
            manifest,
            header=_derived(manifest.header, "without", sorted(roots)),
            packages=tuple(package for package in manifest.packages if package.key not in gone),
            dependencies=tuple(
                edge for edge in manifest.dependencies if edge.source not in gone and edge not in gone_edges
            ),
            files=_files_without(manifest.files, gone, _managers(manifest, gone)),
            missing=_missing_without(manifest.missing, gone),
            unmet=tuple(
                one
                for one in manifest.unmet
                if one.source not in gone and not (one.kind == _ENTRY and _root(one) in roots)
            ),
        )
    )


def merged(base: Manifest, extra: Manifest) -> Manifest:
    """Return `base` with the packages, files and devices that `extra` has besides.

    At a path of both, the entry is that of `base`, with the owners of both; what `base` has only because of
    what is below takes the reason of `extra`. A path that `base` dropped stays out, unless it is a directory
    of something that comes in. What exists only because of both is not there: the package database has no
    files about the packages of the manifest that does not have the package manager.

    Raises:
        UsageError: they are not of the same source.

    """
    ours, theirs = base.header, extra.header
    for what in ("distribution", "architecture", "source"):
        if getattr(ours, what) != getattr(theirs, what):
            raise UsageError(
                f"cannot merge two manifests: the {what} of one is {getattr(ours, what)}, of the other "
                f"{getattr(theirs, what)}; make both from one source"
            )
    files = _merged_files(base, extra)
    taken = frozenset(entry.path for entry in files)
    dropped = {one.path: one for one in (*extra.dropped, *base.dropped) if one.path not in taken}
    missing = _merged_missing(base.missing, extra.missing, taken.union(dropped))
    header = _derived(ours, "with", [theirs.policy])
    return _finished(
        replace(
            base,
            header=replace(
                header,
                whitelists=_joined(ours.whitelists, theirs.whitelists),
                blacklists=_joined(ours.blacklists, theirs.blacklists),
                recommends=ours.recommends or theirs.recommends,
                essential=ours.essential or theirs.essential,
            ),
            packages=tuple({one.key: one for one in (*extra.packages, *base.packages)}.values()),
            dependencies=tuple({*base.dependencies, *extra.dependencies}),
            files=files,
            dropped=tuple(dropped.values()),
            missing=missing,
            unmet=tuple({UNMET.key(one): one for one in (*extra.unmet, *base.unmet)}.values()),
            devices=tuple({one.pattern: one for one in (*extra.devices, *base.devices)}.values()),
        )
    )


def _root(edge: Dependency | Unmet) -> Root:
    return Root(edge.source, edge.text)


def _is_root(edge: Dependency) -> bool:
    return edge.kind == _ENTRY


def _reachable(manifest: Manifest, edges: Iterable[Dependency]) -> frozenset[str]:
    """Return the targets of `edges`, and all that they require."""
    below: dict[str, list[str]] = {}
    for edge in manifest.dependencies:
        below.setdefault(edge.source, []).append(edge.target)
    found = dict.fromkeys(edge.target for edge in edges)
    todo = list(found)
    for key in todo:  # which grows
        new = [target for target in below.get(key, ()) if target not in found]
        found.update(dict.fromkeys(new))
        todo += new
    return frozenset(found)


def _derived(header: Header, how: str, arguments: Sequence[object]) -> Header:
    """Return a header whose policy digest is that of the derivation, which no list has."""
    text = json.dumps({"of": header.policy, how: arguments}, sort_keys=True, separators=(",", ":"))
    return replace(header, policy=f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}")


def _finished(manifest: Manifest) -> Manifest:
    """Sort each section, and give the manifest the version of the format that it needs."""
    made = replace(
        manifest,
        packages=PACKAGE.sort(manifest.packages),
        dependencies=DEPENDENCY.sort(manifest.dependencies),
        files=FILE.sort(manifest.files),
        dropped=DROPPED.sort(manifest.dropped),
        missing=MISSING.sort(manifest.missing),
        unmet=UNMET.sort(manifest.unmet),
        devices=DEVICE.sort(manifest.devices),
    )
    return replace(made, header=replace(made.header, schema=schema_of(made)))


# --- without roots ----------------------------------------------------------------------------


def _managers(manifest: Manifest, gone: Collection[str]) -> frozenset[str]:
    """Return the package managers that go: nobody reads their database then."""
    names = {package.name: package.key in gone for package in manifest.packages}
    return frozenset(name for name in _MANAGERS if names.get(name))


def _files_without(
    files: Sequence[FileEntry], gone: Collection[str], managers: Collection[str]
) -> tuple[FileEntry, ...]:
    all_files = {entry.path: entry for entry in files}
    kept: dict[bytes, FileEntry] = {}
    for entry in files:
        if entry.detail in managers and entry.origin in _MADE:
            continue
        owners = tuple(owner for owner in entry.owners if owner not in gone)
        if owners or (not entry.owners and entry.origin != "parent"):
            kept[entry.path] = entry if owners == entry.owners else entry._replace(owners=owners)
    _drop_dangling(kept, all_files)
    _keep_parents(kept, all_files)
    # Links on the way, such as those of a merged /usr, which a package may own; one may lead through another.
    links = {path: e for path, e in all_files.items() if e.target and (e.origin == "parent" or _is_merged(e))}
    while found := [path for path in links if path not in kept and _end(links[path]) in kept]:
        kept.update((path, _parent(links[path])) for path in found)
        _keep_parents(kept, all_files)
    return tuple(kept.values())


def _drop_dangling(kept: dict[bytes, FileEntry], before: Mapping[bytes, FileEntry]) -> None:
    """Remove generated links, as to a plugin of another package, whose ends have gone."""
    links = {
        path: _end(entry) for path, entry in kept.items() if entry.origin == "generated" and entry.target
    }
    while dangling := [path for path, end in links.items() if end in before and end not in kept]:
        for path in dangling:
            del kept[path], links[path]


def _parent(entry: FileEntry) -> FileEntry:
    return entry._replace(owners=(), origin="parent", detail="")


def _is_merged(entry: FileEntry) -> bool:
    """Return whether it is a link of a merged /usr, as /lib64, which programs name their loaders by."""
    return entry.path.count(b"/") == 1 and _end(entry).startswith(b"/usr/")


def _end(link: FileEntry) -> bytes:
    """Return the path that a link's text names, without following others."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target or b""))


def _keep_parents(kept: dict[bytes, FileEntry], before: Mapping[bytes, FileEntry]) -> None:
    """Keep the directories above what is kept; nobody owns one whose packages have gone."""
    for path in list(kept):
        for directory in (*_directories_above(path), b"/"):
            if directory in kept or directory not in before:
                break
            kept[directory] = _parent(before[directory])


def _missing_without(missing: Sequence[Missing], gone: Collection[str]) -> tuple[Missing, ...]:
    found = []
    for one in missing:
        owners = tuple(owner for owner in one.owners if owner not in gone)
        if owners or not one.owners:
            found.append(replace(one, owners=owners))
    return tuple(found)


# --- merged -----------------------------------------------------------------------------------


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _owners(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return one if one == other else tuple(sorted({*one, *other}))


def _merged_files(base: Manifest, extra: Manifest) -> tuple[FileEntry, ...]:
    """Return the files of both; one of `extra` comes in only where `base` has a directory, or none yet."""
    files = {entry.path: entry for entry in base.files}
    barred = {one.path for one in base.dropped}
    new = {entry.path: entry for entry in extra.files if entry.path not in files}
    needed = {above for path in new if path not in barred for above in _directories_above(path)}
    for entry in extra.files:  # by path: a directory comes before what is in it
        ours = files.get(entry.path)
        if ours is not None:
            files[entry.path] = _merged_entry(ours, entry)
            continue
        parent = files.get(entry.path.rpartition(b"/")[0])
        is_top = entry.path.count(b"/") == 1
        if (is_top or (parent is not None and parent.kind == "directory")) and (
            entry.path not in barred or (entry.kind == "directory" and entry.path in needed)
        ):
            files[entry.path] = entry
    return tuple(files.values())


def _directories_above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _merged_entry(ours: FileEntry, theirs: FileEntry) -> FileEntry:
    if ours.target != theirs.target:  # each has its own choice of alternatives
        return ours
    owners = _owners(ours.owners, theirs.owners)
    if ours.origin == "parent":
        return ours._replace(owners=owners, origin=theirs.origin, detail=theirs.detail)
    return ours if owners == ours.owners else ours._replace(owners=owners)


def _merged_missing(
    ours: Sequence[Missing], theirs: Sequence[Missing], decided: Collection[bytes]
) -> tuple[Missing, ...]:
    found = {one.path: one for one in ours}
    for one in theirs:
        mine = found.get(one.path, one)
        found[one.path] = replace(mine, owners=_owners(mine.owners, one.owners))
    return tuple(one for one in found.values() if one.path not in decided)
