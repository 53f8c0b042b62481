"""Removals of environments, and the changes that stop them.

The tests put files that a removal must not touch into and beside environments, and compare them afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import InputError, ModifiedEnvironmentError, describe_changes
from pkgjail.environments import compare, remove
from pkgjail.environments.directory import open_environment, read_record
from pkgjail.environments.enter import enter_environment
from pkgjail.environments.remove import remove_environment
from tests.environments.cases import (
    around,
    in_turn,
    put,
    remove_directory,
    replace_by_link,
    replace_directory,
    replace_file,
    rewrite_unseen,
)
from tests.file_cases import Remembering
from tests.tree_text import shown

if TYPE_CHECKING:
    from collections.abc import Callable


ESCAPES = Path(__file__).parent

CHANGES: dict[str, tuple[Callable[[bytes], object], list[str]]] = {
    "a file was added": (
        lambda env: put(env + b"/root/usr/thesis", b"x"),
        ["root/usr/thesis was not made by pkgjail"],
    ),
    "a file was added to an empty directory": (
        lambda env: put(env + b"/root/usr/empty/x", b"x"),
        ["root/usr/empty/x was not made by pkgjail"],
    ),
    "a file was added beside the record": (
        lambda env: put(env + b"/notes", b"x"),
        ["notes was not made by pkgjail"],
    ),
    "a file has the name of a file of a build": (
        lambda env: put(env + b"/building.file", b"x"),
        ["building.file was not made by pkgjail"],
    ),
    "an empty directory was added": (
        lambda env: os.mkdir(env + b"/root/var/x"),
        ["root/var/x was not made by pkgjail"],
    ),
    "a file was replaced": (
        lambda env: replace_file(env + b"/root/usr/bin/a", b"alpha"),
        ["root/usr/bin/a was replaced by another regular file"],
    ),
    "a file was written to": (
        lambda env: put(env + b"/root/usr/bin/a", b"ALPHA"),
        ["root/usr/bin/a has other content"],
    ),
    "a file was written to, and its times restored": (
        lambda env: rewrite_unseen(env + b"/root/usr/bin/a", b"ALPHA"),
        ["root/usr/bin/a has other content"],
    ),
    "a file has grown": (
        lambda env: put(env + b"/root/zero", b"now"),
        ["root/zero has 3 bytes, not 0"],
    ),
    "a file is a directory now": (
        in_turn(lambda env: os.unlink(env + b"/root/zero"), lambda env: os.mkdir(env + b"/root/zero")),
        ["root/zero is no longer a regular file"],
    ),
    "a directory is a link now": (
        lambda env: replace_by_link(env + b"/root/usr/bin"),
        ["root/usr/bin is no longer a directory"],
    ),
    "the tree is a link now": (
        lambda env: replace_by_link(env + b"/root"),
        ["root is no longer a directory"],
    ),
    "a directory was replaced": (
        lambda env: replace_directory(env + b"/root/usr/closed"),
        ["root/usr/closed was replaced by another directory"],
    ),
    "a link leads elsewhere": (
        in_turn(
            lambda env: os.symlink("/precious", env + b"/root/new"),
            lambda env: os.rename(env + b"/root/new", env + b"/root/bin"),
        ),
        ["root/bin was replaced by another symbolic link"],
    ),
    "the manifest was edited": (
        lambda env: put(env + b"/manifest.jsonl", b"{}\n"),
        ["manifest.jsonl has 3 bytes, not N"],
    ),
    "several": (
        in_turn(lambda env: put(env + b"/root/x", b"x"), lambda env: put(env + b"/root/zero", b"now")),
        ["root/x was not made by pkgjail", "root/zero has 3 bytes, not 0"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_stops_the_removal_before_anything_is_deleted(env: bytes, name: str) -> None:
    """The error has all changes; and all names stay, with their modes and contents."""
    change, expected = CHANGES[name]
    change(env)
    before = around(env)
    with pytest.raises(ModifiedEnvironmentError, match="nothing was deleted") as caught:
        remove_environment(env)
    found = sorted(f"{shown(path)} {words}" for path, words in describe_changes(caught.value.changes))
    assert [re.sub(r"not \d{2,}", "not N", line) for line in found] == expected
    assert around(env) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda env: os.chmod(env + b"/root/usr/bin/a", 0o400), id="a mode"),
        pytest.param(lambda env: os.chmod(env + b"/root/usr", 0o500), id="a directory's mode"),
        pytest.param(lambda env: os.link(env + b"/root/usr/bin/a", env + b"-a"), id="another link"),
        pytest.param(lambda env: os.utime(env + b"/root/usr/bin/a"), id="a time"),
        pytest.param(lambda env: os.unlink(env + b"/root/usr/bin/a"), id="a file that is gone"),
        pytest.param(lambda env: remove_directory(env + b"/root/usr"), id="a directory that is gone"),
        pytest.param(lambda env: os.unlink(env + b"/manifest.jsonl"), id="a manifest that is gone"),
    ],
)
def test_a_change_that_loses_nothing_does_not_stop_the_removal(
    env: bytes, change: Callable[[bytes], object]
) -> None:
    change(env)
    remove_environment(env)
    assert not os.path.lexists(env)


def test_a_removal_tells_its_progress(env: bytes) -> None:
    """Removing a large copy takes seconds."""
    reporter = Remembering()
    removed = remove_environment(os.fsdecode(env), reporter=reporter)
    assert reporter.steps[0] == ("deleting", 0, removed.deleted)
    assert reporter.steps[-1] == ("deleting", removed.deleted, removed.deleted)


def test_an_environment_may_be_renamed(env: bytes) -> None:
    os.rename(env, env + b"2")
    remove_environment(env + b"2")
    assert sorted(os.listdir(os.path.dirname(env))) == [b"beside", b"precious"]


def test_a_copy_of_an_environment_is_not_the_one_that_was_built(env: bytes) -> None:
    """Its names are not the recorded ones; the original is removed, the copy stays."""
    subprocess.run(["cp", "-a", env, env + b"2"], check=True)
    for function in (remove_environment, lambda env_path: enter_environment(env_path, ["true"])):
        with pytest.raises(InputError, match="it is a copy of an environment"):
            function(env + b"2")
    remove_environment(env)
    assert os.path.exists(env + b"2/root/usr/bin/a")


@pytest.mark.parametrize(
    ("make_it", "why"),
    [
        pytest.param(lambda _: None, "No such file or directory", id="nothing"),
        pytest.param(lambda env_path: put(env_path, b"x"), "it is not a directory", id="a file"),
        pytest.param(lambda env_path: os.symlink("beside", env_path), "it is a symbolic link", id="a link"),
        pytest.param(
            lambda env_path: shutil.copytree(ESCAPES, os.fsdecode(env_path)),
            "it is not an environment",
            id="a directory",
        ),
        pytest.param(
            in_turn(
                os.mkdir,
                lambda env_path: put(env_path + b"/building.jsonl", b'{"kind":"header"'),
            ),
            "it was not written by pkgjail",
            id="a file of the user with the journal's name",
        ),
        pytest.param(
            in_turn(
                os.mkdir,
                lambda env_path: put(env_path + b"/environment.jsonl", b'{"kind":"header"}\n'),
            ),
            "it was not written by pkgjail",
            id="a file of the user with the record's name",
        ),
    ],
)
def test_other_files_are_neither_removed_nor_entered(
    env_path: bytes, make_it: Callable[[bytes], object], why: str
) -> None:
    make_it(env_path)
    before = around(env_path)
    for function in (remove_environment, lambda env_path: enter_environment(env_path, ["true"])):
        with pytest.raises(InputError, match=why):
            function(env_path)
    assert around(env_path) == before


def test_an_empty_directory_may_be_left_by_a_build_and_is_removed(env_path: bytes) -> None:
    os.mkdir(env_path)
    assert remove_environment(env_path) == (0, 0)
    assert not os.path.exists(env_path)


@pytest.mark.parametrize("directory", [b"/", b".", b"..", b"/usr/..", b""])
def test_a_directory_without_a_name_is_refused(directory: bytes) -> None:
    with pytest.raises(InputError, match="name the directory itself"):
        remove_environment(directory)


DURING: dict[str, tuple[Callable[[bytes], object], str]] = {
    "a file is added": (
        lambda env: put(env + b"/root/usr/late", b"x"),
        "root/usr cannot be deleted: Directory not empty",
    ),
    "a file is replaced": (
        lambda env: replace_file(env + b"/root/usr/bin/a", b"mine"),
        "root/usr/bin/a was replaced by another regular file",
    ),
    "a directory becomes a link": (
        lambda env: replace_by_link(env + b"/root/usr"),
        "root/usr/empty cannot be opened: Too many levels of symbolic links",
    ),
    "the environment is moved": (lambda env: os.rename(env, env + b"2"), "/env was moved away"),
    "the environment is replaced": (
        in_turn(
            lambda env: os.rename(env, env + b"2"),
            os.mkdir,
            lambda env: put(env + b"/mine", b"x"),
        ),
        "/env was replaced by another directory",
    ),
    "something is added beside the record": (
        lambda env: put(env + b"/late", b"x"),
        "/env cannot be deleted: Directory not empty",
    ),
}


@pytest.mark.parametrize("name", DURING)
def test_a_change_during_the_removal_stops_it(env: bytes, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is made just before the first deletion; nothing that was added is lost."""
    change, expected = DURING[name]
    delete = remove._delete_all

    def change_and_delete(*arguments: Any) -> int:
        change(env)
        return delete(*arguments)

    monkeypatch.setattr(remove, "_delete_all", change_and_delete)
    with pytest.raises(ModifiedEnvironmentError, match=r"it changed during the removal") as caught:
        remove_environment(env)
    ((path, words),) = describe_changes(caught.value.changes)
    assert f"{shown(path)} {words}".endswith(expected)
    names = {line.partition(" ")[0].rpartition("/")[2] for line in around(env)}
    assert names >= {"beside", "letter"}
    assert names & {"late", "mine", "a", "env2"}


@pytest.mark.parametrize("trusted", [True, False])
def test_times_count_only_if_the_file_system_sets_them(
    env: bytes, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> None:
    """Protects an environment on FUSE or in an image, where other content may have the same times."""
    monkeypatch.setattr(compare, "sets_times", lambda _descriptor: trusted)
    with open_environment(env, "enter") as environment:
        entries = read_record(environment).entries
        assert compare.compare_inputs(environment, entries) == []
        other = next(
            entry for entry in entries if entry.kind == "regular" and entry.path.startswith(b"root/")
        )
        entries = tuple(entry._replace(sha256="0" * 64) if entry is other else entry for entry in entries)
        expected = [] if trusted else [(other.path, "content")]
        found = [(path, change.what) for path, change in compare.compare_inputs(environment, entries)]
        assert found == expected
