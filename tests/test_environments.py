"""Environments: built, entered and removed, as root and as an ordinary user; and never more removed.

Real trees on the disk. What a removal must not touch is put there, and then compared with before.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from pkgjail.environments.build import build_environment
from pkgjail.environments.remove import remove_environment
from pkgjail.errors import DriftError, InputError, PkgjailError, SurpriseError
from pkgjail.manifest import dump_manifest, write_manifest
from tests.test_exactness import USERS, manifest_of
from tests.tree_text import Node, in_child, name_line, parse_tree, tree, trees, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.model import Manifest
    from tests.conftest import Caller

HOST = """
/bin -> usr/bin
/usr/bin/a 0755 = alpha
/usr/bin/b 4755 = beta
/usr/bin/to-a -> a
/usr/closed/ 0555
/usr/closed/c 0444 = gamma
/usr/empty/
/usr/nowhere -> /no/where
/var/sticky/ 1777
/zero =
"""
FORMS = ("host", "copy", "fstab")


@pytest.fixture
def host() -> Iterator[bytes]:
    """A small tree to make manifests of."""
    with tree(parse_tree(HOST)) as root:
        yield root


@pytest.fixture
def manifest(host: bytes) -> Manifest:
    """All of the small tree."""
    return manifest_of(host)


@pytest.fixture
def place(tmp_path: Path) -> bytes:
    """Where an environment may be made: what is beside it must stay."""
    (tmp_path / "beside").write_text("mine")
    return bytes(tmp_path / "env")


def around(place: bytes) -> list[str]:
    """All that lies in and beside the environment."""
    return walk_lines(os.path.dirname(place))


# --- build and remove -----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "an empty directory"])
def test_removal_takes_away_all_that_was_built(
    manifest: Manifest, host: bytes, place: bytes, form: str, *, existing: bool
) -> None:
    before = around(place), walk_lines(host)
    if existing:
        os.mkdir(place)
    built = build_environment(manifest, place, form=form, root=host)
    removed = remove_environment(place)
    assert (removed.deleted, removed.gone) == (built.names, 0)
    assert (around(place), walk_lines(host)) == before


@pytest.mark.parametrize("uid", USERS)
@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_copy_is_the_manifest_name_by_name(uid: int, nodes: list[Node]) -> None:
    """For any tree: kinds, modes less set-ID bits, contents, links; no hard link; and it can be removed.

    Files that the user may not read are left out of the tree: a copy of them is refused.
    """
    with tree(nodes) as root, tree([Node(b"/mine", "regular")]) as home:
        os.chmod(home, 0o777)  # noqa: S103 - the other user makes the environment in it
        manifest = manifest_of(root)
        unreadable = {e.path for e in manifest.files if e.kind == "regular" and not e.mode & 0o004}
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
