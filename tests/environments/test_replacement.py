"""An environment in the place of another: what is moved, what is removed, and what stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import InputError, ModifiedEnvironmentError
from pkgjail.core.reporter import SILENT
from pkgjail.environments.build import build_environment
from pkgjail.environments.remove import check_removal
from pkgjail.environments.replace import (
    choose_place,
    exists,
    move_back,
    move_into_place,
    remove_leftovers,
    remove_replaced,
)
from tests.environments.cases import around, put
from tests.test_protection import Reporter

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest


def names_beside(env: bytes) -> list[bytes]:
    """Return what is in the environment's parent directory, and not the tests'."""
    return sorted(set(os.listdir(os.path.dirname(env))) - {b"beside", b"precious"})


@pytest.fixture
def new(env: bytes, manifest: Manifest, host: bytes) -> bytes:
    """Build a new environment in the place that is chosen for it."""
    place = choose_place(env, SILENT)
    build_environment(manifest, place, root=host)
    return place


def test_the_earlier_one_stays_until_the_new_one_has_its_name(env: bytes, new: bytes) -> None:
    """Then it is removed. The user's files beside it stay."""
    assert new == os.path.dirname(env) + b"/.env.pkgjail-new"
    inode = os.stat(env).st_ino
    old = move_into_place(new, env)
    assert (old, os.stat(old).st_ino) == (os.path.dirname(env) + b"/.env.pkgjail-old", inode)
    move_back(new, env)
    assert os.stat(env).st_ino == inode
    remove_replaced(move_into_place(new, env), SILENT)
    assert names_beside(env) == [b"env"]
    assert check_removal(env) == "built"


def test_a_new_one_that_cannot_get_the_name_changes_nothing(env: bytes) -> None:
    before = around(env)
    with pytest.raises(FileNotFoundError):
        move_into_place(env + b"2", env)
    assert around(env) == before


def test_what_an_interrupted_replacement_left_is_removed(env: bytes, new: bytes) -> None:
    """Whether it was interrupted before, between or after the two renames; files of others stay."""
    remove_leftovers(env, SILENT)
    assert names_beside(env) == [b"env"]
    os.rename(env, os.path.dirname(env) + b"/.env.pkgjail-old")
    os.mkdir(new)
    put(new + b"/letter", b"dear")
    assert choose_place(env, SILENT) == env
    assert names_beside(env) == [b".env.pkgjail-new"]


@pytest.mark.parametrize("left", ["nothing", "an empty directory", "an interrupted removal"])
def test_a_place_without_an_environment_is_used_itself(env: bytes, left: str) -> None:
    """The files of an interrupted removal are removed first."""
    os.rename(env + b"/environment.jsonl", env + b"/removing.jsonl")
    if left != "an interrupted removal":
        assert choose_place(env, SILENT) == env
    if left == "an empty directory":
        os.mkdir(env)
    assert choose_place(env, SILENT) == env
    assert names_beside(env) == ([b"env"] if left == "an empty directory" else [])


def test_what_is_no_environment_is_not_replaced(env: bytes) -> None:
    """Nor one that was modified, which may have files of the user's."""
    put(env + b"/letter", b"dear")
    before = around(env)
    with pytest.raises(ModifiedEnvironmentError, match=r"letter was not made by pkgjail(.|\n)*nothing was"):
        choose_place(env, SILENT)
    with pytest.raises(InputError, match="it is not an environment"):
        choose_place(os.path.dirname(env) + b"/precious", SILENT)
    assert around(env) == before


def test_an_earlier_one_that_cannot_be_removed_is_reported(env: bytes, new: bytes) -> None:
    """The new one is in use by then: this is no error."""
    old = move_into_place(new, env)
    put(old + b"/letter", b"dear")
    reporter = Reporter()
    remove_replaced(old, reporter)
    assert len(reporter.warned) == 1
    assert "the new environment is active, but the earlier one is still in" in reporter.warned[0]
    assert reporter.warned[0].endswith(f"with 'pkgjail remove {os.fsdecode(old)}'")


def test_a_path_that_cannot_be_seen_is_not_missing(tmp_path: Path) -> None:
    """An environment there would stay, and nobody would know of it."""
    assert exists(bytes(tmp_path))
    assert not exists(bytes(tmp_path / "no" / "such"))
    (tmp_path / "link").symlink_to("link")
    assert exists(bytes(tmp_path / "link"))
    with pytest.raises(OSError, match="symbolic links"):
        exists(bytes(tmp_path / "link" / "x"))


def test_an_empty_directory_can_be_removed(tmp_path: Path) -> None:
    assert check_removal(bytes(tmp_path)) == "building"
