"""Exactness: a process in the jail sees the manifest, name by name; and drift prevents entry.

These tests use real namespaces: a child builds the root of the plan, enters it, and walks it with the code
that is loaded, so that the jail needs no program.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pkgjail.core.entries import Mismatch
from pkgjail.core.errors import DriftError, describe_changes
from pkgjail.core.model import Closure, Manifest, Policy, Rule
from pkgjail.core.options import JailOptions
from pkgjail.fileset import collect_files
from pkgjail.jails import strategy
from pkgjail.jails.drift import refuse_drift
from pkgjail.jails.plan import plan_jail
from pkgjail.jails.strategy import choose_strategies, steps_by_directory
from pkgjail.sandbox import syscalls as sc
from pkgjail.sandbox.rootfs import HostChangedError, enter_new_root
from pkgjail.sandbox.steps import assemble
from tests.conftest import EXAMPLES
from tests.manifest_text import files_alone
from tests.memory import MemoryDatabase
from tests.tree_text import (
    DIRECTORY_MODES,
    NOBODY,
    PRIVATE_MODES,
    Node,
    in_child,
    make,
    name_line,
    parse_tree,
    remove_path,
    shown,
    tree,
    trees,
)
from tests.tree_text import walk_lines as walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.sandbox.steps import Plan, Step

WAYS = ("tree", "mask", "whole", "binds")
USERS = sorted({os.geteuid(), os.geteuid() or NOBODY})
# What a jail has of its own.
_OWN = (b"/dev", b"/proc", b"/sys", b"/tmp")


def manifest_of(root: bytes) -> Manifest:
    """Return a manifest of every name below `root`, as the rule `/**` finds them."""
    policy = Policy(
        whitelists=(), blacklists=(), packages=(), includes=(Rule(pattern="/**", origin="w.toml:1"),)
    )
    closure = Closure(packages=(), dependencies=(), reasons={})
    files = collect_files(MemoryDatabase({}), closure, policy, root=root)
    return files_alone(files.entries)


def without(manifest: Manifest, paths: set[bytes]) -> Manifest:
    """Return the manifest without these paths and all below them."""
    files = tuple(
        entry
        for entry in manifest.files
        if not any(entry.path == path or entry.path.startswith(path + b"/") for path in paths)
    )
    return Manifest(header=manifest.header, packages=(), dependencies=(), files=files)


def promised(manifest: Manifest, root: bytes, uid: int) -> list[str]:
    """Return what a walk by the user `uid` must find, read from the tree and not from the manifest."""
    lines = []
    for entry in manifest.files:
        if entry.path == b"/" or entry.path in _OWN:
            continue
        if entry.origin == "alternative":
            lines.append(f"{shown(entry.path)} symlink {shown(entry.target or b'')}")
            continue
        if entry.origin == "entry":
            lines.append(f"{shown(entry.path)} regular {entry.mode:04o} {hashlib.sha256().hexdigest()}")
            continue
        if entry.origin == "parent" and not os.path.lexists(root + entry.path):
            lines.append(f"{shown(entry.path)} directory 0755")
            continue
        found = os.lstat(root + entry.path)
        line = name_line(root, entry.path, found)
        readable = stat.S_IRUSR if uid == found.st_uid else stat.S_IROTH
        if entry.kind == "regular" and not found.st_mode & readable:
            line = f"{line.rpartition(' ')[0]} unreadable"
        lines.append(line)
    return sorted(lines)


def seen(manifest: Manifest, root: bytes, uid: int, way: str = "binds") -> str:
    """Return what the user `uid` finds in the jail of `manifest`, or the drift."""
    runtime = Path(os.environ["XDG_RUNTIME_DIR"]) / f"exactness-{uid}"
    runtime.mkdir(exist_ok=True, mode=0o700)
    os.chown(runtime, uid, uid)

    def build_and_enter() -> str:
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        try:
            if way in ("tree", "mask"):  # the others notice it themselves
                refuse_drift(manifest.files, root)
            plan = plan_jail(
                manifest,
                JailOptions(),
                entry_files={},
                root=root,
                directory_steps=_steps_of(way, manifest, root),
            )
            return _in_namespaces(lambda: enter(plan))
        except DriftError as drift:
            return "\n".join(f"{shown(path)} {found}" for path, found in describe_changes(drift.changes))

    def enter(plan: Plan) -> str:
        try:
            enter_new_root(assemble(plan))
        except HostChangedError as changed:
            changes = [(path, Mismatch(what, old, new)) for path, what, old, new in changed.changes]
            return "\n".join(f"{shown(path)} {found}" for path, found in describe_changes(changes))
        sc.capset()  # as the command will have it
        return "\n".join(walk(b"", skipped=_OWN))

    try:
        return in_child(build_and_enter, uid)
    finally:
        if (runtime / "pkgjail" / "layers").is_dir():
            remove_path(runtime / "pkgjail" / "layers")


def _steps_of(way: str, manifest: Manifest, root: bytes) -> dict[bytes, Step]:
    """Return the steps of one strategy for every top directory that can have it, however small."""
    strategy._LEAST_NAMES = 0  # in a child of its own
    strategy._PREFERENCE = () if way == "binds" else (way,)  # type: ignore[assignment]
    return steps_by_directory(choose_strategies(manifest, JailOptions(), root))


def _in_namespaces(work: Callable[[], str]) -> str:
    """Return the result of `work` in new user, mount and PID namespaces, like those of a jail."""
    user, group = os.geteuid(), os.getegid()
    sc.prctl(sc.PR_SET_DUMPABLE, 1)  # changing the user took it away, and with it /proc/self
    sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS | sc.CLONE_NEWPID)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    return in_child(work, user)


_DEEP = [Node(b"/d" * 300, "directory")]
# Names of each sort: what the manifest leaves out, and the links in it that are the jail's own.
_FEW = st.lists(st.integers(0, 99), max_size=4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("uid", USERS)
@settings(max_examples=EXAMPLES // (len(WAYS) * len(USERS)) + 1, deadline=None)
@given(trees(directory_modes=(*DIRECTORY_MODES, *PRIVATE_MODES)), _FEW, _FEW)
@example(_DEEP, [], [])
@example(_DEEP, [299], [])
def test_a_walk_of_the_jail_finds_exactly_the_manifest(
    uid: int, way: str, nodes: list[Node], left_out: list[int], ours: list[int]
) -> None:
    """For any tree and any part of it, with some links that differ or are missing on the host.

    The oracle reads the tree itself.
    """
    with tree(nodes) as root:
        whole = manifest_of(root)
        paths = [entry.path for entry in whole.files if entry.path != b"/"]
        links = [entry.path for entry in whole.files if entry.kind == "symlink"]
        manifest = without(whole, {paths[number % len(paths)] for number in left_out if paths})
        manifest = _with_generated_links(manifest, {links[number % len(links)] for number in ours if links})
        for entry in manifest.files:
            if entry.origin == "alternative" and len(entry.path) % 2:
                _unlink(root + entry.path)
        assert seen(manifest, root, uid, way).splitlines() == promised(manifest, root, uid)


def _unlink(path: bytes) -> None:
    """Delete a link, also from a directory that its owner may not write to."""
    directory = os.path.dirname(path)
    mode = stat.S_IMODE(os.stat(directory).st_mode)
    os.chmod(directory, mode | stat.S_IRWXU)
    os.unlink(path)
    os.chmod(directory, mode)


def _with_generated_links(manifest: Manifest, paths: set[bytes]) -> Manifest:
    """Give these links the origin "alternative" and other targets than the host's."""
    files = tuple(
        entry._replace(target=b"../ours", origin="alternative") if entry.path in paths else entry
        for entry in manifest.files
    )
    return replace(manifest, files=files)


@settings(max_examples=60, deadline=None)
@given(trees())
def test_the_rule_for_everything_finds_every_public_name(nodes: list[Node]) -> None:
    """Otherwise the test above might compare little with little."""
    with tree(nodes) as root:
        found = promised(manifest_of(root), root, os.geteuid())
        assert [line.split(" ")[:3] for line in found] == [line.split(" ")[:3] for line in walk(root)]


_DISK = """
/a/gone
/a/same
/a/now-a-link
/a/longer = text
/a/other-mode
/a/now-a-directory
/a/now-a-pipe
/linked/x
/linked/y
/lost/deep/x
/z/same
"""


def _change(root: bytes) -> None:
    for path in (b"/a/gone", b"/a/now-a-link", b"/a/now-a-directory", b"/a/now-a-pipe"):
        os.unlink(root + path)
    os.symlink("same", root + b"/a/now-a-link")
    os.mkdir(root + b"/a/now-a-directory")
    os.mkfifo(root + b"/a/now-a-pipe")
    with open(root + b"/a/longer", "ab") as file:
        file.write(b"er")
    os.chmod(root + b"/a/other-mode", 0o4600)
    os.rename(root + b"/linked", root + b"/elsewhere")
    os.symlink("elsewhere", root + b"/linked")
    shutil.rmtree(root + b"/lost")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("uid", USERS)
def test_all_changes_of_the_host_are_named_and_prevent_entry(uid: int, way: str) -> None:
    """File binds find them by themselves. Overlays are compared with the host before."""
    with tree(parse_tree(_DISK)) as root:
        manifest = manifest_of(root)
        _change(root)
        is_overlay = way in ("tree", "mask")
        directories = ["/linked is no longer a directory", "/lost is gone", "/lost/deep is gone"]
        assert sorted(seen(manifest, root, uid, way).splitlines()) == sorted(
            [
                "/a/gone is gone",
                "/a/longer has 6 bytes, not 4",
                "/a/now-a-directory is no longer a regular file",
                "/a/now-a-link is no longer a regular file",
                "/a/now-a-pipe is no longer a regular file",
                "/a/other-mode has mode 4600, not 0644",
                "/lost/deep/x is gone",
                *(directories if is_overlay else ("/linked/x is gone", "/linked/y is gone")),
            ]
        )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("uid", USERS)
def test_a_directory_that_became_a_link_is_found(uid: int, way: str) -> None:
    """Also if no package lists it, so that it is not compared with the manifest.

    An overlay of it is not made, and a bind mount does not follow the link.
    """
    with tree(parse_tree("/a/linked/deep/x\n/a/y")) as root:
        found = manifest_of(root)
        files = [e._replace(origin="parent" if e.kind == "directory" else e.origin) for e in found.files]
        manifest = replace(found, files=tuple(files))
        os.rename(root + b"/a/linked", root + b"/elsewhere")
        os.symlink("../elsewhere", root + b"/a/linked")
        assert seen(manifest, root, uid, way) == "/a/linked/deep/x is gone"


@pytest.mark.parametrize("way", WAYS)
def test_names_that_come_to_the_host_later_are_not_visible(way: str) -> None:
    """A directory bind would show them; file binds do not."""
    with tree(parse_tree("/a/x\n/a/empty/")) as root:
        manifest = manifest_of(root)
        before = seen(manifest, root, os.geteuid(), way)
        make([Node(b"/a/new", "regular"), Node(b"/a/empty/new", "regular"), Node(b"/new", "directory")], root)
        assert seen(manifest, root, os.geteuid(), way) == before
