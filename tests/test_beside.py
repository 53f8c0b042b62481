"""Temporary files and directories beside their targets: those of killed writers go, others stay."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.storage.atomic import new_directory, new_file, replace_file
from pkgjail.storage.beside import make_beside
from tests.tars import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    """A descriptor of an empty directory."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def leave(place: int, name: str, *, is_directory: bool = False) -> str:
    """Make what a writer leaves that is killed; returns its name."""
    left, descriptor = make_beside(place, name, is_directory=is_directory)
    os.close(descriptor)
    return left


@pytest.mark.parametrize("is_directory", [False, True])
def test_the_next_writer_removes_what_a_killed_one_left(
    tmp_path: Path, place: int, *, is_directory: bool
) -> None:
    """The file or the directory of the same target goes, with all that is in it, and no other."""
    left = tmp_path / leave(place, "out", is_directory=is_directory)
    other = tmp_path / leave(place, "other")
    if is_directory:
        write({"blobs/sha256/a": b"a"}, left)
        (left / "blobs").chmod(0o555)
    replace_file(tmp_path / "out", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([other.name, "out"])
    assert (tmp_path / "out").read_bytes() == b"new"


@pytest.mark.parametrize("is_directory", [False, True])
def test_several_writers_of_one_target(tmp_path: Path, *, is_directory: bool) -> None:
    """Each has a file of its own, which the others spare; the last one's stays."""
    target = tmp_path / "out"
    if is_directory:
        with new_directory(target) as first, new_directory(target) as second:
            assert first != second
            assert os.path.isdir(first)
            assert os.path.isdir(second)
        assert os.listdir(tmp_path) == ["out"]
        return
    with new_file(target) as first:
        replace_file(target, b"second")
        os.write(first, b"first")
    assert (os.listdir(tmp_path), target.read_bytes()) == (["out"], b"first")


def test_what_is_left_in_a_directory_that_others_may_write_to_stays(tmp_path: Path, place: int) -> None:
    """Another user could have put a directory of this user there, under the name of a left-over one."""
    left = leave(place, "out", is_directory=True)
    tmp_path.chmod(0o777)
    replace_file(tmp_path / "out", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([left, "out"])


def test_a_link_in_the_place_of_a_left_over_file_stays(tmp_path: Path, place: int) -> None:
    """It is neither followed nor removed."""
    left = leave(place, "out")
    (tmp_path / left).unlink()
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / left).symlink_to("precious")
    replace_file(tmp_path / "out", b"new")
    assert os.readlink(tmp_path / left) == "precious"
    assert (tmp_path / "precious").read_bytes() == b"kept"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written there too, and what is left stays: it may belong to a writer that is at work."""

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with new_file(tmp_path / "out"):
        replace_file(tmp_path / "out", b"new")
        assert (tmp_path / "out").read_bytes() == b"new"
        assert len(os.listdir(tmp_path)) == 2
