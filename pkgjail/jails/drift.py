"""Detect drift: differences between a manifest's entries and the host.

A name that the manifest does not have is no drift. The layer that hides it is made anew instead.

Without a baseline (`pkgjail.storage.baseline`) every entry is compared, and its content by digest. With a
baseline, the states of directories show which entries may have been replaced since, at 2 µs each, and
only those are compared. Entries in directories that change all the time, or where people edit files in
place (/etc), are always compared. With `verify`, every entry is compared, and with "hash" its content too.
Content is also read if another file system is mounted than at the time of the baseline, or one whose
times do not show changes of content (`pkgjail.storage.filesystems`).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from pkgjail.core.entries import Mismatch, compare, kind_and_mode, lstat
from pkgjail.core.errors import DriftError, JailError
from pkgjail.core.model import record
from pkgjail.core.parameters import parameter
from pkgjail.core.reporter import SILENT, ProgressOnly
from pkgjail.jails.package_database import database_changes
from pkgjail.storage.baseline import (
    baseline_key,
    is_published,
    load_baseline,
    load_own_baseline,
    may_publish,
    publish_baseline,
    store_baseline,
    take_baseline,
)
from pkgjail.storage.fingerprint import (
    changed_directories,
    is_variable,
    take_settled_fingerprint,
    unverifiable_paths,
)
from pkgjail.storage.mounts import mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pkgjail.core.errors import Change
    from pkgjail.core.model import FileEntry, Manifest, Origin, Verify
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Baseline, Publisher

    States = tuple[tuple[bytes, int, int, int, int], ...]
    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]

_BY_HASH: Final = "verify='hash'"
# Entries of these origins are not compared with the host: the jail makes them, or no package lists them.
NOT_OF_THE_HOST: tuple[Origin, ...] = ("alternative", "entry", "parent")


@record
class DriftCheck:
    """The options of a comparison of a host with a manifest.

    `verify` is as for `find_drift`; with `allow_drift`, differences are accepted. `publisher` is the user
    whose baselines count besides the caller's own and root's. With `recorded`, the caller has compared the
    files with another record, so no digest is needed and no baseline is stored.
    """

    verify: Verify = ""
    allow_drift: bool = False
    publisher: Publisher | None = None
    recorded: bool = False
    reporter: Reporter = SILENT


@record
class Comparison:
    """The result of comparing a host with a manifest.

    `manifest` is the one to enter. `watched` has the states (`pkgjail.storage.fingerprint`) of all that was
    compared. `accepted` is the drift that was allowed; `manifest` has these entries as the host has them.
    """

    manifest: Manifest
    watched: States
    accepted: tuple[Change, ...] = ()


def compare_host(manifest: Manifest, root: bytes, check: DriftCheck) -> Comparison:
    """Compare the host below the real path `root` with a manifest, and store a baseline if it matches.

    Raises:
        DriftError: entries of the host differ from the manifest's.
        JailError, OSError: as `find_drift`.

    """
    entries = manifest.files
    key = baseline_key(entries, root)
    single = _single_states(entries, root)
    baseline = None if check.recorded else load_baseline(key, check.publisher)
    current = baseline
    if baseline is None or check.verify or changed_directories(baseline.states):
        current = take_baseline(entries, root)  # before the entries are compared
    verify = check.verify
    if baseline is None and not check.recorded and _have_digests(entries):
        verify = "hash"
    changes = find_drift(entries, root, baseline, verify=verify, hasher=_hasher(root, check))
    changes = tuple(sorted({*changes, *database_changes(manifest, root)}))
    if changes and not check.allow_drift:
        from pkgjail.jails.host_mismatch import describe_mismatch  # loads a backend

        raise DriftError(changes, cause=describe_mismatch(manifest, root))
    watched = (*(() if current is None else current.states), *single)
    if changes:
        as_found = replace(manifest, files=entries_as_found(entries, changes, root))
        return Comparison(manifest=as_found, watched=watched, accepted=changes)
    # Another user's baseline is trusted for that user's manifest only, so do not store it as one's own.
    borrowed = baseline is not None and baseline.borrowed and verify != "hash"
    if current is not None and not check.recorded and not borrowed:
        with contextlib.suppress(OSError):  # if it cannot be stored, the next entry compares again
            _store(key, current, baseline, check.publisher)
    return Comparison(manifest=manifest, watched=watched)


def changes_since_baseline(
    manifest: Manifest, root: bytes, publisher: Publisher | None = None
) -> tuple[Change, ...]:
    """Return the drift since the host below the real path `root` was last compared. Nothing is stored.

    At the end of a command, this finds the entries that changed while it ran. Raises as `find_drift`.
    """
    baseline = load_baseline(baseline_key(manifest.files, root), publisher)
    hasher = _hasher(root, DriftCheck())
    return find_drift(manifest.files, root, baseline, hasher=hasher)


def publish_user_baseline(manifest: Manifest, root: bytes, publisher: Publisher | None) -> None:
    """Publish this user's baseline of a manifest that others may now enter.

    Raises:
        OSError: it cannot be published.

    """
    key = baseline_key(manifest.files, root)
    baseline = load_own_baseline(key)
    if baseline is not None and may_publish(publisher):
        publish_baseline(key, baseline)


def _store(key: str, current: Baseline, previous: Baseline | None, publisher: Publisher | None) -> None:
    if current is not previous:
        store_baseline(key, current)
    if may_publish(publisher) and (current is not previous or not is_published(key)):
        publish_baseline(key, current)


def _hasher(root: bytes, check: DriftCheck) -> Hasher:
    """Return a function that hashes files, with the digest cache unless `check` demands reading them."""

    def hash_paths(paths: Sequence[bytes]) -> Mapping[bytes, str]:
        """Return the SHA-256 in hex of each path."""
        from pkgjail.storage.hashing import HashCache, hash_files  # loads sqlite3

        cache = None if check.verify == "hash" else HashCache.default()
        # No warnings: a cache that cannot be used only costs time.
        return hash_files(paths, root=root, cache=cache, reporter=ProgressOnly(check.reporter))

    return hash_paths


def _single_states(entries: Sequence[FileEntry], root: bytes) -> States:
    """Return the states of the files and links that are always compared."""
    prefix = root.rstrip(b"/")
    paths = [
        prefix + entry.path
        for entry in entries
        if entry.kind != "directory"
        and entry.origin not in NOT_OF_THE_HOST
        and _is_always_compared(entry.path)
    ]
    return take_settled_fingerprint(filter(os.path.lexists, paths))


def _is_always_compared(path: bytes) -> bool:
    """Check whether files there change without their directory, by an editor, or come and go."""
    return path.startswith(b"/etc/") or is_variable(path)


def find_drift(
    entries: Sequence[FileEntry],
    root: bytes,
    baseline: Baseline | None,
    *,
    verify: Verify = "",
    hasher: Hasher | None = None,
) -> tuple[Change, ...]:
    """Compare the host's files below the real path `root` with a manifest's entries.

    Args:
        entries: the manifest's, sorted by path.
        root: the directory of the files.
        baseline: the state in which they matched before. If None, every entry is compared by kind, mode, size
            and link text.
        verify: "" compares what may have changed since the baseline, "all" every entry, "hash" also the
            content of every entry.
        hasher: returns the SHA-256 in hex for each of the given paths; None reads the files.

    Returns:
        Each entry that differs on the host, by path, with what was found there.

    Raises:
        JailError: `verify` is "hash", and the manifest has no digests.
        OSError: a file cannot be read.

    """
    if verify == "hash" and not _have_digests(entries):
        raise JailError(
            "cannot verify by hash: the manifest has no digests; make it again with 'pkgjail resolve', "
            f"without {parameter('hashed=False')}, or verify without {parameter(_BY_HASH)}"
        )
    prefix = root.rstrip(b"/")
    suspects = [entry for entry in entries if entry.origin not in NOT_OF_THE_HOST]
    if baseline is not None and not verify:
        suspects = _possibly_changed(baseline, suspects, root)
    unreliable = set() if baseline is None else unverifiable_paths(baseline.states)
    changes: dict[bytes, Mismatch] = {}
    content: list[FileEntry] = []
    for entry in suspects:
        path = prefix + entry.path
        found = lstat(path)
        if mismatches := compare(entry, path, found, mode=entry.mode):
            changes[entry.path] = mismatches[0]
        elif entry.kind == "regular":
            must_read = verify == "hash" or os.path.dirname(path) in unreliable
            if (must_read and entry.sha256 is not None) or _is_newer(path, found, baseline):
                content.append(entry)
    changes.update(_content_changes(content, prefix, hasher or partial(_hash_uncached, root=root)))
    return tuple(sorted(changes.items()))


def _hash_uncached(paths: Sequence[bytes], root: bytes) -> Mapping[bytes, str]:
    from pkgjail.storage.hashing import hash_files  # loads sqlite3

    return hash_files(paths, root=root)


def refuse_drift(entries: Sequence[FileEntry], root: bytes) -> None:
    """Raise `DriftError` if the host differs from the entries in kind, mode, size or link text."""
    if changes := find_drift(entries, root, None):
        raise DriftError(changes)


def entries_as_found(
    entries: Sequence[FileEntry], changes: Sequence[Change], root: bytes
) -> tuple[FileEntry, ...]:
    """Return the entries with the changed ones as the host has them now, and without those that are gone."""
    prefix = root.rstrip(b"/")
    paths = {path for path, _ in changes}
    result: list[FileEntry] = []
    gone: list[bytes] = []
    for entry in entries:
        found = _as_found(entry, prefix + entry.path) if entry.path in paths else entry
        if any(entry.path.startswith(directory) for directory in gone):
            continue
        if found is not None:
            result.append(found)
        if entry.kind == "directory" and (found is None or found.kind != "directory"):
            gone.append(entry.path + b"/")
    return tuple(result)


def _possibly_changed(baseline: Baseline, entries: Sequence[FileEntry], root: bytes) -> list[FileEntry]:
    """Return the entries that may have changed: all except those in unchanged directories."""
    prefix = root.rstrip(b"/")
    unchanged = {path for path, *_ in baseline.states}.difference(changed_directories(baseline.states))
    mount_points = set(mounts_below(root))
    result = []
    for entry in entries:
        path = prefix + entry.path
        directory = path if entry.kind == "directory" else path.rpartition(b"/")[0] or b"/"
        if directory not in unchanged or path in mount_points or _is_always_compared(entry.path):
            result.append(entry)
    return result


def _is_newer(path: bytes, found: os.stat_result | None, baseline: Baseline | None) -> bool:
    """Check whether a file may have been replaced or written to since the baseline; inode(7)."""
    if baseline is None or found is None:
        return False
    directory, _, name = path.rpartition(b"/")
    inode = baseline.names.get(directory or b"/", {}).get(name, found.st_ino)
    return found.st_ctime_ns >= baseline.at or found.st_ino != inode


def _content_changes(entries: Sequence[FileEntry], prefix: bytes, hasher: Hasher) -> Iterator[Change]:
    """Yield the files whose content differs from the manifest's, or cannot be compared."""
    readable = [entry for entry in entries if entry.sha256 is not None]
    for entry in entries:
        # A file that this user cannot read has no content in this user's jail either.
        if entry.sha256 is None and os.access(prefix + entry.path, os.R_OK, effective_ids=True):
            yield entry.path, Mismatch("undigested")
    if readable:
        digests = hasher([entry.path for entry in readable])
        for entry in readable:
            if digests[entry.path] != entry.sha256:
                yield entry.path, Mismatch("content", entry.sha256 or "", digests[entry.path])


def _have_digests(entries: Sequence[FileEntry]) -> bool:
    return any(entry.sha256 for entry in entries)


def _as_found(entry: FileEntry, path: bytes) -> FileEntry | None:
    """Return the entry with what the host has in its place now, or None if that cannot be in a jail."""
    found = lstat(path)
    if found is None:
        return None
    kind, mode = kind_and_mode(found.st_mode)
    if kind is None:
        return None
    return entry._replace(
        kind=kind,
        mode=mode,
        size=found.st_size if kind == "regular" else None,
        target=os.readlink(path) if kind == "symlink" else None,
        sha256=None,
    )
