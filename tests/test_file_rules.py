"""Properties of every file set: each listed path is accounted for, and all parents are in the set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.core.model import Closure, FileSet, Package, Policy, Rule
from pkgjail.fileset import collect_files
from pkgjail.policy import load_policy
from pkgjail.sandbox.syscalls import openat2
from tests.memory import MemoryDatabase, Record
from tests.tree_text import Node, tree, trees

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATTERNS = st.sampled_from(
    ("/a", "a", "b/", "/a/*", "/**/c", "*.py", "!/a/b", "!c", "/a/**", "!a/", "/*", "[ab]", "!/*/*/*")
)
_DEEP = [Node(b"/" + b"d/" * 400 + b"end", "regular", 0o644, b"")]


@st.composite
def listings(draw: st.DrawFn) -> tuple[list[Node], list[list[bytes]], list[str]]:
    """A tree, what each of three packages lists (through links too), and a blacklist."""
    nodes = draw(trees())
    paths = [node.path for node in nodes] or [b"/a"]
    path = st.sampled_from(paths)
    listed = path | st.builds(lambda above, name: above + b"/" + os.path.basename(name), path, path)
    owned = [draw(st.lists(listed, max_size=8, unique=True)) for _ in range(3)]
    return nodes, owned, draw(st.lists(_PATTERNS, max_size=4))


def _collect(root: bytes, owned: Sequence[Sequence[bytes]], patterns: Sequence[str]) -> FileSet:
    packages = [Package(name=f"p{number}", version="1", architecture="all") for number in range(len(owned))]
    records = {
        package.key: Record(package=package, owned=tuple(paths)) for package, paths in zip(packages, owned)
    }
    drops = tuple(Rule(pattern=text, origin=f"b:{line}") for line, text in enumerate(patterns))
    policy = Policy(whitelists=(), blacklists=(), packages=(), drops=drops)
    closure = Closure(packages=tuple(packages), dependencies=(), reasons={})
    return collect_files(MemoryDatabase(records), closure, policy, root=root)


def _kernels_real(root: bytes, path: bytes) -> bytes | None:
    """Return where the kernel finds `path` below `root` as root directory; None without its directory."""
    resolve_in_root = 0x10
    directory, _, name = path.rpartition(b"/")
    top = os.open(root, os.O_PATH)
    try:
        found = openat2(top, directory or b"/", os.O_PATH | os.O_DIRECTORY, resolve_in_root)
    except OSError:
        return None
    finally:
        os.close(top)
    real = os.readlink(b"/proc/self/fd/%d" % found)
    os.close(found)
    return real[len(root) :] + b"/" + name


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(listings())
@example((_DEEP, [[_DEEP[0].path]], []))
def test_every_listed_path_is_kept_dropped_or_missing_and_only_one_of_them(
    listing: tuple[list[Node], list[list[bytes]], list[str]],
) -> None:
    """Every kept name is in kept directories, at the path where the kernel finds it."""
    nodes, owned, patterns = listing
    with tree(nodes) as root:
        files = _collect(root, owned, patterns)
        again = _collect(root, [list(reversed(paths)) for paths in owned], patterns)
        real = {_kernels_real(root, path) for paths in owned for path in paths} - {None}
    assert files == again
    kept = {entry.path: entry for entry in files.entries}
    dropped, missing = {one.path for one in files.dropped}, {one.path for one in files.missing}
    assert not kept.keys() & (dropped | missing)
    assert not dropped & missing
    assert real <= kept.keys() | dropped | missing
    assert all(kept[os.path.dirname(path)].kind == "directory" for path in kept)
    assert [list(files.entries), list(files.dropped)] == [
        sorted(files.entries, key=lambda one: one.path),
        sorted(files.dropped, key=lambda one: one.path),
    ]


@pytest.mark.parametrize("whitelist", ["base", "spack"])
def test_every_path_of_this_hosts_packages_is_accounted_for(whitelist: str) -> None:
    """Compare with realpath(3), which shares no code with the package."""
    database = open_database()
    policy = load_policy([whitelist], ["docs"], database=database)
    closure = resolve_closure(database, policy)
    files = collect_files(database, closure, policy)
    names = {one.path for part in (files.entries, files.dropped, files.missing) for one in part}
    owned = {path for package in closure.packages for path in database.owned_paths(package)} - {b"/"}
    above = {directory: os.path.realpath(directory) for directory in map(os.path.dirname, owned)}
    lost = [
        path
        for path in owned
        if os.path.join(above[os.path.dirname(path)], os.path.basename(path)) not in names
    ]
    assert not lost
    assert len(owned) > 1000
