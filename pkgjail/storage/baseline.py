"""Baselines: the state of the host's directories at a time when the host matched a manifest.

A manifest says what is in the jail, with a digest of each file. Comparing every file at each entry would
take a second. A baseline records the state of each of the manifest's directories, and the names in it, at a
time when every digest matched. While a directory's state is the same, its files have not been replaced.

A user's baselines are in the user's cache directory. Root, and a user who owns the directory that a manifest
or an environment is in, also publish theirs in /var/tmp (or PKGJAIL_SHARED_DIR). Other users of that
manifest find them there, and need not compare every file themselves. A published baseline is trusted if root
or the owner of the manifest's directory made it and nobody else can change it: whoever can replace the
manifest decides what is in the jail anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.given import path_bytes
from pkgjail.core.text import raw_path, text_path
from pkgjail.core.untrusted import PARSE_INT, is_nested
from pkgjail.storage.atomic import write_own_file, write_own_file_in
from pkgjail.storage.fingerprint import TICKS_NS, is_variable, take_settled_fingerprint
from pkgjail.storage.locations import OTHERS_WRITE, cache_directory, shared_directory
from pkgjail.storage.marshal_store import digest
from pkgjail.storage.own_files import open_subdirectory, read_own_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import FileEntry
    from pkgjail.storage.fingerprint import Fingerprint

_FORMAT = 2
# The fields of an entry that the key depends on: all but its owners, and the text about it.
_KEY_FIELDS = attrgetter("path", "kind", "mode", "size", "target", "sha256", "origin")
# Bytes; a baseline of a million names has some 40 million.
_LARGEST = 1 << 26
# The clocks of a file server and of this host may differ by as much.
_CLOCK_SKEW_NS = 60_000_000_000


class Baseline(NamedTuple):
    """The state of directories, and the names in them, `at` a time (ns since the epoch) or a little later.

    `states` come from `pkgjail.storage.fingerprint.take_fingerprint`. For each of their paths, `names` has
    the names in it, each with its inode number. `borrowed` marks the baseline of another user, who is
    trusted only for a manifest in that user's directory: nothing that depends on it is stored, since the
    same manifest may also be elsewhere.
    """

    at: int
    states: Fingerprint
    names: dict[bytes, dict[bytes, int]]
    borrowed: bool = False


class Publisher(NamedTuple):
    """The user who decides what a manifest is.

    `owner` is the user id that owns the manifest's directory; None if others can write there too, or if it
    is unclear who that user is. `made` is when the manifest was written (ns since the epoch): older
    baselines do not count. `readable` says whether others can read it.
    """

    owner: int | None
    made: int
    readable: bool


def publisher_of(manifest: AnyPath) -> Publisher | None:
    """Return the publisher of the manifest at a path; None if there is no such file."""
    manifest = path_bytes(manifest, "manifest")
    real = os.path.realpath(manifest)
    try:
        found, parent = os.stat(real), os.stat(os.path.dirname(real))
    except OSError:
        return None
    alone = stat.S_ISREG(found.st_mode) and not parent.st_mode & OTHERS_WRITE and _is_one_user(parent.st_uid)
    readable = bool(found.st_mode & parent.st_mode & stat.S_IROTH)
    return Publisher(parent.st_uid if alone else None, found.st_mtime_ns, readable)


def _is_one_user(uid: int) -> bool:
    """Return whether a user id stands for one user: a user namespace shows all unmapped users as one."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_bytes())
        mapping = Path("/proc/self/uid_map").read_bytes().split()
    except OSError:
        return False
    return uid != overflow or mapping == [b"0", b"0", b"4294967295"]


def record_baseline(entries: Sequence[FileEntry], root: AnyPath = b"/", *, since: int | None = None) -> None:
    """Store the state of this host as the baseline of a manifest that was just made from it.

    Args:
        entries: the manifest's entries.
        root: the directory that the manifest was made from.
        since: when making it began (ns since the epoch). If a directory has changed since then, the first
            entry compares its files.

    Raises:
        OSError: the baseline cannot be stored.

    """
    root = path_bytes(root, "root")
    root = os.path.realpath(root)
    baseline = take_baseline(entries, root)
    if since is not None:
        at = since - TICKS_NS
        states = [
            (path, device, inode, mtime, ctime if ctime < at else 0)  # 0 counts as changed
            for path, device, inode, mtime, ctime in baseline.states
        ]
        baseline = baseline._replace(at=at, states=tuple(states))
    store_baseline(baseline_key(entries, root), baseline)


def take_baseline(entries: Sequence[FileEntry], root: bytes) -> Baseline:
    """Return the present state of the directories of `entries`, below the real path `root`.

    Directories that do not exist, and those in variable parts of the host, are left out. A directory that
    may not be read has no names.
    """
    directories = tuple(_directories(entries, root))
    take_settled_fingerprint(directories)  # so that recent changes are older than `at`
    at = time.time_ns() - TICKS_NS
    states = take_settled_fingerprint(directories)
    return Baseline(at, states, {path: names_in(path) for path, *_ in states})


def names_in(directory: bytes) -> dict[bytes, int]:
    """Return the names in a directory with their inode numbers; none if it cannot be read."""
    if not is_directory(directory):
        return {}
    try:
        with os.scandir(directory) as found:
            return {entry.name: entry.inode() for entry in found}
    except OSError:
        return {}


def is_directory(path: bytes) -> bool:
    """Return whether `path` is a directory itself, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def baseline_key(entries: Iterable[FileEntry], root: bytes) -> str:
    """Return the name of the baseline of a manifest's files on this host."""
    return digest((list(map(_KEY_FIELDS, entries)), root, _host(root)))


def load_baseline(key: str, publisher: Publisher | None = None) -> Baseline | None:
    """Return the newest baseline under `key`: the user's own, root's, or the publisher's.

    None if none can be read, or the manifest is newer than all of them.
    """
    made = 0 if publisher is None else publisher.made - _CLOCK_SKEW_NS
    candidates = [_parse(_read_own(key)), _parse(_read_published(key, 0))]
    owner = 0 if publisher is None else publisher.owner
    if owner:
        of_owner = _parse(_read_published(key, owner))
        candidates.append(of_owner and of_owner._replace(borrowed=owner != os.geteuid()))
    usable = [baseline for baseline in candidates if baseline is not None and baseline.at >= made]
    return max(usable, key=lambda baseline: baseline.at, default=None)


def load_own_baseline(key: str) -> Baseline | None:
    """Return the user's own baseline under `key`, with all names that the host had; None if there is none."""
    return _parse(_read_own(key))


def store_baseline(key: str, baseline: Baseline) -> None:
    """Store `baseline` as the user's own. Raises `OSError`."""
    write_own_file(_own_path(key), _dump(baseline))


def publish_baseline(key: str, baseline: Baseline) -> None:
    """Store `baseline` for other users, without the names in directories that others may not list.

    Raises:
        OSError: it cannot be written, or another user made the directory first.

    """
    reachable: dict[bytes, bool] = {b"/": True}
    public = baseline._replace(
        names={path: _public_names(path, names, reachable) for path, names in baseline.names.items()}
    )
    shared = shared_directory(os.geteuid())
    with _opened_for_all(shared) as top, _opened_for_all("baselines", top) as directory:
        write_own_file_in(directory, key, _dump(public), mode=0o644)


@contextlib.contextmanager
def _opened_for_all(name: str, parent: int | None = None) -> Iterator[int]:
    """Open a directory of this user that others may read; make it if it is missing."""
    descriptor = open_subdirectory(parent, name, make=True, repair=True)
    try:
        os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def is_published(key: str) -> bool:
    """Return whether this user published a baseline under `key`."""
    return os.path.exists(_published_path(key, os.geteuid()))


def may_publish(publisher: Publisher | None) -> bool:
    """Return whether other users of a manifest would trust this user's baselines."""
    return publisher is not None and publisher.readable and os.geteuid() in {0, publisher.owner}


def _public_names(
    directory: bytes, names: dict[bytes, int], reachable: dict[bytes, bool]
) -> dict[bytes, int]:
    """Return the names in a directory if everybody may list it; `reachable` remembers earlier results."""
    try:
        may_list = os.lstat(directory).st_mode & stat.S_IROTH and _is_reachable(directory, reachable)
    except OSError:
        return {}
    return names if may_list else {}


def _is_reachable(path: bytes, reachable: dict[bytes, bool]) -> bool:
    """Return whether everybody may search all directories above `path`. Raises `OSError`."""
    parent = os.path.dirname(path)
    if parent not in reachable:
        may_search = bool(os.stat(parent).st_mode & stat.S_IXOTH)
        reachable[parent] = may_search and _is_reachable(parent, reachable)
    return reachable[parent]


def _own_path(key: str) -> str:
    return f"{cache_directory()}/baselines/{key}"


def _published_path(key: str, owner: int) -> Path:
    return Path(shared_directory(owner), "baselines", key)


def _read_own(key: str) -> bytes:
    try:
        return read_own_file(_own_path(key))
    except OSError:
        return b""


def _read_published(key: str, owner: int) -> bytes:
    """Return what `owner` published under `key`, if nobody else can have written it; otherwise nothing.

    Anybody may make names in /var/tmp, so each level is opened from the one above it, and checked.
    """
    path = _published_path(key, owner)
    try:
        current = os.open(path.parent.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return b""
    for name, kind in ((path.parts[-3], os.O_DIRECTORY), (path.parts[-2], os.O_DIRECTORY), (key, 0)):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | kind
        try:
            descriptor = os.open(name, flags, dir_fd=current)
        except OSError:
            return b""
        finally:
            os.close(current)
        current = descriptor
        found = os.fstat(current)
        if found.st_uid != owner or found.st_mode & OTHERS_WRITE:
            os.close(current)
            return b""
    with open(current, "rb") as file:
        return file.read(_LARGEST) if stat.S_ISREG(found.st_mode) else b""


def _dump(baseline: Baseline) -> bytes:
    directories = [
        (text_path(path), *state, {text_path(name): inode for name, inode in baseline.names[path].items()})
        for path, *state in baseline.states
    ]
    return json.dumps({"format": _FORMAT, "at": baseline.at, "directories": directories}).encode()


def _parse(data: bytes) -> Baseline | None:
    """Return a baseline from what `_dump` writes; None for anything else. The data may be malicious."""
    try:
        text = data.decode()
        values: Any = {} if is_nested(text) else json.loads(text, parse_int=PARSE_INT)
        if values["format"] != _FORMAT:
            return None
        states, names = [], {}
        for path, *state, inodes in values["directories"]:
            device, inode, mtime, ctime = map(int, state)
            if path[:1] != "/" or "\0" in path:
                return None
            states.append((raw_path(path), device, inode, mtime, ctime))
            names[raw_path(path)] = {raw_path(name): int(number) for name, number in inodes.items()}
        return Baseline(int(values["at"]), tuple(states), names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _host(root: bytes) -> tuple[str, bytes, int, int]:
    """Return what differs between hosts that share a home: name, machine-id(5), for containers the root."""
    machine, device, inode = b"", 0, 0
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_bytes()
    with contextlib.suppress(OSError):
        found = os.stat(root)
        device, inode = found.st_dev, found.st_ino
    return os.uname().nodename, machine, device, inode


def _directories(entries: Sequence[FileEntry], root: bytes) -> Iterator[bytes]:
    prefix = root.rstrip(b"/")
    for entry in entries:
        if entry.kind == "directory" and not is_variable(entry.path):
            path = prefix + entry.path
            if is_directory(path):
                yield path
