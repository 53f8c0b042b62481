"""Copies of files whose owner programs check, made when a jail is entered.

A program that trusts a file only if root or its own user owns it refuses the host's files: the jail has no
id for root's unless root enters it, so they show 65534. A copy belongs to the user who enters. These are
the files that ssh(1) reads by `Include`: ssh_config(5) has it end with "Bad owner or permissions".
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import DriftError
from pkgjail.core.paths import follow
from pkgjail.storage.fingerprint import take_settled_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import FileEntry

    State = tuple[bytes, int, int, int, int]

_SSH = b"/etc/ssh/"
# Distributions and packages put files there, or links to them, that /etc/ssh/ssh_config includes.
_INCLUDED = b"/ssh_config.d"
_CRYPTO_POLICY = b"/etc/crypto-policies/back-ends/openssh.config"
_MOST_BYTES = 1 << 20  # of a file; ssh's are a few lines


def owned_copies(
    entries: Sequence[FileEntry], root: bytes, *, allow_drift: bool = False
) -> tuple[dict[bytes, bytes], tuple[State, ...]]:
    """Return the content of the copies by path, and the states of the files that they were made from.

    A file is copied if neither root in the jail nor the calling user owns it on the host.

    Args:
        entries: the manifest's.
        root: the directory of its files, a real path.
        allow_drift: whether other content than the manifest's digest says is accepted.

    Raises:
        DriftError: a file has other content than the manifest says.

    """
    prefix = root.rstrip(b"/")
    checked = [entry for entry in _checked(entries) if _is_another_users(prefix + entry.path)]
    states = take_settled_fingerprint([prefix + entry.path for entry in checked])
    copies: dict[bytes, bytes] = {}
    for entry in checked:
        content = _read(prefix + entry.path)
        if content is None:
            continue
        import hashlib

        digest = hashlib.sha256(content).hexdigest()
        if entry.sha256 is not None and digest != entry.sha256 and not allow_drift:
            raise DriftError(((entry.path, Mismatch("content", entry.sha256, digest)),))
        copies[entry.path] = content
    return copies, states


def _checked(entries: Sequence[FileEntry]) -> Iterator[FileEntry]:
    """Yield the regular files whose owner is checked, also by a link to them."""
    named = [entry for entry in entries if b"ssh" in entry.path and _is_checked(entry.path)]
    found = {entry.path for entry in named if entry.kind != "symlink"}
    if len(found) < len(named):
        targets = {entry.path: entry.target for entry in entries if entry.kind == "symlink"}
        for entry in named:
            with contextlib.suppress(OSError):  # a loop, which no program can open
                found.add(follow(entry.path, targets.get))
    if found:
        yield from (
            entry
            for entry in entries
            if entry.path in found and entry.kind == "regular" and entry.origin != "entry"
        )


def _is_checked(path: bytes) -> bool:
    return path.startswith(_SSH) or path.rpartition(b"/")[0].endswith(_INCLUDED) or path == _CRYPTO_POLICY


def _is_another_users(path: bytes) -> bool:
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False


def _read(path: bytes) -> bytes | None:
    """Return the content of a small regular file, or None if it is something else or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            return None
        content = file.read(_MOST_BYTES + 1)
    return content if len(content) <= _MOST_BYTES else None
