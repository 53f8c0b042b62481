"""Compare an environment with its record: find every name that is not as `build` left it."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from typing import TYPE_CHECKING

from pkgjail.core.entries import MISSING, Mismatch, compare, failure
from pkgjail.environments.record import LOCK, MANIFEST, PHASE_FILES, SCRATCH, TREE
from pkgjail.storage.digests import FILE_FLAGS, sha256_of
from pkgjail.storage.filesystems import sets_times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.errors import Change
    from pkgjail.environments.directory import EnvironmentDirectory
    from pkgjail.environments.record import Phase, RecordEntry

    Listing = dict[bytes, RecordEntry]


def group_by_directory(entries: Sequence[RecordEntry]) -> dict[bytes, Listing]:
    """Return what each directory (by path; empty for the environment's own) should contain, by name."""
    listings: dict[bytes, Listing] = defaultdict(dict)
    listings[b""] = {}
    for entry in entries:
        above, _, name = entry.path.rpartition(b"/")
        listings[above][name] = entry
        if entry.kind == "directory":
            listings[entry.path] = {}
    return listings


def compare_all(
    environment: EnvironmentDirectory, entries: Sequence[RecordEntry], phase: Phase
) -> list[Change]:
    """Return a change for every name that is not as recorded, and for every name that is not recorded.

    This includes the names beside the tree, in the environment's own directory.
    """
    unrecorded = {PHASE_FILES[phase], LOCK} | ({SCRATCH} if phase == "building" else set())
    return list(_compare(environment, entries, unrecorded, quick=False))


def compare_inputs(environment: EnvironmentDirectory, entries: Sequence[RecordEntry]) -> list[Change]:
    """Return the changes of what a jail is made from, the manifest and the tree; faster than `compare_all`.

    A directory with the recorded change time has the recorded names: nobody can set that time
    (inode(7)), unless the filesystem allows it (`pkgjail.storage.filesystems`). Other names in the
    environment's own directory do not matter.
    """
    changes = _compare(environment, entries, set(), quick=True)
    return [change for change in changes if change[0].split(b"/", 1)[0] in (MANIFEST, TREE)]


def _compare(
    environment: EnvironmentDirectory, entries: Sequence[RecordEntry], unrecorded: set[bytes], *, quick: bool
) -> Iterator[Change]:
    """Compare each directory with the names it should contain.

    `unrecorded` are names of the environment's own directory that belong there. With `quick` a directory
    with the recorded change time is not listed.
    """
    listings = group_by_directory(entries)
    recorded = {entry.path: entry for entry in entries}
    # No other filesystem is mounted in it: that would be a change itself.
    trust_times = sets_times(environment.descriptor)
    unreachable: set[bytes] = set()
    for path in sorted(listings):
        if path and path.rpartition(b"/")[0] in unreachable:
            unreachable.add(path)
            continue
        try:
            descriptor = environment.open_directory(path)
        except OSError as error:
            unreachable.add(path)
            reported_above = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
            # What the user may not look into is not visible in that user's jail either.
            if not (reported_above or (quick and error.errno == errno.EACCES)):
                yield path, _unopened(error)
            continue
        try:
            yield from _compare_names(descriptor, listings[path], trust_times=trust_times)
            itself = recorded.get(path)
            if quick and (itself is None or _is_unchanged(descriptor, itself, trust_times=trust_times)):
                continue
            expected = listings[path].keys() | (unrecorded if itself is None else set())
            prefix = path + b"/" if path else b""
            for name in sorted(set(map(os.fsencode, os.listdir(descriptor))) - expected):
                yield prefix + name, Mismatch("extra")
        finally:
            os.close(descriptor)


def _unopened(error: OSError) -> Mismatch:
    return Mismatch("mounted") if error.errno == errno.EXDEV else failure("unreachable", error)


def _compare_names(descriptor: int, listing: Listing, *, trust_times: bool) -> Iterator[Change]:
    for name, entry in listing.items():
        if (mismatch := compare_entry(descriptor, name, entry, trust_times=trust_times)) is not None:
            yield entry.path, mismatch


def _is_unchanged(descriptor: int, entry: RecordEntry, *, trust_times: bool) -> bool:
    """Check whether a directory has its recorded change time, and so its recorded names."""
    return trust_times and os.fstat(descriptor).st_ctime_ns == entry.ctime


def compare_entry(directory: int, name: bytes, entry: RecordEntry, *, trust_times: bool) -> Mismatch | None:
    """Compare one name in an open directory with its record; None if nothing has changed.

    A regular file is identified by inode, size and times. If only its change time differs (its mode was
    changed, or a link to it was made), or if the filesystem lets others set times (not `trust_times`), its
    content decides.
    """
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return MISSING
    if mismatches := compare(entry, name, found, inode=entry.inode, dir_fd=directory):
        return mismatches[0]
    is_unchanged = trust_times and found.st_mtime_ns == entry.mtime and found.st_ctime_ns == entry.ctime
    if entry.kind != "regular" or is_unchanged:
        return None
    try:
        descriptor = os.open(name, FILE_FLAGS, dir_fd=directory)
    except OSError as error:
        return failure("unreadable", error)
    with open(descriptor, "rb", buffering=0) as file:
        digest = sha256_of(file.fileno())
    return None if digest == entry.sha256 else Mismatch("content", entry.sha256, digest)
