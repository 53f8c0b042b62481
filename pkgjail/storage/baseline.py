"""Baselines: the state of the host's directories at a time when the host matched a manifest.

A manifest says what is in the jail, with a digest of each file. To compare every file at each entry would
take a second. A baseline records the state of each of the manifest's directories, and the names in it, as
they were when every digest matched; while a directory's state is the same, its files were not replaced.

A user's baselines lie in the user's cache directory. A user who owns the directory that a manifest or an
environment lies in, and root, also publish theirs in /var/tmp (or
PKGJAIL_SHARED_DIR), where other users of that manifest find them
and so need not compare every file themselves. A published baseline is believed where the owner of the
manifest's directory, or root, made it and nobody else can change it: whoever can replace the manifest
decides what is in the jail anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import marshal
import os
import stat
import time
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pkgjail.core.model import raw_path, text_path
from pkgjail.core.untrusted import PARSE_INT, is_nested
from pkgjail.storage.cache import cache_directory
from pkgjail.storage.fingerprint import TICKS_NS, is_variable, observe_settled
from pkgjail.storage.locations import keep, keep_in, open_below, read_kept, shared_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.core.model import FileEntry

_FORMAT = 2
# What of an entry the key depends on: all but whose it is, and the words about it.
_FACTS = attrgetter("path", "kind", "mode", "size", "target", "sha256", "origin")
# Two keys of one manifest are the same on all Pythons: version 2 has no references, which newer
# versions place by how often an object happens to be used.
_MARSHAL = 2
# Bytes; a baseline of a million names has some 40 million.
_LARGEST = 1 << 26
# The clocks of a file server and of this host may differ by as much.
_CLOCKS_NS = 60_000_000_000


class Baseline(NamedTuple):
    """`at` is when the names were read (ns since the epoch), or a little before.

    `states` are those of `pkgjail.storage.fingerprint.observe`, and `names` has for each of their paths the
    names
    in it, each with its inode's number. `borrowed` is one of another user's, who is believed for a manifest
    in that user's directory alone: what depends on it is not kept, for the same manifest may lie elsewhere.
    """

    at: int
    states: tuple[tuple[bytes, int, int, int, int], ...]
    names: dict[bytes, dict[bytes, int]]
    borrowed: bool = False


class Publisher(NamedTuple):
    """Who decides what a manifest is.

    `owner` is the user id that owns its directory, None where others can write there too, or it cannot be
    told who that is. `made` is when the manifest was written (ns since the epoch): baselines that are older
    do not count. `readable` says whether others can read it.
    """

    owner: int | None
    made: int
    readable: bool


def publisher_of(manifest: bytes) -> Publisher | None:
    """The publisher of the manifest at a path; None where there is no such file."""
    real = os.path.realpath(manifest)
    try:
        found, above = os.stat(real), os.stat(os.path.dirname(real))
    except OSError:
        return None
    alone = stat.S_ISREG(found.st_mode) and not above.st_mode & 0o022 and _is_one_user(above.st_uid)
    readable = bool(found.st_mode & above.st_mode & 0o004)
    return Publisher(above.st_uid if alone else None, found.st_mtime_ns, readable)


def _is_one_user(uid: int) -> bool:
    """Whether a user id stands for one user: a user namespace shows all that it does not map as one, too."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_bytes())
        maps = Path("/proc/self/uid_map").read_bytes().split()
    except OSError:
        return False
    return uid != overflow or maps == [b"0", b"0", b"4294967295"]


def record_baseline(entries: Sequence[FileEntry], root: bytes = b"/", *, since: int | None = None) -> None:
    """Keep the state of this host as the baseline of a manifest that was just made from it.

    Args:
        entries: the manifest's.
        root: the directory that the manifest was made from.
        since: when that began (ns since the epoch). What is in a directory that has changed after it, the
            first entry compares.

    Raises:
        OSError: it cannot be kept.

    """
    root = os.path.realpath(root)
    baseline = take_baseline(entries, root)
    if since is not None:
        at = since - TICKS_NS
        states = [
            (path, device, inode, mtime, ctime if ctime < at else 0)  # 0: as if it changed again
            for path, device, inode, mtime, ctime in baseline.states
        ]
        baseline = baseline._replace(at=at, states=tuple(states))
    store_baseline(baseline_key(entries, root), baseline)


def take_baseline(entries: Sequence[FileEntry], root: bytes) -> Baseline:
    """What the host has now in the directories of `entries`, below the real path `root`.

    Directories that are not there, and those in variable parts of the host, are left out. One that
    may not be read has no names.
    """
    directories = tuple(_directories(entries, root))
    observe_settled(directories)  # so that what came just now is older than `at`
    at = time.time_ns() - TICKS_NS
    states = observe_settled(directories)
    return Baseline(at, states, {path: names_in(path) for path, *_ in states})


def names_in(directory: bytes) -> dict[bytes, int]:
    """The names in a directory, each with its inode's number; none where it is none, or may not be read."""
    if not is_directory(directory):
        return {}
    try:
        with os.scandir(directory) as found:
            return {entry.name: entry.inode() for entry in found}
    except OSError:
        return {}


def is_directory(path: bytes) -> bool:
    """Whether `path` is a directory itself, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def baseline_key(entries: Iterable[FileEntry], root: bytes) -> str:
    """The name of the baseline of a manifest's files, on this host."""
    facts = list(map(_FACTS, entries))
    return hashlib.sha256(marshal.dumps((facts, root, _host(root)), _MARSHAL)).hexdigest()


def load_baseline(key: str, publisher: Publisher | None = None) -> Baseline | None:
    """The newest baseline under `key`: the user's own, root's, or the publisher's.

    None where there is none that can be read, or the manifest is newer than all of them.
    """
    made = 0 if publisher is None else publisher.made - _CLOCKS_NS
    found = [_parse(_read_own(key)), _parse(_read_published(key, 0))]
    owner = 0 if publisher is None else publisher.owner
    if owner:
        of_owner = _parse(_read_published(key, owner))
        found.append(of_owner and of_owner._replace(borrowed=owner != os.geteuid()))
    usable = [one for one in found if one is not None and one.at >= made]
    return max(usable, key=lambda one: one.at, default=None)


def load_own_baseline(key: str) -> Baseline | None:
    """The user's own baseline under `key`, which has the names of all that the host had; None without."""
    return _parse(_read_own(key))


def store_baseline(key: str, baseline: Baseline) -> None:
    """Keep `baseline` as the user's own. Raises `OSError`."""
    keep(str(_place(key)), _dump(baseline))


def publish_baseline(key: str, baseline: Baseline) -> None:
    """Let other users find `baseline`, without the names in directories that others may not list.

    Raises:
        OSError: it cannot be written, or another user has taken the place.

    """
    reached: dict[bytes, bool] = {b"/": True}
    public = baseline._replace(
        names={path: _listed(path, names, reached) for path, names in baseline.names.items()}
    )
    with _opened_for_all(shared_place(os.geteuid())) as top, _opened_for_all("baselines", top) as shelf:
        keep_in(shelf, key, _dump(public), mode=0o644)


@contextlib.contextmanager
def _opened_for_all(name: str, above: int | None = None) -> Iterator[int]:
    """A directory of this user's that others may read, made where it is not there."""
    descriptor = open_below(above, name, make=True, mend=True)
    try:
        os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def is_published(key: str) -> bool:
    """Whether this user published a baseline under `key`."""
    return os.path.exists(_published(key, os.geteuid()))


def may_publish(publisher: Publisher | None) -> bool:
    """Whether this user's baselines serve the other users of a manifest."""
    return publisher is not None and publisher.readable and os.geteuid() in {0, publisher.owner}


def _listed(directory: bytes, names: dict[bytes, int], reached: dict[bytes, bool]) -> dict[bytes, int]:
    """The names in a directory, where everybody may list it; `reached` is what was found out before."""
    try:
        may_list = os.lstat(directory).st_mode & stat.S_IROTH and _is_reached(directory, reached)
    except OSError:
        return {}
    return names if may_list else {}


def _is_reached(path: bytes, reached: dict[bytes, bool]) -> bool:
    """Whether everybody may search all directories above `path`. Raises `OSError`."""
    above = os.path.dirname(path)
    if above not in reached:
        reached[above] = bool(os.stat(above).st_mode & stat.S_IXOTH) and _is_reached(above, reached)
    return reached[above]


def _place(key: str) -> Path:
    return cache_directory() / "baselines" / key


def _published(key: str, owner: int) -> Path:
    return Path(shared_place(owner), "baselines", key)


def _read_own(key: str) -> bytes:
    try:
        return read_kept(str(_place(key)))
    except OSError:
        return b""


def _read_published(key: str, owner: int) -> bytes:
    """What `owner` published under `key`, where nobody else can have written it; else nothing.

    Anybody may make names in /var/tmp, so each level is opened from the one above, and looked at.
    """
    place = _published(key, owner)
    try:
        above = os.open(place.parent.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return b""
    for name, kind in ((place.parts[-3], os.O_DIRECTORY), (place.parts[-2], os.O_DIRECTORY), (key, 0)):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | kind
        try:
            descriptor = os.open(name, flags, dir_fd=above)
        except OSError:
            return b""
        finally:
            os.close(above)
        above = descriptor
        found = os.fstat(above)
        if found.st_uid != owner or found.st_mode & 0o022:
            os.close(above)
            return b""
    with open(above, "rb") as file:
        return file.read(_LARGEST) if stat.S_ISREG(found.st_mode) else b""


def _dump(baseline: Baseline) -> bytes:
    directories = [
        (text_path(path), *state, {text_path(name): inode for name, inode in baseline.names[path].items()})
        for path, *state in baseline.states
    ]
    return json.dumps({"format": _FORMAT, "at": baseline.at, "directories": directories}).encode()


def _parse(data: bytes) -> Baseline | None:
    """A baseline; None where that is not what `_dump` writes. Nothing in it is believed to be well formed."""
    try:
        text = data.decode()
        values: Any = {} if is_nested(text) else json.loads(text, parse_int=PARSE_INT)
        if values["format"] != _FORMAT:
            return None
        states, names = [], {}
        for path, *state, inside in values["directories"]:
            device, inode, mtime, ctime = map(int, state)
            if path[:1] != "/" or "\0" in path:
                return None
            states.append((raw_path(path), device, inode, mtime, ctime))
            names[raw_path(path)] = {raw_path(name): int(number) for name, number in inside.items()}
        return Baseline(int(values["at"]), tuple(states), names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _host(root: bytes) -> tuple[str, bytes, int, int]:
    """What tells hosts apart that share a home: name, machine-id(5), and, for containers, the root itself."""
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
