"""Compute the SHA-256 of many files: those not in the cache are read by as many processes as CPUs.

The cache is not used on file systems whose times do not tell whether a file changed
(`pkgjail.storage.filesystems`).

Threads would be slower here than a single one: most files are small, and Python and system calls take the
time. A digest is stored only if the file had not changed for two seconds before it was read: a later change
within the resolution of its timestamps would not show.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from time import time_ns
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import PkgjailError
from pkgjail.core.given import path_bytes, path_sequence
from pkgjail.core.parallel import in_processes
from pkgjail.core.reporter import SILENT
from pkgjail.storage.digest_cache import HashCache, Identity
from pkgjail.storage.digests import FILE_FLAGS, read_digests
from pkgjail.storage.filesystems import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pkgjail.core.given import AnyPath
    from pkgjail.core.reporter import Reporter

__all__ = ["HashCache", "hash_files"]

_ATTEMPTS = 3
_AT_REST_NS = 2_000_000_000

# Opening a file costs about as much time as reading this many bytes of it.
_OPENING_BYTES = 1 << 15
# A process takes about as long to start as this many bytes take to be hashed.
_WORTH_A_PROCESS = 1 << 25
_LEAST_SHARE = 1 << 20
_SHARES_PER_PROCESS = 8


class _File(NamedTuple):
    """A file to hash: its path on this host, and its identity when it was found."""

    path: bytes
    identity: Identity


class _Hashed(NamedTuple):
    """The digest of the file `requested`, and the identity to store it under; None if it just changed."""

    requested: Identity
    sha256: str
    stored: Identity | None


def hash_files(
    paths: Iterable[AnyPath],
    *,
    root: AnyPath = b"/",
    cache: HashCache | None = None,
    reporter: Reporter = SILENT,
) -> dict[bytes, str]:
    """Return the SHA-256, in hex, of each of `paths`, in their order.

    Args:
        paths: absolute paths of regular files, as seen from `root`. A symbolic link as last component is
            never followed; the caller resolves the directories before it.
        root: the directory that the paths are below.
        cache: the digests of earlier runs; None to read every file.
        reporter: receives the progress in files ("hashing"), and one warning if the cache fails.

    Raises:
        OSError: a file (`filename`) does not exist, is not regular, or cannot be read.
        PkgjailError: a file kept changing while it was read, or a process died.

    """
    paths = path_sequence(paths, "paths")
    root = path_bytes(root, "root")
    base = root.rstrip(b"/")
    names = {path: base + path for path in paths}
    identities = {path: _identity_of(os.lstat(name), name) for path, name in names.items()}
    # Hard links are one file and are read once.
    files = {identity: names[path] for path, identity in identities.items()}
    devices = _devices(files) if cache is not None else {}
    keys = {_key(each, devices): each for each in files if each.device in devices}
    cached = None if cache is None else cache.lookup(list(keys), reporter)
    digests = {keys[key]: sha256 for key, sha256 in (cached or {}).items()}
    new: dict[Identity, str] = {}
    total = len(files)

    def note(share: list[_Hashed]) -> None:
        """Add digests to the result, and report the progress."""
        for hashed in share:
            digests[hashed.requested] = hashed.sha256
            if hashed.stored is not None:
                new[hashed.stored] = hashed.sha256
        reporter.progress("hashing", len(digests), total)

    reporter.progress("hashing", len(digests), total)
    _hash([_File(path, each) for each, path in files.items() if each not in digests], note)
    if cache is not None and cached is not None:
        cache.store({_key(e, devices): sha256 for e, sha256 in new.items() if e.device in devices}, reporter)
    return {path: digests[identity] for path, identity in identities.items()}


def _identity_of(status: os.stat_result, path: bytes) -> Identity:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return Identity.of(status)


def _devices(files: Mapping[Identity, bytes]) -> dict[int, int]:
    """Return, for each device whose files can be recognized later, a number unique to its file system."""
    first: dict[int, bytes] = {}
    for each, path in files.items():
        first.setdefault(each.device, path)
    found = {device: identity(path) for device, path in first.items()}
    return {device: _combined(device, number) for device, number in found.items() if number is not None}


def _combined(device: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(b"%d %d" % (device, number)).digest()[:8], "little")


def _key(file: Identity, devices: Mapping[int, int]) -> Identity:
    """Return the key of a file in the cache: the kernel reuses device numbers for other file systems."""
    return file._replace(device=devices[file.device])


def _hash(files: list[_File], note: Callable[[list[_Hashed]], None]) -> None:
    """Hash `files` and pass each share to `note` when it is done."""
    cost = sum(map(_cost, files))
    processes = min(len(os.sched_getaffinity(0)), cost // _WORTH_A_PROCESS)
    if processes > 1:
        _hash_in_processes(_shares(files, cost // (processes * _SHARES_PER_PROCESS)), processes, note)
    else:
        for share in _shares(files, _LEAST_SHARE):
            note(_hash_share(share))


def _cost(file: _File) -> int:
    return file.identity.size + _OPENING_BYTES


def _shares(files: list[_File], cost: int) -> list[list[_File]]:
    """Split `files` into shares of about `cost`, the largest first, so that all processes end together."""
    cost = max(cost, _LEAST_SHARE)
    shares: list[list[_File]] = []
    room = 0
    for file in sorted(files, key=_cost, reverse=True):
        if room <= 0:
            shares.append([])
            room = cost
        shares[-1].append(file)
        room -= _cost(file)
    return shares


def _hash_in_processes(
    shares: list[list[_File]], processes: int, note: Callable[[list[_Hashed]], None]
) -> None:
    for hashed in in_processes(_hash_share, shares, processes, "hashing"):
        note(hashed)


def _hash_share(share: list[_File]) -> list[_Hashed]:
    return [_hash_file(file) for file in share]


def _hash_file(file: _File) -> _Hashed:
    """Read a file until its identity is the same after reading as before."""
    for _ in range(_ATTEMPTS):
        began = time_ns()
        descriptor = os.open(file.path, FILE_FLAGS)
        try:
            before = _identity_of(os.fstat(descriptor), file.path)
            size, digest = _read(descriptor, file.path)
            after = _identity_of(os.fstat(descriptor), file.path)
        finally:
            os.close(descriptor)
        if before == after and size == before.size:
            at_rest = began - max(before.ctime, before.mtime) >= _AT_REST_NS
            return _Hashed(file.identity, digest, before if at_rest else None)
    raise PkgjailError(
        f"cannot hash {os.fsdecode(file.path)}: it changes while it is read; "
        "wait until nothing writes to it, and try again"
    )


def _read(descriptor: int, path: bytes) -> tuple[int, str]:
    """Return the number of bytes read, and their digest."""
    try:
        size, (digest,) = read_digests(descriptor, "sha256")
    except OSError as error:
        error.filename = path
        raise
    return size, digest
