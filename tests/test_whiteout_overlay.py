"""Whiteout layers and directory binds as text: what they hide, add and let through."""

from __future__ import annotations

import errno
import os
import stat
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.model import FileEntry, Origin
from pkgjail.jails.strategies import whiteout_overlay
from pkgjail.jails.strategies.directory_binds import directory_bind_steps
from pkgjail.jails.strategies.whiteout_overlay import make_whiteout_layer
from tests.tree_text import make, parse_tree, shown

if TYPE_CHECKING:
    from pathlib import Path

_HOST = """
/d/file
/d/in/a
/d/in/b
/d/in/deep/c
/d/link -> file
/d/none/x
/d/none/y
/d/odd\\x0a\\xff/z
/d/same/one
/d/same/two
"""


def entries_of(text: str, origin: Origin = "package") -> list[FileEntry]:
    """Return the entries of a tree's text, by path.

    `!` before one makes its origin "alternative", and `+` makes it "entry".
    """
    origins: dict[str, Origin] = {"!": "alternative", "+": "entry"}
    entries = []
    for line in filter(None, map(str.strip, text.splitlines())):
        node = parse_tree(line.lstrip("!+"))[0]
        entries.append(
            FileEntry(
                path=node.path,
                kind=node.entry_kind,
                mode=0o777 if node.kind == "symlink" else node.mode,
                size=len(node.data) if node.kind == "regular" else None,
                target=node.data if node.kind == "symlink" else None,
                origin=origins.get(line[0], origin),
            )
        )
    return sorted(entries, key=lambda entry: entry.path)


def layer_lines(mask: bytes) -> list[str]:
    """Return a layer's names: a whiteout is `-`, an opaque directory `=`."""
    lines = []
    for directory, directories, files in os.walk(mask):
        inner = directory[len(mask) :]
        mark = " =" if b"user.overlay.opaque" in map(os.fsencode, os.listxattr(directory)) else ""
        mode = stat.S_IMODE(os.lstat(directory).st_mode)
        lines.append(f"{shown(inner)}/{'' if mode == 0o755 else f' {mode:04o}'}{mark}")
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                lines.append(f"{shown(path[len(mask) :])} -> {shown(os.readlink(path))}")
            elif not stat.S_ISDIR(found.st_mode):
                is_whiteout = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
                assert is_whiteout or (stat.S_ISREG(found.st_mode) and found.st_size == 0)
                lines.append(f"{shown(path[len(mask) :])}{' -' if is_whiteout else ''}")
    return sorted(lines)


# Each row: what it protects, what the manifest has of the host above, and the mask.
_MASKS = [
    (
        "all of the host's: only the top is needed",
        """
        /d/
        /d/file
        /d/in/
        /d/in/a
        /d/in/b
        /d/in/deep/
        /d/in/deep/c
        /d/link -> file
        /d/none/
        /d/none/x
        /d/none/y
        /d/odd\\x0a\\xff/
        /d/odd\\x0a\\xff/z
        /d/same/
        /d/same/one
        /d/same/two
        """,
        "/",
    ),
    (
        "a whiteout hides a directory with all in it",
        """
        /d/
        /d/same/
        /d/same/one
        /d/same/two
        """,
        """
        /
        /file -
        /in -
        /link -
        /none -
        /odd\\x0a\\xff -
        """,
    ),
    (
        "a directory of which nothing shows is opaque, and what is in it not looked at",
        """
        /d/
        /d/file
        /d/in/
        /d/in/deep/
        /d/link -> file
        /d/none/ 0700
        /d/odd\\x0a\\xff/
        /d/odd\\x0a\\xff/z
        /d/same/
        /d/same/one
        /d/same/two
        """,
        """
        /
        /in/ =
        /in/deep/ =
        /none/ 0700 =
        """,
    ),
    (
        "what is ours lies in the mask, over the host's or where it has none",
        """
        /d/
        /d/file
        /d/in/
        !/d/in/a -> /elsewhere
        /d/in/b
        !/d/link -> /other
        !/d/new/
        !/d/new/n -> /x
        /d/none/
        /d/none/x
        /d/none/y
        /d/odd\\x0a\\xff/
        /d/odd\\x0a\\xff/z
        /d/same/ 0711
        /d/same/one
        /d/same/two
        """,
        """
        /
        /in/
        /in/a -> /elsewhere
        /in/deep -
        /link -> /other
        /new/ =
        /new/n -> /x
        /same/ 0711
        """,
    ),
    (
        "files that are made at entry are empty, whether the host has them or not",
        """
        /d/
        +/d/same/one
        /d/same/
        /d/same/two
        /d/new/
        +/d/new/file
        """,
        """
        /
        /file -
        /in -
        /link -
        /new/ =
        /new/file
        /none -
        /odd\\x0a\\xff -
        /same/
        /same/one
        """,
    ),
]


@pytest.fixture
def root(tmp_path: Path) -> bytes:
    make(parse_tree(_HOST), bytes(tmp_path / "root"))
    return bytes(tmp_path / "root")


def new_layer(tmp_path: Path) -> bytes:
    (tmp_path / "new" / "layer").mkdir(parents=True)
    return bytes(tmp_path / "new" / "layer")


@pytest.mark.parametrize(("what", "listed", "expected"), _MASKS, ids=[row[0] for row in _MASKS])
def test_the_content_of_a_layer(tmp_path: Path, root: bytes, what: str, listed: str, expected: str) -> None:
    mask = new_layer(tmp_path)
    make_whiteout_layer(mask, entries_of(listed), root)
    assert layer_lines(mask) == dedent(expected).strip().split("\n"), what
    assert os.listdir(os.path.dirname(mask)) == [b"layer"]


def test_without_attributes_whiteouts_hide_names(
    tmp_path: Path, root: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tmpfs has user attributes since Linux 6.6."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "setxattr", refuse)
    mask = new_layer(tmp_path)
    make_whiteout_layer(mask, entries_of("/d/\n/d/file\n/d/none/\n!/d/new/\n!/d/new/n -> /x"), root)
    expected = "/ /in - /link - /new/ /new/n -> /x /none/ /none/x - /none/y - /odd\\x0a\\xff - /same -"
    assert " ".join(layer_lines(mask)) == expected


def test_a_device_has_no_more_links_than_a_file_system_allows(
    tmp_path: Path, root: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 refuses the 65,001st link; a device for each whiteout would be slow."""
    monkeypatch.setattr(whiteout_overlay, "_MOST_LINKS", 2)
    mask = new_layer(tmp_path)
    make_whiteout_layer(mask, entries_of("/d/"), root)
    links = [os.lstat(os.path.join(mask, name)).st_nlink for name in os.listdir(mask)]
    assert links == [2, 2, 2, 2, 2, 2]


def test_a_path_that_is_no_longer_a_directory_is_an_error(tmp_path: Path, root: bytes) -> None:
    """Otherwise its content would be missing from the jail."""
    with pytest.raises(NotADirectoryError, match="is no longer a directory"):
        make_whiteout_layer(new_layer(tmp_path), entries_of("/d/\n/d/file/\n/d/file/x"), root)


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("/d/\n/d/x 0044", ""),
        ("/d/\n/d/x/ 0057", "the mode 0057 of /d/x gives its owner less than others"),
    ],
)
def test_which_modes_a_whiteout_overlay_can_show(listed: str, why: str) -> None:
    """Files are the host's; directories can be the layer's, which belongs to the user who made it."""
    assert whiteout_overlay.whiteout_overlay_obstacle(entries_of(listed)) == why


# Each row: what it protects, what the manifest has, paths apart, and the directories that are bound whole.
_WHOLE = [
    ("two files and nothing else", "/d/\n/d/same/\n/d/same/one\n/d/same/two", "", "/d/same"),
    ("one of them is not listed", "/d/\n/d/same/\n/d/same/one", "", ""),
    ("one file by itself is no worse", "/d/\n/d/odd\\x0a\\xff/\n/d/odd\\x0a\\xff/z", "", ""),
    ("the outermost", "/d/\n/d/in/\n/d/in/a\n/d/in/b\n/d/in/deep/\n/d/in/deep/c", "", "/d/in"),
    ("what is in it counts too", "/d/\n/d/in/\n/d/in/a\n/d/in/b\n/d/in/deep/", "", ""),
    ("another mode", "/d/\n/d/same/ 0711\n/d/same/one\n/d/same/two", "", ""),
    ("another kind", "/d/\n/d/same/\n/d/same/one/\n/d/same/two", "", ""),
    ("a name more", "/d/\n/d/same/\n/d/same/one\n/d/same/three\n/d/same/two", "", ""),
    ("a mount point in it", "/d/\n/d/same/\n/d/same/one\n/d/same/two", "/d/same/one", ""),
    ("a mount point itself", "/d/\n/d/same/\n/d/same/one\n/d/same/two", "/d/same", "/d/same"),
    ("the host has none", "/d/\n/d/new/\n/d/new/x\n/d/new/y", "", ""),
]


@pytest.mark.parametrize(("what", "listed", "apart", "expected"), _WHOLE, ids=[row[0] for row in _WHOLE])
def test_which_directories_are_one_bind(
    root: bytes, what: str, listed: str, apart: str, expected: str
) -> None:
    steps = directory_bind_steps(entries_of(listed), root, [apart.encode()] if apart else [])
    assert " ".join(map(shown, steps)) == expected, what


@pytest.mark.parametrize(("target", "whole"), [("file", True), ("/elsewhere", False)])
def test_the_target_of_a_generated_link_is_compared(tmp_path: Path, target: str, *, whole: bool) -> None:
    """No other check would notice that the host's link has another target."""
    make(parse_tree("/d/link -> file\n/d/a\n/d/b"), bytes(tmp_path))
    entries = entries_of(f"/d/\n/d/a\n/d/b\n!/d/link -> {target}")
    assert (b"/d" in directory_bind_steps(entries, bytes(tmp_path), [])) == whole
