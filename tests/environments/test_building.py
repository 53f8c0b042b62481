"""Environments: built of any tree, in three forms; drift, full disks and occupied places stop it."""

from __future__ import annotations

import errno
import fcntl
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
from pkgjail.jail.run import content_at_entry
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
def test_removal_takes_away_all_that_was_built(
    manifest: Manifest, host: bytes, place: bytes, form: Form, *, existing: bool
) -> None:
    before = around(place), walk_lines(host)
    if existing:
        os.mkdir(place)
    built = build_environment(manifest, place, form=form, root=host)
    removed = remove_environment(place)
    assert (removed.deleted, removed.gone) == (built.names, 0)
    assert (around(place), walk_lines(host)) == before


@pytest.mark.parametrize("uid", USERS)
@settings(max_examples=30, deadline=None)
@given(trees())
def test_a_copy_is_the_manifest_name_by_name(uid: int, nodes: list[Node]) -> None:
    """For any tree: kinds, modes less set-ID bits, contents, links; no hard link; and it can be removed.

    Files that the user may not read are left out of the tree: a copy of them is refused.
    """
    with tree(nodes) as root, tree([Node(b"/mine", "regular")]) as home:
        os.chmod(home, 0o777)  # noqa: S103 - the other user makes the environment in it
        manifest = manifest_of(root)
        may_read = 0o400 if uid == os.geteuid() else 0o004  # whose the tree is
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
    """The manifest less exactly these paths."""
    return replace(manifest, files=tuple(entry for entry in manifest.files if entry.path not in paths))


def line_of_copy(line: str) -> str:
    """A line of `walk_lines`, as a copy that drops set-ID bits has it."""
    words = line.split(" ")
    if words[1] != "symlink":
        words[2] = f"{int(words[2], 8) & 0o1777:04o}"
    return " ".join(words)


def files_below(top: bytes) -> list[bytes]:
    """Every path of what is no directory."""
    return [os.path.join(place, name) for place, _, names in os.walk(top) for name in names]


# --- building -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("occupy", "why"),
    [
        pytest.param(lambda place: put(place, b"x"), "it is not a directory", id="a file"),
        pytest.param(lambda place: os.symlink("nowhere", place), "it is a symbolic link", id="a link"),
        pytest.param(
            in_turn(os.mkdir, lambda place: put(place + b"/x", b"x")),
            "it is not empty",
            id="not empty",
        ),
        pytest.param(
            in_turn(os.mkdir, lambda place: put(place + b"/building.jsonl", b"")),
            "an interrupted 'pkgjail' left files there",
            id="half built",
        ),
        pytest.param(
            in_turn(os.mkdir, lambda place: put(place + b"/environment.jsonl", b"")),
            "it is already an environment",
            id="built",
        ),
    ],
)
def test_what_is_there_is_not_built_over(
    manifest: Manifest, host: bytes, place: bytes, occupy: Callable[[bytes], object], why: str
) -> None:
    occupy(place)
    before = around(place)
    with pytest.raises(InputError, match=why):
        build_environment(manifest, place, root=host)
    assert around(place) == before


def test_a_parent_that_is_not_there_is_named(manifest: Manifest, host: bytes, place: bytes) -> None:
    """Protects from a message that tells the environment's own name, which need not be there."""
    with pytest.raises(InputError, match=r"cannot build .*/in/env: .*/in does not exist; make it"):
        build_environment(manifest, place + b"/in/env", root=host)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "an empty directory"])
def test_drift_is_told_by_name_and_nothing_is_left(
    manifest: Manifest, host: bytes, place: bytes, form: Form, *, existing: bool
) -> None:
    if existing:
        os.mkdir(place)
    put(host + b"/usr/bin/a", b"longer than before")
    os.unlink(host + b"/zero")
    before = around(place)
    with pytest.raises(DriftError) as caught:
        build_environment(manifest, place, form=form, root=host)
    assert describe_changes(caught.value.changes) == [
        (b"/usr/bin/a", "has 18 bytes, not 5"),
        (b"/zero", "is gone"),
    ]
    assert str(caught.value).startswith("cannot build the environment: the host has changed")
    assert around(place) == before


def test_a_copy_is_held_against_digests_while_it_is_made(
    manifest: Manifest, host: bytes, place: bytes
) -> None:
    """All that differ are told, those that only a digest tells among them."""
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
    before = around(place)
    with pytest.raises(DriftError) as caught:
        build_environment(hashed, place, form="copy", root=host)
    assert describe_changes(caught.value.changes) == [
        (b"/usr/bin/a", "has other content"),
        (b"/usr/closed/c", "has other content"),
        (b"/zero", "has 1 bytes, not 0"),
    ]
    assert around(place) == before


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
def test_what_changes_while_it_is_copied_is_told(
    place: bytes,
    monkeypatch: pytest.MonkeyPatch,
    swap: Callable[[bytes], object],
    expected: tuple[bytes, str],
) -> None:
    """After the first look at all, in the moment before the first is copied."""
    with tree(parse_tree("/var/f\n/zero =")) as host:
        manifest = manifest_of(host)
        copy = build._copy
        monkeypatch.setattr(build, "_copy", lambda *arguments: (swap(host), copy(*arguments)))
        with pytest.raises(DriftError) as caught:
            build_environment(manifest, place, form="copy", root=host)
    assert describe_changes(caught.value.changes) == [expected]
    assert not os.path.exists(place)


@pytest.mark.parametrize("failing", [(), ("_clone",), ("_clone", "_copy_in_kernel")])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_content_is_copied_by_whatever_the_filesystem_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...], size: int
) -> None:
    for name in failing:
        monkeypatch.setattr(file_copy, name, lambda *_: False)
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("xb") as destination:
        file_copy.copy_content(source.fileno(), destination.fileno())
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("call", ["ioctl", "copy_file_range"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_a_copy_is_no_reason_to_try_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_copy, "_clone", file_copy._clone if call == "ioctl" else lambda *_: False)
    monkeypatch.setattr(*((fcntl, "ioctl") if call == "ioctl" else (os, "copy_file_range")), fail)
    (tmp_path / "source").write_text("x")
    with (tmp_path / "source").open("rb") as source, (tmp_path / "copy").open("xb") as destination:
        descriptors = source.fileno(), destination.fileno()
        with pytest.raises(OSError, match=os.strerror(number)):
            file_copy.copy_content(*descriptors)


def test_a_full_filesystem_is_said_and_nothing_is_left(
    manifest: Manifest, host: bytes, place: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_copy, "copy_content", lambda *_: os_error(errno.ENOSPC))
    with pytest.raises(PkgjailError, match="No space left on device; nothing of it is left; make room"):
        build_environment(manifest, place, form="copy", root=host)
    assert not os.path.exists(place)


def os_error(number: int) -> None:
    """Raise it."""
    raise OSError(number, os.strerror(number))


def test_an_unknown_form_is_refused(manifest: Manifest, place: bytes) -> None:
    with pytest.raises(InputError, match="the forms are host, copy, fstab"):
        build_environment(manifest, place, form=cast("Form", "chroot"))


def test_a_mount_tree_is_that_of_the_export(manifest: Manifest, host: bytes, place: bytes) -> None:
    """What fstab's lines mount on is made as `pkgjail export --skeleton` makes it."""
    build_environment(manifest, place, form="fstab", root=host)
    write_skeleton(manifest, place + b"2", content_at_entry(manifest, host), mount_points=True)
    assert walk_lines(place + b"/root") == walk_lines(place + b"2")
    remove_environment(place)
    assert not os.path.exists(place)
