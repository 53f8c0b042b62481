"""Digests of files: as hashlib has them, of the whole content, by several algorithms at once."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.storage import digests
from pkgjail.storage.digests import file_digests, read_digests, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

_ALGORITHMS = ("md5", "sha1", "sha256", "sha512")


@given(st.binary(max_size=200), st.lists(st.sampled_from(_ALGORITHMS), max_size=4), st.integers(1, 64))
def test_digests_are_of_the_whole_content(content: bytes, algorithms: list[str], block: int) -> None:
    """Whatever the blocks; the file's offset stays."""
    descriptor = os.memfd_create("x")
    with pytest.MonkeyPatch.context() as patch, open(descriptor, "w+b", buffering=0) as file:
        patch.setattr(digests, "_BLOCK", block)
        file.write(content)
        file.seek(len(content) // 2)
        expected = tuple(hashlib.new(name, content, usedforsecurity=False).hexdigest() for name in algorithms)
        assert read_digests(descriptor, *algorithms) == (len(content), expected)
        assert sha256_of(descriptor) == hashlib.sha256(content).hexdigest()
        assert file.tell() == len(content) // 2


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert file_digests(os.fsencode(tmp_path / "file"), "sha1") == (
        "a9993e364706816aba3e25717850c26c9cd0d89d",
    )
    with pytest.raises(OSError, match="symbolic link"):
        file_digests(os.fsencode(tmp_path / "link"), "sha1")
    with pytest.raises(IsADirectoryError):
        file_digests(os.fsencode(tmp_path), "sha1")
