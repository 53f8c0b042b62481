"""Builds of environments: of any tree, in three forms; drift, full disks and occupied paths stop them."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings

from pkgjail.core.errors import DriftError, InputError, PkgjailError, describe_changes
from pkgjail.environments import build, file_copy
from pkgjail.environments.build import build_environment
from pkgjail.environments.record import FORMS
from pkgjail.environments.remove import remove_environment
from pkgjail.export.skeleton import write_skeleton
from pkgjail.jails.run import content_at_entry
from tests.environments.cases import around, in_turn, put, rewrite_unseen
from tests.test_exactness import USERS, manifest_of
from tests.tree_text import Node, in_child, name_line, parse_tree, tree, trees, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import Manifest
    from pkgjail.environments.record import Form

# --- build and remove -----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "an empty directory"])
def test_removal_deletes_everything_that_was_built(
    manifest: Manifest, host: bytes, env_path: bytes, form: Form, *, existing: bool
) -> None:
    before = around(env_path), walk_lines(host)
    if existing:
        os.mkdir(env_path)
    built = build_environment(manifest, env_path, form=form, root=host)
    removed = remove_environment(env_path)
    assert (removed.deleted, removed.gone) == (built.names, 0)
    assert (around(env_path), walk_lines(host)) == before


@pytest.mark.parametrize("uid", USERS)
@settings(max_examples=30, deadline=None)
@given(trees())
def test_a_copy_is_the_manifest_name_by_name(uid: int, nodes: list[Node]) -> None:
    """For any tree: kinds, modes without set-ID bits, contents, links; no hard link; and it can be removed.

    Files that the user may not read are left out of the manifest, as a copy of them is refused.
    """
    with tree(nodes) as root, tree([Node(b"/mine", "regular")]) as home:
        os.chmod(home, 0o777)  # noqa: S103 - the other user builds the environment in it
        manifest = manifest_of(root)
        may_read = 0o400 if uid == os.geteuid() else 0o004  # this user owns the tree
        unreadable = {e.path for e in manifest.files if e.kind == "regular" and not e.mode & may_read}
        manifest = without_paths(manifest, unreadable if uid else set())

        def build() -> str:
            os.umask(0o077)
            return str(build_environment(manifest, home + b"/env", form="copy", root=root).names)

        paths = [entry.path for entry in manifest.files if entry.path != b"/"]
        expected = [line_of_copy(name_line(root, path, os.lstat(root + path))) for path in paths]
        assert in_child(build, uid) == str(len(paths) + 2)
        assert walk_lines(home + b"/env/root") == sorted(expected)
        assert not [path for path in files_below(home + b"/env/root") if os.lstat(path).st_nlink > 1]
        in_child(lambda: str(remove_environment(home + b"/env")), uid)
        assert os.listdir(home) == [b"mine"]


def without_paths(manifest: Manifest, paths: set[bytes]) -> Manifest:
    """Return the manifest without exactly these paths."""
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path not in paths))


def line_of_copy(line: str) -> str:
    """Return a line of `walk_lines` for a copy that drops set-ID bits."""
    fields = line.split(" ")
    if fields[1] != "symlink":
        fields[2] = f"{int(fields[2], 8) & 0o1777:04o}"
    return " ".join(fields)


def files_below(top: bytes) -> list[bytes]:
    """Return every path below `top` that is not a directory."""
    return [os.path.join(directory, name) for directory, _, names in os.walk(top) for name in names]


# --- building -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("occupy", "why"),
    [
        pytest.param(lambda env_path: put(env_path, b"x"), "it is not a directory", id="a file"),
        pytest.param(lambda env_path: os.symlink("nowhere", env_path), "it is a symbolic link", id="a link"),
        pytest.param(
            in_turn(os.mkdir, lambda env_path: put(env_path + b"/x", b"x")),
            "it is not empty",
            id="not empty",
        ),
        pytest.param(
            in_turn(os.mkdir, lambda env_path: put(env_path + b"/building.jsonl", b"")),
            "an interrupted 'pkgjail' left files there",
            id="an interrupted build",
        ),
        pytest.param(
            in_turn(os.mkdir, lambda env_path: put(env_path + b"/environment.jsonl", b"")),
            "it is already an environment",
            id="an environment",
        ),
    ],
)
def test_an_occupied_path_is_refused(
    manifest: Manifest, host: bytes, env_path: bytes, occupy: Callable[[bytes], object], why: str
) -> None:
    occupy(env_path)
    before = around(env_path)
    with pytest.raises(InputError, match=why):
        build_environment(manifest, env_path, root=host)
    assert around(env_path) == before


def test_a_missing_parent_is_named(manifest: Manifest, host: bytes, env_path: bytes) -> None:
    """Protects from a message that names only the environment, which need not exist."""
    with pytest.raises(InputError, match=r"cannot build .*/in/env: .*/in does not exist; make it"):
        build_environment(manifest, env_path + b"/in/env", root=host)


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EACCES", "EROFS"])
def test_a_directory_that_cannot_be_made(
    manifest: Manifest, host: bytes, env_path: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says why, and what to do."""
    why = os.strerror(getattr(errno, name))
    full = name in {"ENOSPC", "EDQUOT"}
    advice = (
        "make room, or name a directory on another filesystem"
        if full
        else "name a directory that you may write to"
    )

    def refuse(path: bytes, mode: int) -> None:
        raise OSError(getattr(errno, name), why, path, mode)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(PkgjailError) as raised:
        build_environment(manifest, env_path, root=host)
    monkeypatch.undo()
    assert str(raised.value) == f"cannot build {os.fsdecode(env_path)}: {why}; {advice}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "an empty directory"])
def test_drift_is_reported_by_name_and_nothing_is_left(
    manifest: Manifest, host: bytes, env_path: bytes, form: Form, *, existing: bool
) -> None:
    if existing:
        os.mkdir(env_path)
    put(host + b"/usr/bin/a", b"longer than before")
    os.unlink(host + b"/zero")
    before = around(env_path)
    with pytest.raises(DriftError) as caught:
        build_environment(manifest, env_path, form=form, root=host)
    assert describe_changes(caught.value.changes) == [
        (b"/usr/bin/a", "has 18 bytes, not 5"),
        (b"/zero", "is gone"),
    ]
    assert str(caught.value).startswith("cannot build the environment: the host has changed")
    assert around(env_path) == before


def test_a_copy_is_compared_with_digests_while_it_is_made(
    manifest: Manifest, host: bytes, env_path: bytes
) -> None:
    """The error has all files that differ, including those that differ only by digest."""
    hashed = replace(
        manifest,
        files=tuple(
            entry._replace(
                sha256=hashlib.sha256(Path(os.fsdecode(host + entry.path)).read_bytes()).hexdigest()
            )
            if entry.kind == "regular"
            else entry
            for entry in manifest.files
        ),
    )
    rewrite_unseen(host + b"/usr/bin/a", b"ALPHA")
    rewrite_unseen(host + b"/usr/closed/c", b"GAMMA")
    put(host + b"/zero", b"!")
    before = around(env_path)
    with pytest.raises(DriftError) as caught:
        build_environment(hashed, env_path, form="copy", root=host)
    assert describe_changes(caught.value.changes) == [
        (b"/usr/bin/a", "has other content"),
        (b"/usr/closed/c", "has other content"),
        (b"/zero", "has 1 bytes, not 0"),
    ]
    assert around(env_path) == before


@pytest.mark.parametrize(
    ("swap", "expected"),
    [
        pytest.param(lambda host: os.unlink(host + b"/zero"), (b"/zero", "is gone"), id="gone"),
        pytest.param(
            in_turn(lambda host: os.unlink(host + b"/zero"), lambda host: os.mkdir(host + b"/zero")),
            (b"/zero", "is no longer a regular file"),
            id="a directory",
        ),
        pytest.param(
            in_turn(
                lambda host: os.rename(host + b"/var", host + b"/v"),
                lambda host: os.symlink("v", host + b"/var"),
            ),
            (b"/var/f", "is reached through a symbolic link"),
            id="through a link",
        ),
    ],
)
def test_changes_during_the_copy_are_reported(
    env_path: bytes,
    monkeypatch: pytest.MonkeyPatch,
    swap: Callable[[bytes], object],
    expected: tuple[bytes, str],
) -> None:
    """After the host was compared, and just before the first file is copied."""
    with tree(parse_tree("/var/f\n/zero =")) as host:
        manifest = manifest_of(host)
        copy = build._copy
        monkeypatch.setattr(build, "_copy", lambda *arguments: (swap(host), copy(*arguments)))
        with pytest.raises(DriftError) as caught:
            build_environment(manifest, env_path, form="copy", root=host)
    assert describe_changes(caught.value.changes) == [expected]
    assert not os.path.exists(env_path)


def test_a_full_filesystem_is_reported_and_nothing_is_left(
    manifest: Manifest, host: bytes, env_path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_copy, "copy_content", lambda *_: os_error(errno.ENOSPC))
    with pytest.raises(PkgjailError, match="No space left on device; nothing of it is left; make room"):
        build_environment(manifest, env_path, form="copy", root=host)
    assert not os.path.exists(env_path)


def os_error(number: int) -> None:
    """Raise an error with this number."""
    raise OSError(number, os.strerror(number))


def test_an_unknown_form_is_refused(manifest: Manifest, env_path: bytes) -> None:
    with pytest.raises(InputError, match="the forms are host, copy, fstab"):
        build_environment(manifest, env_path, form=cast("Form", "chroot"))


def test_mount_points_are_those_of_the_export(manifest: Manifest, host: bytes, env_path: bytes) -> None:
    """The mount points of fstab's lines are made as `pkgjail export --skeleton` makes them."""
    build_environment(manifest, env_path, form="fstab", root=host)
    write_skeleton(manifest, env_path + b"2", content_at_entry(manifest, host), mount_points=True)
    assert walk_lines(env_path + b"/root") == walk_lines(env_path + b"2")
    remove_environment(env_path)
    assert not os.path.exists(env_path)
