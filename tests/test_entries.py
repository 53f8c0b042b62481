"""Kinds of files: the mode of stat(2), a manifest's kind and the words for it agree with the kernel."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.entries import KINDS, NOUNS, kind_and_mode, kind_of, kind_of_item, noun_of
from pkgjail.core.model import FileKind, PlanOption, StrategyName

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
