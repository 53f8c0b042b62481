"""`verify` finds every change, reports its kind, and reports nothing else."""

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
    """Make a Debian root with the packages a, which the manifest has, and b, which it does not have."""
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
    """Change the content but not size, mode and time: only reading the file reveals it."""
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


# Each: the change, the names to which it is applied, and the kind of difference that is reported.
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


def reported(found: Verification) -> set[tuple[str, str]]:
    return {(os.fsdecode(one.path)[1:], one.what) for one in (*found.differences, *found.extras)}


@pytest.mark.parametrize("quick", [False, True], ids=["by hash", "quick"])
def test_every_change_is_found(tmp_path: Path, quick: bool) -> None:  # noqa: FBT001
    """Protects users of a verified host: 70 changes of 14 kinds are each reported once, and no others."""
    root = tmp_path / "host"
    place = make_host(root)
    manifest = resolve_a(root)
    database = open_database(place)
    untouched = verify_manifest(manifest, root=place, quick=quick, packages=True, database=database)
    assert (reported(untouched), untouched.matches, untouched.uncounted) == (set(), True, ())
    expected = set()
    for change, names, what in CHANGES:
        for name in names:
            change(root / name)
            if not (quick and change is rewrite):  # which does not read files
                expected.add((name, what))
    found = verify_manifest(manifest, root=place, quick=quick, database=database)
    assert reported(found) == expected
    assert not found.matches


def test_packages_records_are_quoted(tmp_path: Path) -> None:
    """Protects the packages' records: they say whether a changed file is as the package installed it."""
    root = tmp_path / "host"
    place = make_host(root)
    rewrite(root / _FILES[1])  # before the manifest was made, so that the manifest has it as it is
    manifest = resolve_a(root)
    rewrite(root / _FILES[2])
    rewrite(root / _FILES[1])  # as the package installed it
    database = open_database(place)
    found = verify_manifest(manifest, root=place, database=database)
    assert {(os.fsdecode(one.path)[1:], one.what, one.package_note) for one in found.differences} == {
        (_FILES[1], "content", "it is as a:amd64 installed"),
        (_FILES[2], "content", "it differs from what a:amd64 installed"),
    }
    compared = verify_manifest(resolve_a(root), root=place, packages=True, database=database)
    assert reported(compared) == {(_FILES[2], "package")}


def test_other_versions_are_reported(tmp_path: Path) -> None:
    """Protects the explanation of a difference: an upgraded or removed package is reported."""
    root = tmp_path / "host"
    make_host(root)
    manifest = resolve_a(root)
    append(root / _FILES[0])
    upgraded = open_database(make_root(root, "a 2 amd64"))
    removed = open_database(make_root(root, "b 1 amd64"))
    for database, said in (
        (upgraded, "it differs from what a:amd64 installed; a:amd64 is 2 here, 1 in the manifest"),
        (removed, "a:amd64 is no longer installed"),
    ):
        found = verify_manifest(manifest, root=os.fsencode(root), database=database)
        assert [one.package_note for one in found.differences] == [said]


def test_extra_names_are_classified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects hosts without a baseline from false alarms, and trees without packages from intruders."""
    root = tmp_path / "host"
    place = make_host(root)
    manifest = resolve_a(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user's"))
    database = open_database(place)
    found = verify_manifest(manifest, root=place, database=database)
    uncounted = {os.fsdecode(one.path): one.owners for one in found.uncounted}
    assert found.matches
    assert (uncounted["/usr/lib/a/b"], uncounted["/usr/lib/a/stray"]) == (("b:amd64",), ())
    strict = verify_manifest(manifest, root=place, database=database, strict=True)
    assert {os.fsdecode(one.path) for one in strict.extras} == set(uncounted)
    tree = verify_manifest(manifest, root=place)
    assert {os.fsdecode(one.path) for one in tree.extras} == set(uncounted)
    assert verify_manifest(manifest, root=place, extra=False).extras == ()


def test_without_digests_only_quick_is_possible(base_manifest: Manifest) -> None:
    """Protects from a verification that compares nothing."""
    with pytest.raises(JailError, match="no digests"):
        verify_manifest(base_manifest)


@pytest.mark.gate
def test_a_root_that_does_not_exist_is_reported(base_manifest: Manifest) -> None:
    """Protects from a report of ten thousand missing names instead."""
    with pytest.raises(InputError, match="/no/such: there is no such directory to verify"):
        verify_manifest(base_manifest, root=b"/no/such", quick=True)


def test_this_host_matches() -> None:
    """Protects from false alarms on a real host, also from its packages' records."""
    manifest = resolve(["spack"], ["docs"])
    found = verify_manifest(manifest, packages=True, database=open_database())
    assert reported(found) == set()
    assert found.hashed > 7000


@pytest.mark.parametrize("quick", [False, True], ids=["by hash", "quick"])
def test_links_out_of_the_tree_are_not_followed(tmp_path: Path, quick: bool) -> None:  # noqa: FBT001
    """Protects files outside a tree whose directory became a link: digests, modes, links and names."""
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
