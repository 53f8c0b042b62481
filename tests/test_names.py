"""Where paths lead in a manifest: as the kernel would say, and never by a look at the host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pkgjail.core.model import FileEntry
from pkgjail.core.paths import MAXSYMLINKS, Names, follow, resolve_inside
from pkgjail.core.untrusted import walk_in
from pkgjail.fileset.rootfs import Tree
from pkgjail.sandbox import syscalls as sc
from tests.checked_trees import entries_below

_TREE = {
    b"/": None,
    b"/usr": None,
    b"/usr/bin": None,
    b"/usr/bin/bash": b"",
    b"/bin": b"usr/bin",
    b"/usr/bin/sh": b"bash",
    b"/usr/bin/up": b"../../bin/sh",
    b"/etc": b"/usr/../gone/x",
    b"/round": b"round",
    b"/top": b"/../../bin/bash",
}


def entry(path: bytes, content: bytes | None) -> FileEntry:
    if content is None:
        return FileEntry(path=path, kind="directory", mode=0o755)
    if content:
        return FileEntry(path=path, kind="symlink", mode=0o777, target=content)
    return FileEntry(path=path, kind="regular", mode=0o755, size=0)


@pytest.mark.parametrize(
    ("path", "place", "there"),
    [
        (b"/bin/bash", b"/usr/bin/bash", True),
        (b"/bin/up", b"/usr/bin/bash", True),
        (b"/bin", b"/usr/bin", True),
        (b"/top", b"/usr/bin/bash", True),
        (b"/usr/bin/.././bin//sh", b"/usr/bin/bash", True),
        (b"/usr/bin/bash/", b"/usr/bin/bash/", False),  # no directory
        (b"/usr/bin/bash/x", b"/usr/bin/bash/x", False),
        (b"/etc/passwd", b"/gone", False),  # which the host has: that never counts
        (b"/no/../usr", b"/no", False),  # the first that is missing, as path_resolution(7) has it
    ],
)
def test_where_a_path_leads(path: bytes, place: bytes, there: bool) -> None:  # noqa: FBT001
    """Protects every proof that rests on it: the end of the links, or the first name that is missing."""
    found = Names(entry(name, content) for name, content in _TREE.items()).find(path)
    assert (found.place, found.entry is not None, found.loop) == (place, there, False)


def test_a_circle_is_told() -> None:
    """Protects from endless work."""
    found = Names(entry(name, content) for name, content in _TREE.items()).find(b"/round/x")
    assert (found.entry, found.loop) == (None, True)


_PART = st.sampled_from(["a", "b", "c", "..", "."])
_RELATIVE = st.lists(_PART, min_size=1, max_size=4).map("/".join)


@given(
    links=st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/c", "d/e/b"]), _RELATIVE, max_size=5),
    path=st.lists(st.sampled_from(["a", "b", "c", "d", "e", "..", "."]), min_size=1, max_size=6).map(
        "/".join
    ),
)
def test_the_kernel_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: str
) -> None:
    """Protects the rule for any links: the kernel is asked of a tree, which `..` may not leave here."""
    top = tmp_path_factory.mktemp("t")
    deep = top / "1/2/3/4/5/6/7/8/9"  # more than any `..` here climbs
    (deep / "d/e").mkdir(parents=True)
    for name, target in links.items():
        (deep / name).symlink_to(target)
    names = Names(entries_below(top, b"/t"))
    inside = b"/t" + os.fsencode(deep)[len(os.fsencode(top)) :] + b"/" + path.encode()
    found = names.find(inside)
    assert (found.entry is not None, found.loop) == _by_the_kernel(deep, path)


def _by_the_kernel(place: Path, path: str) -> tuple[bool, bool]:
    try:
        os.stat(f"{place}/{path}")
    except OSError as error:
        return False, error.errno == errno.ELOOP
    return True, False


_TARGETS = st.builds(str.__add__, st.sampled_from(["", "/", "/d/"]), _RELATIVE)


@given(
    links=st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/c", "d/e/b"]), _TARGETS, max_size=5),
    path=st.lists(st.sampled_from(["a", "b", "c", "d", "e", "..", "."]), min_size=1, max_size=6).map(
        "/".join
    ),
)
def test_all_walks_lead_where_the_kernel_leads(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str], path: str
) -> None:
    """Protects the one walk, and the one by descriptors: of a root directory, absolute links included."""
    root = os.fsencode(tmp_path_factory.mktemp("t"))
    os.makedirs(root + b"/d/e")
    for name, target in links.items():
        os.symlink(os.fsencode(target), root + b"/" + os.fsencode(name))
    raw = os.fsencode(path)
    descriptor = os.open(root, os.O_PATH)
    try:
        entries = entries_below(Path(os.fsdecode(root)), b"")
        found = Names(each._replace(path=each.path or b"/") for each in entries).find(b"/" + raw)
        reached, refused = _in_root(descriptor, raw)
        assert (found.entry is None, found.loop) == (refused != 0, refused == errno.ELOOP)
        if refused:
            with pytest.raises(OSError, match=os.strerror(refused)):
                walk_in(descriptor, raw, os.O_PATH)
            return
        place = os.readlink(b"/proc/self/fd/%d" % reached)
        walked = walk_in(descriptor, raw, os.O_PATH)
        assert os.path.samestat(os.fstat(walked), os.fstat(reached))
        os.close(walked)
        os.close(reached)
    finally:
        os.close(descriptor)
    assert resolve_inside(root, b"/" + raw) == place
    assert Tree(root).real_directory(b"/" + raw) == place[len(root) :]
    assert found.place == (place[len(root) :] or b"/")


def _in_root(root: int, path: bytes) -> tuple[int, int]:
    """Let the kernel open a path in a root directory: returns a descriptor and 0, or -1 and its error."""
    try:
        return sc.openat2(root, path, os.O_PATH, sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS), 0
    except OSError as error:
        return -1, error.errno or -1


def test_links_are_counted_and_named() -> None:
    """As many as Linux follows, from wherever one begins; each is named, the first one first."""
    targets = {b"/%d" % n: b"%d" % (n + 1) for n in range(MAXSYMLINKS + 1)}
    links: list[bytes] = []
    assert follow(b"/1", targets.get, links=links) == b"/%d" % (MAXSYMLINKS + 1)
    assert links == [b"/%d" % n for n in range(1, MAXSYMLINKS + 1)]
    with pytest.raises(OSError, match="symbolic links") as caught:
        follow(b"/0", targets.get)
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(OSError, match="symbolic links"):  # what was followed before counts
        follow(b"/1", targets.get, links=[b"/before"])


def test_a_walk_begins_where_it_is_told_to() -> None:
    targets = {b"/usr/lib/x": b"../y", b"/usr/z": b"/"}
    assert follow(b"x", targets.get, start=b"/usr/lib") == b"/usr/y"
    assert follow(b"../../..", targets.get, start=b"/usr/lib") == b"/"
    assert follow(b"z", targets.get, start=b"/usr") == b"/"
