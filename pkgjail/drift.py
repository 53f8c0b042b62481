"""Drift: what of the host is no longer as the manifest, or its seal, says.

By default directories are looked at, 2 µs each: a name that was added to one, went from it or was
replaced in it has changed the directory's times. Only directories that changed are read. With
`verify` every entry is looked at, with "hash" its content too. Where another file system is mounted than
the one that was sealed, content is read; so it is, with `verify`, where times say nothing of content
(`pkgjail.filesystems`).
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.dirstate import changed, observe_settled, unknown
from pkgjail.errors import DriftError, JailError
from pkgjail.model import record
from pkgjail.seals import is_directory, is_variable, load_seal, names_in, seal_key, store_seal, take_seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.model import FileEntry, Manifest
    from pkgjail.seals import Seal

    Change = tuple[bytes, str]
    States = tuple[tuple[bytes, int, int, int, int], ...]

_KIND_OF = {stat.S_IFREG: "regular", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
# The origins of what the host is not asked to show: the jail makes it, or no package lists it.
NOT_OF_THE_HOST = ("alternative", "entry", "parent")


@record
class Held:
    """A host that was held against a manifest.

    `manifest` is the one to enter, `watched` the states (`pkgjail.dirstate`) of all that was looked at,
    and `accepted` the drift that was allowed: then the manifest is the one of the host as it is now.
    """

    manifest: Manifest
    watched: States
    accepted: tuple[Change, ...] = ()


def hold_host(manifest: Manifest, root: bytes, *, verify: str = "", allow_drift: bool = False) -> Held:
    """Hold the host below the real path `root` against a manifest and its seal, and seal it where it holds.

    `verify` is as for `find_drift`.

    Raises:
        DriftError: the host is not as it was when the manifest was made, or first entered here.
        JailError, OSError: as `find_drift`.

    """
    key = seal_key(manifest.files, root)
    single = _single_states(manifest.files, root)
    seal = load_seal(key)
    fresh = seal
    if seal is None or verify or changed(seal.states):
        fresh = take_seal(manifest.files, root)
    changes = find_drift(manifest.files, root, seal, verify=verify)
    if changes and not allow_drift:
        raise DriftError(changes)
    watched = (*(() if fresh is None else fresh.states), *single)
    if changes:
        now = replace(manifest, files=as_found(manifest.files, changes, root))
        return Held(manifest=now, watched=watched, accepted=changes)
    if fresh is not None and fresh != seal:
        with contextlib.suppress(OSError):  # then the next entry looks at everything again
            store_seal(key, fresh)
    return Held(manifest=manifest, watched=watched)


def _single_states(entries: Sequence[FileEntry], root: bytes) -> States:
    """The states of those files and links that stand where directories change all the time."""
    prefix = root.rstrip(b"/")
    paths = [
        prefix + entry.path
        for entry in entries
        if entry.kind != "directory" and entry.origin not in NOT_OF_THE_HOST and is_variable(entry.path)
    ]
    return observe_settled(filter(os.path.lexists, paths))


def find_drift(
    entries: Sequence[FileEntry], root: bytes, seal: Seal | None, *, verify: str = ""
) -> tuple[Change, ...]:
    """Hold the host's files below the real path `root` against a manifest's entries.

    Args:
        entries: the manifest's, sorted by path.
        root: where the files are.
        seal: what the directories held before; None where that is not known: then every entry is
            held against the manifest's own facts (kind, mode, size, link text).
        verify: "" for what changed directories hold, "all" for every entry, "hash" for the content
            of every entry too.

    Returns:
        Each path that is not as it was, in order, with what was found there.

    Raises:
        JailError: "hash", of a manifest without digests.
        OSError: a file cannot be read.

    """
    if verify == "hash":
        _refuse_without_digests(entries)
    prefix = root.rstrip(b"/")
    moved = set() if seal is None else set(changed(seal.states))
    names = () if seal is None else _name_changes(seal, entries, moved, prefix)
    elsewhere = set() if seal is None else unknown(seal.states, lasting=not verify)
    whole = seal is None or bool(verify)
    suspects = [
        e for e in entries if e.origin not in NOT_OF_THE_HOST and (whole or _may_differ(e, moved, prefix))
    ]
    changes = dict(names)
    content: list[FileEntry] = []
    for entry in suspects:
        found = _lstat(prefix + entry.path)
        if (change := _change(entry, prefix + entry.path, found)) is not None:
            changes[entry.path] = change
        elif entry.kind == "regular" and (
            verify == "hash" or _directory(entry, prefix) in elsewhere or _touched(entry, found, seal, prefix)
        ):
            content.append(entry)
    changes.update(_content_changes(content, root))
    return tuple(sorted(changes.items()))


def refuse_drift(entries: Sequence[FileEntry], root: bytes) -> None:
    """Raise `DriftError` where the host does not have the entries as their own facts say."""
    if changes := find_drift(entries, root, None):
        raise DriftError(changes)


def as_found(entries: Sequence[FileEntry], changes: Sequence[Change], root: bytes) -> tuple[FileEntry, ...]:
    """The entries with those that changed as the host has them now, and those left out that are gone.

    What was added stays out.
    """
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


def _may_differ(entry: FileEntry, moved: set[bytes], prefix: bytes) -> bool:
    """Whether an entry's directory changed, or is one whose changes say nothing."""
    path = prefix + entry.path
    return path in moved or _directory(entry, prefix) in moved or is_variable(entry.path)


def _directory(entry: FileEntry, prefix: bytes) -> bytes:
    return (prefix + entry.path).rpartition(b"/")[0] or b"/"


def _name_changes(
    seal: Seal, entries: Sequence[FileEntry], moved: set[bytes], prefix: bytes
) -> Iterator[Change]:
    """The names that came to, or went from, the directories `moved`; entries that went are told elsewhere."""
    known = {entry.path for entry in entries}
    for directory in moved:
        before, now = seal.names[directory], names_in(directory)
        inside = (directory[len(prefix) :]).rstrip(b"/")
        if is_directory(directory):
            yield from ((inside + b"/" + name, "was added") for name in now.keys() - before.keys())
        gone = (inside + b"/" + name for name in before.keys() - now.keys())
        yield from ((path, "is gone") for path in gone if path not in known)


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
    if _KIND_OF.get(stat.S_IFMT(found.st_mode)) != entry.kind:
        change = f"is no longer a {entry.kind}"
    elif entry.kind == "symlink":
        change = None if os.readlink(path) == entry.target else "is a link to somewhere else"
    elif stat.S_IMODE(found.st_mode) != entry.mode:
        change = f"has mode {stat.S_IMODE(found.st_mode):04o}, not {entry.mode:04o}"
    elif entry.kind == "regular" and found.st_size != entry.size:
        change = f"has {found.st_size} bytes, not {entry.size}"
    return change


def _touched(entry: FileEntry, found: os.stat_result | None, seal: Seal | None, prefix: bytes) -> bool:
    """Whether a file may be another, or have other content, than when the seal was taken; inode(7)."""
    if seal is None or found is None:
        return False
    directory, _, name = (prefix + entry.path).rpartition(b"/")
    inode = seal.names.get(directory or b"/", {}).get(name, found.st_ino)
    return found.st_ctime_ns >= seal.at or found.st_ino != inode


def _content_changes(entries: Sequence[FileEntry], root: bytes) -> Iterator[Change]:
    """Those files that cannot be shown to have the content that the manifest has."""
    readable = [entry for entry in entries if entry.sha256 is not None]
    for entry in entries:
        if entry.sha256 is None:
            yield entry.path, "was changed or replaced, and the manifest has no digest of it"
    if readable:
        from pkgjail.hashing import hash_files  # brings sqlite3 in

        digests = hash_files([entry.path for entry in readable], root=root)
        for entry in readable:
            if digests[entry.path] != entry.sha256:
                yield entry.path, "has other content"


def _refuse_without_digests(entries: Sequence[FileEntry]) -> None:
    if not any(entry.sha256 for entry in entries):
        raise JailError(
            "cannot verify by hash: the manifest has no digests; make it again with 'pkgjail resolve', "
            "without --no-hash, or verify without '=hash'"
        )


def _present(entry: FileEntry, path: bytes) -> FileEntry | None:
    """The entry with what stands in its place now; None where that cannot be in a jail."""
    found = _lstat(path)
    kind = None if found is None else _KIND_OF.get(stat.S_IFMT(found.st_mode))
    if found is None or kind is None:
        return None
    return entry._replace(
        kind=kind,
        mode=0o777 if kind == "symlink" else stat.S_IMODE(found.st_mode),
        size=found.st_size if kind == "regular" else None,
        target=os.readlink(path) if kind == "symlink" else None,
        sha256=None,
    )
