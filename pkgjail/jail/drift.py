"""Drift: differences between a manifest's entries and the host.

A name that the manifest does not have is no drift: what hides it is brought up to date instead.

Without a baseline (`pkgjail.storage.baseline`) every entry is compared, its content by digest. With one, the
states of directories say which entries may have been replaced since, at 2 µs each, and only those are
compared. Entries that stand where directories change all the time, or where people edit files in place
(/etc), are looked at one by one. With `verify` every entry is, with "hash" its content too. Where another
file system is mounted than at the time of the baseline, or one whose times say nothing of content
(`pkgjail.storage.filesystems`), content is read.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pkgjail.core.entries import NOUNS, kind_and_mode, kind_of
from pkgjail.core.errors import DriftError, JailError
from pkgjail.core.model import record
from pkgjail.core.reporter import SILENT, ProgressOnly
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
from pkgjail.storage.fingerprint import changed, is_variable, mounts_below, observe_settled, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pkgjail.core.model import FileEntry, Manifest, Origin, Verify
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Baseline, Publisher

    Change = tuple[bytes, str]
    States = tuple[tuple[bytes, int, int, int, int], ...]
    Hasher = Callable[[Sequence[bytes]], Mapping[bytes, str]]

# The origins of what the host is not asked to show: the jail makes it, or no package lists it.
NOT_OF_THE_HOST: tuple[Origin, ...] = ("alternative", "entry", "parent")


@record
class Check:
    """How a host is compared with a manifest.

    `verify` is as for `find_drift`; with `allow_drift` differences are accepted. `publisher` is whose
    baselines count besides the user's own and root's. `recorded` says that the caller compared the files
    with another record, so that no digest is asked for and no baseline kept.
    """

    verify: Verify = ""
    allow_drift: bool = False
    publisher: Publisher | None = None
    recorded: bool = False
    reporter: Reporter = SILENT


@record
class Comparison:
    """A host that was compared with a manifest.

    `manifest` is the one to enter, `watched` the states (`pkgjail.storage.fingerprint`) of all that was
    looked at,
    and `accepted` the drift that was allowed: then the manifest is the one of the host as it is now.
    """

    manifest: Manifest
    watched: States
    accepted: tuple[Change, ...] = ()


def compare_host(manifest: Manifest, root: bytes, check: Check) -> Comparison:
    """Compare the host below the real path `root` with a manifest, and keep a baseline where it matches.

    Raises:
        DriftError: entries of the manifest are not on the host as the manifest says.
        JailError, OSError: as `find_drift`.

    """
    entries = manifest.files
    key = baseline_key(entries, root)
    single = _single_states(entries, root)
    baseline = None if check.recorded else load_baseline(key, check.publisher)
    fresh = baseline
    if baseline is None or check.verify or changed(baseline.states):
        fresh = take_baseline(entries, root)  # before the entries are looked at
    verify = check.verify
    if baseline is None and not check.recorded and _have_digests(entries):
        verify = "hash"
    changes = find_drift(entries, root, baseline, verify=verify, hasher=_hasher(root, check))
    if changes and not check.allow_drift:
        from pkgjail.jail.host_mismatch import (
            other_origin,  # only where something is amiss: it brings a backend in
        )

        raise DriftError(changes, cause=other_origin(manifest, root))
    watched = (*(() if fresh is None else fresh.states), *single)
    if changes:
        now = replace(manifest, files=as_found(entries, changes, root))
        return Comparison(manifest=now, watched=watched, accepted=changes)
    # What rests on another user's baseline is believed of that user's manifest, and of no other.
    borrowed = baseline is not None and baseline.borrowed and verify != "hash"
    if fresh is not None and not check.recorded and not borrowed:
        with contextlib.suppress(OSError):  # then the next entry compares again
            _keep(key, fresh, baseline, check.publisher)
    return Comparison(manifest=manifest, watched=watched)


def changes_since(manifest: Manifest, root: bytes, publisher: Publisher | None = None) -> tuple[Change, ...]:
    """The drift since the host below the real path `root` was last compared; nothing is kept.

    For the end of a command: the entries that changed while it ran. Raises as `find_drift`.
    """
    baseline = load_baseline(baseline_key(manifest.files, root), publisher)
    hasher = _hasher(root, Check())
    return find_drift(manifest.files, root, baseline, hasher=hasher)


def share_baseline(manifest: Manifest, root: bytes, publisher: Publisher | None) -> None:
    """Publish this user's baseline of a manifest that was just put where others may enter it.

    Raises:
        OSError: it cannot be published.

    """
    key = baseline_key(manifest.files, root)
    baseline = load_own_baseline(key)
    if baseline is not None and may_publish(publisher):
        publish_baseline(key, baseline)


def _keep(key: str, fresh: Baseline, before: Baseline | None, publisher: Publisher | None) -> None:
    if fresh is not before:
        store_baseline(key, fresh)
    if may_publish(publisher) and (fresh is not before or not is_published(key)):
        publish_baseline(key, fresh)


def _hasher(root: bytes, check: Check) -> Hasher:
    """What hashes files: with the cache of digests, unless the content is to be read by name."""

    def hashed(paths: Sequence[bytes]) -> Mapping[bytes, str]:
        from pkgjail.storage.hashing import HashCache, hash_files  # brings sqlite3 in

        cache = None if check.verify == "hash" else HashCache.default()
        # A cache that cannot be used costs this entry time, and nothing else.
        return hash_files(paths, root=root, cache=cache, reporter=ProgressOnly(check.reporter))

    return hashed


def _single_states(entries: Sequence[FileEntry], root: bytes) -> States:
    """The states of those files and links that are looked at one by one."""
    prefix = root.rstrip(b"/")
    paths = [
        prefix + entry.path
        for entry in entries
        if entry.kind != "directory" and entry.origin not in NOT_OF_THE_HOST and _is_single(entry.path)
    ]
    return observe_settled(filter(os.path.lexists, paths))


def _is_single(path: bytes) -> bool:
    """Whether a file there changes without its directory: by an editor, or as others come and go."""
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
        root: where the files are.
        baseline: the state in which they matched before; None where that is not known: then every entry
            is compared by the manifest's own facts (kind, mode, size, link text).
        verify: "" for what may have changed since the baseline, "all" for every entry, "hash" for the
            content of every entry too.
        hasher: the SHA-256 in hex of each of some paths; None to read the files.

    Returns:
        Each entry that the host does not have as the manifest says, by path, with what was found there.

    Raises:
        JailError: "hash", of a manifest without digests.
        OSError: a file cannot be read.

    """
    if verify == "hash" and not _have_digests(entries):
        raise JailError(
            "cannot verify by hash: the manifest has no digests; make it again with 'pkgjail resolve', "
            "without --no-hash, or verify without '=hash'"
        )
    prefix = root.rstrip(b"/")
    suspects = [entry for entry in entries if entry.origin not in NOT_OF_THE_HOST]
    if baseline is not None and not verify:
        suspects = _since(baseline, suspects, root)
    elsewhere = set() if baseline is None else unknown(baseline.states)
    changes: dict[bytes, str] = {}
    content: list[FileEntry] = []
    for entry in suspects:
        path = prefix + entry.path
        found = _lstat(path)
        if (change := _change(entry, path, found)) is not None:
            changes[entry.path] = change
        elif entry.kind == "regular":
            unknown_content = verify == "hash" or os.path.dirname(path) in elsewhere
            if (unknown_content and entry.sha256 is not None) or _touched(path, found, baseline):
                content.append(entry)
    changes.update(_content_changes(content, prefix, hasher or partial(_read_anew, root=root)))
    return tuple(sorted(changes.items()))


def _read_anew(paths: Sequence[bytes], root: bytes) -> Mapping[bytes, str]:
    from pkgjail.storage.hashing import hash_files  # brings sqlite3 in

    return hash_files(paths, root=root)


def refuse_drift(entries: Sequence[FileEntry], root: bytes) -> None:
    """Raise `DriftError` where the host does not have the entries as their own facts say."""
    if changes := find_drift(entries, root, None):
        raise DriftError(changes)


def as_found(entries: Sequence[FileEntry], changes: Sequence[Change], root: bytes) -> tuple[FileEntry, ...]:
    """The entries with those that changed as the host has them now, and those left out that are gone."""
    prefix = root.rstrip(b"/")
    paths = {path for path, _ in changes}
    kept: list[FileEntry] = []
    gone: list[bytes] = []
    for entry in entries:
        now = _present(entry, prefix + entry.path) if entry.path in paths else entry
        if any(entry.path.startswith(above) for above in gone):
            continue
        if now is not None:
            kept.append(now)
        if entry.kind == "directory" and (now is None or now.kind != "directory"):
            gone.append(entry.path + b"/")
    return tuple(kept)


def _since(baseline: Baseline, entries: Sequence[FileEntry], root: bytes) -> list[FileEntry]:
    """The entries that may differ from what they were: all but those in directories that did not change."""
    prefix = root.rstrip(b"/")
    unchanged = {path for path, *_ in baseline.states}.difference(changed(baseline.states))
    covered = set(mounts_below(root))
    found = []
    for entry in entries:
        path = prefix + entry.path
        settled = path if entry.kind == "directory" else path.rpartition(b"/")[0] or b"/"
        if settled not in unchanged or path in covered or _is_single(entry.path):
            found.append(entry)
    return found


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _change(entry: FileEntry, path: bytes, found: os.stat_result | None) -> str | None:
    """What the host has in the entry's place, for a message; None where it is as the manifest says."""
    if found is None:
        return "is gone"
    change = None
    if kind_of(found.st_mode) != entry.kind:
        change = f"is no longer a {NOUNS[entry.kind]}"
    elif entry.kind == "symlink":
        change = None if os.readlink(path) == entry.target else "is a link to somewhere else"
    elif stat.S_IMODE(found.st_mode) != entry.mode:
        change = f"has mode {stat.S_IMODE(found.st_mode):04o}, not {entry.mode:04o}"
    elif entry.kind == "regular" and found.st_size != entry.size:
        change = f"has {found.st_size} bytes, not {entry.size}"
    return change


def _touched(path: bytes, found: os.stat_result | None, baseline: Baseline | None) -> bool:
    """Whether a file may be another, or have other content, than at the time of the baseline; inode(7)."""
    if baseline is None or found is None:
        return False
    directory, _, name = path.rpartition(b"/")
    inode = baseline.names.get(directory or b"/", {}).get(name, found.st_ino)
    return found.st_ctime_ns >= baseline.at or found.st_ino != inode


def _content_changes(entries: Sequence[FileEntry], prefix: bytes, hasher: Hasher) -> Iterator[Change]:
    """Those files that cannot be shown to have the content that the manifest has."""
    readable = [entry for entry in entries if entry.sha256 is not None]
    for entry in entries:
        # What this user cannot read is not visible in this user's jail either.
        if entry.sha256 is None and os.access(prefix + entry.path, os.R_OK, effective_ids=True):
            yield entry.path, "was changed or replaced, and the manifest has no digest of it"
    if readable:
        digests = hasher([entry.path for entry in readable])
        for entry in readable:
            if digests[entry.path] != entry.sha256:
                yield entry.path, "has other content"


def _have_digests(entries: Sequence[FileEntry]) -> bool:
    return any(entry.sha256 for entry in entries)


def _present(entry: FileEntry, path: bytes) -> FileEntry | None:
    """The entry with what stands in its place now; None where that cannot be in a jail."""
    found = _lstat(path)
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
