"""Seals: what the host's directories held when a manifest was made, or first entered, on this host.

A manifest says what is in the jail. Which other names stood beside it on the host it does not say; its
seal does, so that a name that is added, removed or replaced later is noticed. Seals lie in the user's
cache directory, by the files of the manifest, the root, and the host.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import stat
import time
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.cache import cache_directory
from pkgjail.dirstate import TICKS_NS, observe_settled
from pkgjail.places import keep, read_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.model import FileEntry

_FORMAT = 1
# What of an entry its manifest's seal depends on: all but whose it is, and the words about it.
_FACTS = attrgetter("path", "kind", "mode", "size", "target", "sha256", "origin")
# Two seals of one manifest are the same on all Pythons: version 2 has no references, which newer
# versions place by how often an object happens to be used.
_MARSHAL = 2
# Where names come and go while a host merely runs: FHS 3.0, sections 3, 5 and 6, and hier(7).
_VARIABLE = frozenset(
    {b"dev", b"home", b"media", b"mnt", b"proc", b"root", b"run", b"srv", b"sys", b"tmp", b"var"}
)


class Seal(NamedTuple):
    """`at` is when the names were read (ns since the epoch), or a little before.

    `states` are those of `pkgjail.dirstate.observe`, and `names` has for each of their paths the names
    in it, each with its inode's number.
    """

    at: int
    states: tuple[tuple[bytes, int, int, int, int], ...]
    names: dict[bytes, dict[bytes, int]]


def seal_host(entries: Sequence[FileEntry], root: bytes = b"/") -> None:
    """Keep what this host has beside the files of a manifest that was just made from it.

    Entries that come later are held against it. Raises `OSError` where it cannot be kept.
    """
    root = os.path.realpath(root)
    store_seal(seal_key(entries, root), take_seal(entries, root))


def is_variable(path: bytes) -> bool:
    """Whether `path` is in a part of the host where names come and go while it merely runs."""
    return path.split(b"/", 2)[1] in _VARIABLE


def take_seal(entries: Sequence[FileEntry], root: bytes) -> Seal:
    """What the host has now in the directories of `entries`, below the real path `root`.

    Directories that are not there, and those in variable parts of the host, are left out. One that
    may not be read has no names.
    """
    at = time.time_ns() - TICKS_NS
    states = observe_settled(_directories(entries, root))
    return Seal(at, states, {path: names_in(path) for path, *_ in states})


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


def seal_key(entries: Iterable[FileEntry], root: bytes) -> str:
    """The name of the seal of a manifest's files, on this host."""
    facts = list(map(_FACTS, entries))
    return hashlib.sha256(marshal.dumps((facts, root, _host(root)), _MARSHAL)).hexdigest()


def load_seal(key: str) -> Seal | None:
    """The seal that was stored under `key`; None where there is none that can be read."""
    try:
        form, *fields = marshal.loads(read_kept(str(_place(key))))  # noqa: S302 - the user's own
        return Seal(*fields) if form == _FORMAT else None
    except (OSError, EOFError, ValueError, TypeError):
        return None


def store_seal(key: str, seal: Seal) -> None:
    """Keep `seal` under `key`. Raises `OSError`."""
    keep(str(_place(key)), marshal.dumps((_FORMAT, *seal), _MARSHAL))


def _place(key: str) -> Path:
    return cache_directory() / "seals" / key


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
