"""Digests of a file's content, by one or several algorithms in one pass."""

from __future__ import annotations

import hashlib
import os

from pkgjail.core.untrusted import refuse_irregular

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""The flags to open a file that may have been replaced: no link is followed, and nothing is waited for."""

_BLOCK = 1 << 18


def read_digests(descriptor: int, *algorithms: str) -> tuple[int, tuple[str, ...]]:
    """Return the number of bytes of an open file, and their digests in hex; its offset does not move.

    Algorithms have the names that hashlib gives them. Raises `OSError`.
    """
    digests = [_new(algorithm) for algorithm in algorithms]
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        for digest in digests:
            digest.update(block)
        offset += len(block)
    return offset, tuple([digest.hexdigest() for digest in digests])


def _new(algorithm: str) -> hashlib._Hash:
    # `new` takes four times as long, which counts for thousands of small files.
    return hashlib.sha256() if algorithm == "sha256" else hashlib.new(algorithm, usedforsecurity=False)


def file_digests(path: bytes, *algorithms: str) -> tuple[str, ...]:
    """Return the digests, in hex, of the regular file at `path`, which is no link. Raises `OSError`."""
    descriptor = os.open(path, FILE_FLAGS)
    try:
        refuse_irregular(os.fstat(descriptor), path)
        return read_digests(descriptor, *algorithms)[1]
    finally:
        os.close(descriptor)


def sha256_of(descriptor: int) -> str:
    """Return the SHA-256, in hex, of an open file; its offset does not move. Raises `OSError`."""
    return read_digests(descriptor, "sha256")[1][0]
