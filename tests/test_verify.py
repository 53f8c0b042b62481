"""`verify`: every change is found and told for what it is, and nothing else is."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Callable

import pytest

from pkgjail.api import resolve
from pkgjail.backends import open_database
from pkgjail.core.errors import InputError, JailError
from pkgjail.review.verify import verify_manifest
from tests.debian_roots import make_root

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from pkgjail.review.verify import Verification

_FILES = [f"usr/lib/a/f{number:02}" for number in range(60)]
_LINKS = [f"usr/lib/a/l{number:02}" for number in range(20)]
_DIRECTORIES = [f"usr/share/a/d{number:02}" for number in range(10)]
_TIME = 1_700_000_000


def make_host(root: Path) -> bytes:
    """A Debian root with the package a, which the manifest has, and b, which it does not have."""
    own = {name: f"{name}\n" for name in _FILES}
    lists = ["/.", "/usr", "/usr/lib", "/usr/lib/a", "/usr/share", "/usr/share/a", "/etc", "/etc/a.conf"]
    lists += [f"/{name}" for name in (*_FILES, *_LINKS, *_DIRECTORIES)]
    sums = "".join(f"{hashlib.md5(text.encode()).hexdigest()}  {name}\n" for name, text in own.items())  # noqa: S324
    admin = {
        "var/lib/dpkg/info/a.list": "\n".join(lists) + "\n",
        "var/lib/dpkg/info/a.md5sums": sums,
        "var/lib/dpkg/info/b.list": "/.\n/usr\n/usr/lib\n/usr/lib/a\n/usr/lib/a/b\n",
        "var/lib/dpkg/info/dpkg.list": "/.\n",
        "etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "usr/lib/a/b": "of b",
        "usr/lib/a/stray": "of nobody",
        "etc/a.conf": "as the administrator wants it\n",
    }
    place = make_root(root, "a 1 amd64", "b 1 amd64", files={**own, **admin})
    for name in _LINKS:
        (root / name).symlink_to("f00")
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    for name in own:
        (root / name).chmod(0o644)
        os.utime(root / name, (_TIME, _TIME))
    return place


def resolve_a(root: Path) -> Manifest:
    policy = root.parent / "a.toml"
    policy.write_text('[packages]\ndebian = ["a"]\n[options]\nessential = false\n')
    return resolve([str(policy)], root=os.fsencode(root))


def rewrite(path: Path) -> None:
    """Other content of the same size, mode and time: only reading tells."""
    found = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("f00")


def lead_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("f01")


def to_file(path: Path) -> None:
    path.rmdir()
    path.write_bytes(b"")


# What is done, to which names, what is told of them.
CHANGES: list[tuple[Callable[[Path], object], list[str], str]] = [
    (rewrite, _FILES[5:10], "content"),
    (append, _FILES[10:15], "content"),
    (lambda path: path.chmod(0o600), _FILES[15:20], "mode"),
    (lambda path: path.chmod(0o4755), _FILES[20:25], "mode"),
    (lambda path: path.unlink(), _FILES[25:30], "missing"),
    (to_directory, _FILES[30:35], "kind"),
    (to_pipe, _FILES[35:40], "kind"),
    (to_link, _FILES[40:45], "kind"),
    (lead_elsewhere, _LINKS[:5], "target"),
    (lambda path: path.unlink(), _LINKS[5:10], "missing"),
    (to_file, _DIRECTORIES[:5], "kind"),
    (lambda path: path.rmdir(), _DIRECTORIES[5:], "missing"),
    (lambda path: path.write_bytes(b""), [f"usr/lib/a/new{number}" for number in range(5)], "extra"),
    (lambda path: path.mkdir(), [f"usr/share/a/new{number}" for number in range(5)], "extra"),
]


def told(found: Verification) -> set[tuple[str, str]]:
    return {(os.fsdecode(one.path)[1:], one.what) for one in (*found.differences, *found.extras)}


@pytest.mark.parametrize("quick", [False, True], ids=["by hash", "quick"])
def test_every_change_is_found(tmp_path: Path, quick: bool) -> None:  # noqa: FBT001
    """Protects whoever trusts a verified host: 70 changes of 14 kinds, each told once, and no more."""
    root = tmp_path / "host"
    place = make_host(root)
    manifest = resolve_a(root)
    database = open_database(place)
    untouched = verify_manifest(manifest, root=place, quick=quick, packages=True, database=database)
    assert (told(untouched), untouched.holds, untouched.beside) == (set(), True, ())
    expected = set()
    for change, names, what in CHANGES:
        for name in names:
            change(root / name)
            if not (quick and change is rewrite):  # which says what it does not look at
                expected.add((name, what))
    found = verify_manifest(manifest, root=place, quick=quick, database=database)
    assert told(found) == expected
    assert not found.holds


def test_the_packages_are_heard(tmp_path: Path) -> None:
    """Protects the second witness: of a changed file it says whether the package brought it so."""
    root = tmp_path / "host"
    place = make_host(root)
    rewrite(root / _FILES[1])  # before the manifest was made, so that the manifest has it as it is
    manifest = resolve_a(root)
    rewrite(root / _FILES[2])
    rewrite(root / _FILES[1])  # as the package brought it
    database = open_database(place)
    found = verify_manifest(manifest, root=place, database=database)
    assert {(os.fsdecode(one.path)[1:], one.what, one.witness) for one in found.differences} == {
        (_FILES[1], "content", "it is as a:amd64 brought"),
        (_FILES[2], "content", "it differs from what a:amd64 brought"),
    }
    again = verify_manifest(resolve_a(root), root=place, packages=True, database=database)
    assert told(again) == {(_FILES[2], "package")}


def test_versions_are_told(tmp_path: Path) -> None:
    """Protects the reader from a mystery: what was upgraded or removed is said so."""
    root = tmp_path / "host"
    make_host(root)
    manifest = resolve_a(root)
    append(root / _FILES[0])
    upgraded = open_database(make_root(root, "a 2 amd64"))
    removed = open_database(make_root(root, "b 1 amd64"))
    for database, said in (
        (upgraded, "it differs from what a:amd64 brought; a:amd64 is 2 here, 1 in the manifest"),
        (removed, "a:amd64 is no longer installed"),
    ):
        found = verify_manifest(manifest, root=os.fsencode(root), database=database)
        assert [one.witness for one in found.differences] == [said]


def test_extras_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects hosts that were never sealed from alarms, and trees without packages from intruders."""
    root = tmp_path / "host"
    place = make_host(root)
    manifest = resolve_a(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user's"))
    database = open_database(place)
    found = verify_manifest(manifest, root=place, database=database)
    beside = {os.fsdecode(one.path): one.owners for one in found.beside}
    assert found.holds
    assert (beside["/usr/lib/a/b"], beside["/usr/lib/a/stray"]) == (("b:amd64",), ())
    strict = verify_manifest(manifest, root=place, database=database, strict=True)
    assert {os.fsdecode(one.path) for one in strict.extras} == set(beside)
    tree = verify_manifest(manifest, root=place)
    assert {os.fsdecode(one.path) for one in tree.extras} == set(beside)
    assert verify_manifest(manifest, root=place, extra=False).extras == ()


def test_without_digests_only_quick_is_left(base_manifest: Manifest) -> None:
    """Protects from a verification that compares nothing."""
    with pytest.raises(JailError, match="no digests"):
        verify_manifest(base_manifest)


@pytest.mark.gate
def test_a_root_that_is_not_there_is_told(base_manifest: Manifest) -> None:
    """And not ten thousand names that it lacks."""
    with pytest.raises(InputError, match="/no/such: there is no such directory to verify"):
        verify_manifest(base_manifest, root=b"/no/such", quick=True)


def test_this_host_is_as_it_was() -> None:
    """Protects from false alarms on a real host, by its packages' records too."""
    manifest = resolve(["spack"], ["docs"])
    found = verify_manifest(manifest, packages=True, database=open_database())
    assert told(found) == set()
    assert found.hashed > 7000


@pytest.mark.parametrize("quick", [False, True], ids=["by hash", "quick"])
def test_nothing_is_looked_at_by_a_link_out_of_the_tree(tmp_path: Path, quick: bool) -> None:  # noqa: FBT001
    """Protects what is outside of a tree whose directory became a link: digests, modes, links and names."""
    root = tmp_path / "host"
    place = make_host(root)
    manifest = resolve_a(root)
    (root / "usr/lib/a").rename(tmp_path / "outside")
    (root / "usr/lib/a").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/f00").write_bytes(b"other")
    database = open_database(place)
    found = verify_manifest(manifest, root=place, quick=quick, packages=True, strict=True, database=database)
    below = {one for one in found.differences if one.path.startswith(b"/usr/lib/a/")}
    assert {one.what for one in below} == {"missing"}
    assert not any(one.path.startswith(b"/usr/lib/a/") for one in found.extras)
