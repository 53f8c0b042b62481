"""Facts about files: their kinds agree with the kernel's, and a comparison finds what differs."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.entries import (
    KINDS,
    MISSING,
    NOUNS,
    Mismatch,
    MismatchKind,
    compare,
    describe,
    failure,
    kind_and_mode,
    kind_of,
    kind_of_item,
    lstat,
    noun_of,
)
from pkgjail.core.model import FileEntry, FileKind, PlanOption, StrategyName

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


_MADE: list[tuple[Callable[[Path], object], FileKind | None, str]] = [
    (lambda path: path.write_bytes(b"x"), "regular", "regular file"),
    (lambda path: path.mkdir(), "directory", "directory"),
    (lambda path: path.symlink_to("nowhere"), "symlink", "symbolic link"),
    (lambda path: path.symlink_to("."), "symlink", "symbolic link"),
    (os.mkfifo, None, "FIFO"),
    (_socket, None, "socket"),
]


@pytest.mark.parametrize(("make", "kind", "noun"), _MADE, ids=[noun for _, _, noun in _MADE])
def test_a_file_has_one_kind_however_it_is_looked_at(
    tmp_path: Path, make: Callable[[Path], object], kind: FileKind | None, noun: str
) -> None:
    make(tmp_path / "x")
    mode = os.lstat(tmp_path / "x").st_mode
    (item,) = os.scandir(os.fsencode(tmp_path))
    assert (kind_of(mode), kind_of_item(item), noun_of(mode)) == (kind, kind, noun)
    assert kind_and_mode(mode) == (kind, 0o777 if kind == "symlink" else stat.S_IMODE(mode))


@pytest.mark.parametrize(
    ("path", "noun"), [("/dev/null", "character device"), ("/dev/tty", "character device")]
)
def test_devices_are_no_kind_of_a_manifest(path: str, noun: str) -> None:
    mode = os.stat(path).st_mode
    assert (kind_of(mode), noun_of(mode)) == (None, noun)


@given(st.integers(0, 0o177777))
def test_every_mode_has_a_noun_and_at_most_one_kind(mode: int) -> None:
    """The predicates of the standard library agree."""
    kind = kind_of(mode)
    predicates = {"regular": stat.S_ISREG, "directory": stat.S_ISDIR, "symlink": stat.S_ISLNK}
    assert {name for name, holds in predicates.items() if holds(mode)} == ({kind} if kind else set())
    assert noun_of(mode)


def test_every_kind_has_its_bits_and_its_noun() -> None:
    assert set(KINDS.values()) == set(NOUNS) == set(get_args(FileKind))


def test_plans_are_strategies_or_the_choice_of_one() -> None:
    assert set(get_args(PlanOption)) == {"auto", *get_args(StrategyName)}


_FILE = FileEntry(path=b"/x", kind="regular", mode=0o640, size=3)
_DIRECTORY = FileEntry(path=b"/x", kind="directory", mode=0o750)
_LINK = FileEntry(path=b"/x", kind="symlink", mode=0o777, target=b"to\xff")


def _write(path: Path, content: bytes = b"abc", mode: int = 0o640) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def _make_directory(path: Path, mode: int = 0o750) -> None:
    path.mkdir()
    path.chmod(mode)


_COMPARED: list[tuple[str, FileEntry, Callable[[Path], object], tuple[Mismatch, ...]]] = [
    ("a file", _FILE, _write, ()),
    ("a directory", _DIRECTORY, _make_directory, ()),
    ("a link", _LINK, lambda path: path.symlink_to(os.fsdecode(b"to\xff")), ()),
    ("nothing", _FILE, lambda _: None, (Mismatch("missing"),)),
    ("another mode", _FILE, lambda p: _write(p, mode=0o4755), (Mismatch("mode", "0640", "4755"),)),
    ("another size", _FILE, lambda p: _write(p, b"abcd"), (Mismatch("size", "3", "4"),)),
    (
        "another mode and size",
        _FILE,
        lambda p: _write(p, b"", 0o600),
        (Mismatch("mode", "0640", "0600"), Mismatch("size", "3", "0")),
    ),
    (
        "a directory's mode",
        _DIRECTORY,
        lambda p: _make_directory(p, 0o700),
        (Mismatch("mode", "0750", "0700"),),
    ),
    ("a link elsewhere", _LINK, lambda p: p.symlink_to("of"), (Mismatch("target", "to\udcff", "of"),)),
    (
        "a link for a file, which is not followed",
        _FILE,
        lambda p: p.symlink_to(p.parent),
        (Mismatch("kind", "regular file", "symbolic link"),),
    ),
    ("a FIFO for a directory", _DIRECTORY, os.mkfifo, (Mismatch("kind", "directory", "FIFO"),)),
]


@pytest.mark.parametrize(
    ("entry", "make", "expected"), [case[1:] for case in _COMPARED], ids=[case[0] for case in _COMPARED]
)
@pytest.mark.parametrize("by_descriptor", [False, True], ids=["by path", "by descriptor"])
def test_what_differs_is_found(
    tmp_path: Path,
    entry: FileEntry,
    make: Callable[[Path], object],
    expected: tuple[Mismatch, ...],
    *,
    by_descriptor: bool,
) -> None:
    make(tmp_path / "x")
    path = os.fsencode(tmp_path / "x")
    found = lstat(path)
    if by_descriptor:
        descriptor = os.open(tmp_path, os.O_PATH)
        try:
            assert compare(entry, b"x", found, mode=entry.mode, dir_fd=descriptor) == expected
        finally:
            os.close(descriptor)
    else:
        assert compare(entry, path, found, mode=entry.mode) == expected


def test_another_file_of_the_same_facts_is_told_by_its_inode(tmp_path: Path) -> None:
    _write(tmp_path / "x")
    path = os.fsencode(tmp_path / "x")
    found = os.lstat(path)
    assert compare(_FILE, path, found, inode=found.st_ino) == ()
    assert compare(_FILE, path, found, inode=found.st_ino + 1) == (Mismatch("replaced", "regular file"),)


@given(
    st.builds(
        FileEntry,
        path=st.just(b"/x"),
        kind=st.sampled_from(["regular", "directory"]),
        mode=st.integers(0, 0o7777),
        size=st.integers(0, 2**63),
    ),
    st.sampled_from([*KINDS, stat.S_IFIFO]),
    st.integers(0, 0o7777),
    st.integers(0, 2**63),
)
def test_a_comparison_finds_what_differs(entry: FileEntry, bits: int, mode: int, size: int) -> None:
    """Each mismatch names a fact that differs, and a fact that differs has one."""
    found = os.stat_result((bits | mode, 1, 1, 1, 0, 0, size, 0, 0, 0))
    mismatches = {mismatch.what: mismatch for mismatch in compare(entry, b"/x", found, mode=entry.mode)}
    if KINDS.get(bits) != entry.kind:
        assert set(mismatches) == {"kind"}
        return
    assert ("mode" in mismatches) == (mode != entry.mode)
    assert ("size" in mismatches) == (entry.kind == "regular" and size != entry.size)
    assert set(mismatches) <= {"mode", "size"}
    assert "mode" not in {mismatch.what for mismatch in compare(entry, b"/x", found)}
    for mismatch in mismatches.values():
        assert mismatch.expected != mismatch.found


_DESCRIBED: list[tuple[Mismatch, str]] = [
    (MISSING, "is gone"),
    (Mismatch("kind", "regular file", "FIFO"), "is no longer a regular file"),
    (Mismatch("mode", "0640", "4755"), "has mode 4755, not 0640"),
    (Mismatch("size", "3", "4"), "has 4 bytes, not 3"),
    (Mismatch("target", "{a}", "{b}"), "is a link to somewhere else"),
    (
        failure("undeletable", OSError(39, "Not {0} empty")),
        "cannot be deleted: Not {0} empty",
    ),
    (failure("unreadable", OSError("odd")), "has changed, and cannot be read: odd"),
]


@pytest.mark.parametrize(("mismatch", "words"), _DESCRIBED)
def test_a_mismatch_in_words(mismatch: Mismatch, words: str) -> None:
    assert describe(mismatch) == words


@pytest.mark.parametrize("what", get_args(MismatchKind))
def test_every_mismatch_has_words(what: MismatchKind) -> None:
    assert describe(Mismatch(what, "EXPECTED", "FOUND"))
