"""Mount plans as text: the order of the steps, and each bind that is made or refused."""

from __future__ import annotations

import os
import re
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry, Manifest
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.plan import plan_jail
from tests.manifest_text import files_alone
from tests.tree_text import parse_tree, plan_lines

if TYPE_CHECKING:
    from pathlib import Path

# The sources: `dir` and `file` are there, `gone` is not, `to-dir` is a link.
_SOURCES = ("dir", "file", "gone", "to-dir")

_MANIFEST = """
/
/empty/
/etc/hostname
/opt/tool/bin/x
/home -> data/home
/loop -> loop
/short -> /opt/tool
"""


def manifest(tree: str, *, at_entry: str = "") -> Manifest:
    """Return the manifest of a tree's text with all its directories; `at_entry` is a file made at entry."""
    nodes = {node.path: node for node in parse_tree(tree)}
    above = {path[:end] for path in nodes for end in range(1, len(path)) if path[end : end + 1] == b"/"}
    entries = [FileEntry(path=path, kind="directory", mode=0o755) for path in above - nodes.keys()]
    for path, node in nodes.items():
        if node.kind == "regular":
            entry = FileEntry(path=path, kind="regular", mode=node.mode, size=len(node.data))
        else:
            entry = FileEntry(path=path, kind=node.entry_kind, mode=node.mode, target=node.data or None)
        entries.append(entry)
    if at_entry:
        entries.append(FileEntry(path=at_entry.encode(), kind="regular", mode=0o644, origin="entry"))
    files = tuple(sorted(entries, key=lambda entry: entry.path))
    return files_alone(files)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "to-dir").symlink_to("dir")
    return tmp_path.resolve()


def bind(sources: Path, text: str) -> UserBind:
    """`SOURCE:DESTINATION[:ro]`; the source is one of `_SOURCES`."""
    source, destination, *read_only = text.split(":")
    assert source in _SOURCES
    return UserBind(
        source=os.fsencode(sources / source), destination=destination.encode(), writable=not read_only
    )


def test_a_plan_makes_the_files_then_the_seal_then_the_other_mounts() -> None:
    """After the seal, nothing of the manifest can be written to; writable mounts come later."""
    tree = """
    /bin -> usr/bin
    /etc/ 0700
    /usr/bin/sh 0755 = #!
    /var/tmp/ 01777
    /root
    """
    made = {b"/etc/passwd": b"root\n", b"/etc/unasked": b"no"}
    plan = plan_jail(
        manifest(tree, at_entry="/etc/passwd"), JailOptions(network=False), entry_files=made, root=b"/./"
    )
    assert (plan.root, plan.network, plan.hostname) == (b"/", False, "pkgjail")
    expected = """
    directory /
    symlink /bin usr/bin
    directory /etc 0700
    content /etc/passwd 'root\\n'
    hostfile /root 2 bytes
    directory /usr
    directory /usr/bin
    hostfile /usr/bin/sh 0755 2 bytes
    directory /var
    directory /var/tmp 1777
    directory /dev
    directory /proc
    directory /sys
    directory /tmp
    seal
    proc /proc
    sys /sys
    devices /dev
    tmpfs /tmp 1777
    tmpfs /var/tmp 1777
    """
    assert plan_lines(plan) == dedent(expected).split("\n")[1:-1]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        pytest.param("/ 0555", "directory / 0555", id="the root's own mode"),
        pytest.param("/a/", "directory /", id="a root without one"),
        pytest.param("/tmp/ 0700", "directory /tmp 0700, tmpfs /tmp 1777", id="an empty /tmp is private"),
        pytest.param("/tmp/x", "directory /tmp, hostfile /tmp/x 2 bytes", id="one with names keeps them"),
        pytest.param("/var/tmp/x", "directory /var/tmp, hostfile /var/tmp/x 2 bytes", id="/var/tmp too"),
        pytest.param(
            "/dev/x/", "directory /dev, directory /dev/x, devices /dev", id="what is in /dev is covered"
        ),
    ],
)
def test_entries_of_the_manifest_in_the_jails_own_directories(tree: str, expected: str) -> None:
    top = expected.split(" ")[1].rstrip(",")
    about = re.compile(rf"[a-z]+ {top}(/.+)?( .*)?")
    lines = plan_lines(plan_jail(manifest(tree), JailOptions(), entry_files={}))
    assert ", ".join(filter(about.fullmatch, lines)) == expected


def test_a_file_made_at_entry_without_content_is_empty() -> None:
    plan = plan_jail(manifest("", at_entry="/etc/hosts"), JailOptions(), entry_files={})
    assert "content /etc/hosts ''" in plan_lines(plan)


# Each row: what it protects, the binds, the steps before the seal, and those at the end.
BINDS = [
    ("a directory, at a path that is made", ["dir:/w/x"], ["/w", "/w/x"], ["bind /w/x DIR writable"]),
    ("read-only", ["dir:/w:ro"], ["/w"], ["bind /w DIR read-only"]),
    ("a file is bound onto an empty one", ["file:/w/f"], ["/w", "file /w/f"], ["bind /w/f FILE writable"]),
    ("onto an empty directory of the manifest", ["dir:/empty"], [], ["bind /empty DIR writable"]),
    ("beside names of the manifest", ["dir:/opt/y"], ["/opt/y"], ["bind /opt/y DIR writable"]),
    ("a link as source means what it leads to", ["to-dir:/w"], ["/w"], ["bind /w DIR writable"]),
    (
        "through a link of the manifest",
        ["dir:/home/me"],
        ["/data", "/data/home", "/data/home/me"],
        ["bind /data/home/me DIR writable"],
    ),
    ("an absolute one too", ["dir:/short/y"], ["/opt/tool/y"], ["bind /opt/tool/y DIR writable"]),
    ("'..' and '.' in a destination", ["dir:/w/./../v"], ["/v"], ["bind /v DIR writable"]),
    ("the private /tmp", ["dir:/tmp"], [], ["bind /tmp DIR writable"]),
    (
        "below the private /tmp, where it is made once that is there",
        ["dir:/tmp/a/b", "file:/tmp/f"],
        [],
        [
            "directory /tmp/a",
            "directory /tmp/a/b",
            "bind /tmp/a/b DIR writable",
            "content /tmp/f ''",
            "bind /tmp/f FILE writable",
        ],
    ),
    (
        "one below another, in either order; what the outer one holds is not ours to make",
        ["dir:/w/in:ro", "dir:/w"],
        ["/w"],
        ["bind /w DIR writable", "bind /w/in DIR read-only"],
    ),
    ("of two at one place the later", ["dir:/w", "dir:/w:ro"], ["/w"], ["bind /w DIR read-only"]),
    (
        "two files beside each other",
        ["file:/f", "file:/g"],
        ["file /f", "file /g"],
        ["bind /f FILE writable", "bind /g FILE writable"],
    ),
]


@pytest.mark.parametrize(
    ("binds", "before", "after"), [row[1:] for row in BINDS], ids=[row[0] for row in BINDS]
)
def test_binds(sources: Path, binds: list[str], before: list[str], after: list[str]) -> None:
    bare = plan_lines(plan_jail(manifest(_MANIFEST), JailOptions(), entry_files={}))
    options = JailOptions(binds=tuple(bind(sources, text) for text in binds))
    lines = plan_lines(plan_jail(manifest(_MANIFEST), options, entry_files={}))
    seal = bare.index("seal")
    made = [f"content {text[5:]} ''" if text.startswith("file ") else f"directory {text}" for text in before]
    places = {"DIR": str(sources / "dir"), "FILE": str(sources / "file")}
    ends = [" ".join(places.get(word, word) for word in line.split(" ")) for line in after]
    assert lines == [*bare[:seal], *made, *bare[seal:], *ends]


_ELSEWHERE = "bind it at a path of its own (SOURCE:DESTINATION)"
REFUSALS = [
    ("dir:/", f"at /: it would cover 14 of the jail's own names; {_ELSEWHERE}"),
    ("dir:/opt", f"at /opt: it would cover 3 of the jail's own names; {_ELSEWHERE}"),
    ("dir:/proc", f"at /proc: the jail has a filesystem of its own there; {_ELSEWHERE}"),
    ("dir:/proc/self", f"at /proc/self: the jail has a filesystem of its own there; {_ELSEWHERE}"),
    ("file:/dev/null", f"at /dev/null: the jail has a filesystem of its own there; {_ELSEWHERE}"),
    ("dir:/w/../sys", f"at /sys: the jail has a filesystem of its own there; {_ELSEWHERE}"),
    ("file:/etc/hostname", f"at /etc/hostname: the manifest has a regular file there; {_ELSEWHERE}"),
    ("file:/empty", f"at /empty: that is a directory in the jail, and the source is not; {_ELSEWHERE}"),
    (
        "dir:/etc/hostname/x",
        "cannot make /etc/hostname/x in the jail: /etc/hostname is a regular file there; choose another path",
    ),
    ("dir:/loop", "cannot resolve /loop in the jail: too many symbolic links"),
    ("gone:/w", "gone: No such file or directory; make it or name another"),
]


@pytest.mark.parametrize(("text", "message"), REFUSALS)
def test_a_bind_that_would_cover_the_manifest_is_refused(sources: Path, text: str, message: str) -> None:
    options = JailOptions(binds=(bind(sources, text),))
    with pytest.raises(JailError) as caught:
        plan_jail(manifest(_MANIFEST), options, entry_files={})
    assert str(caught.value).endswith(message)
    assert str(caught.value).startswith("cannot ")


def test_a_bind_over_files_in_tmp_is_refused(sources: Path) -> None:
    options = JailOptions(binds=(bind(sources, "dir:/tmp"),))
    with pytest.raises(JailError, match="it would cover 1 of the jail's own names"):
        plan_jail(manifest("/tmp/x"), options, entry_files={})


def test_a_file_in_place_of_the_jails_own_directory_is_refused() -> None:
    with pytest.raises(JailError, match="cannot make /proc in the jail: /proc is a symbolic link there"):
        plan_jail(manifest("/proc -> x"), JailOptions(), entry_files={})
