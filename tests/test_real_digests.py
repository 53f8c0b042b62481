"""The digests that rpm and pacman recorded, with which `verify` compares files, on real roots."""

from __future__ import annotations

import gzip
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve
from pkgjail.backends import open_database
from pkgjail.core.errors import DatabaseError
from pkgjail.review.verify import verify_manifest
from tests.real_roots import AS_ROOT, RPM, copy_of, run, the_root

if TYPE_CHECKING:
    from pathlib import Path

# Checks rules, not interpreters: the programs are the distribution's.
pytestmark = pytest.mark.gate

KEYS = {"rpm": "rhel", "pacman": "arch"}
both = pytest.mark.parametrize("family", sorted(KEYS))


@both
def test_each_file_has_its_digest(family: str) -> None:
    """Protects the packages' records: they have every file that a package installed, and the right digest."""
    root = the_root(family)
    database = open_database(os.fsencode(root))
    seen = 0
    for package in database.packages.values():
        found = database.digests(package)
        places = {path: root / os.fsdecode(path)[1:] for path in database.owned_paths(package)}
        regular = {path for path, place in places.items() if place.is_file() and not place.is_symlink()}
        ghosts = {b"/var/log/ghostly.log"}
        assert set(found) == regular - database.conffiles(package) - ghosts
        for path, recorded in found.items():
            assert recorded == f"sha256:{hashlib.sha256(places[path].read_bytes()).hexdigest()}"
            seen += 1
    assert seen > 30


def test_digests_are_those_of_rpm() -> None:
    """Protects the digests of rpm's database: they are those that rpm itself lists."""
    root = the_root("rpm")
    database = open_database(os.fsencode(root))
    for package in database.packages.values():
        found = database.digests(package)
        dumped = [
            line.rsplit(" ", 10)  # path size mtime digest mode owner group isconfig isdoc rdev symlink
            for line in run(*AS_ROOT, *RPM, "--root", root, "-q", "--dump", package.name).splitlines()
            if line.startswith("/")
        ]
        plain = {os.fsencode(one[0]): one[3] for one in dumped if one[3].strip("0") and one[7] == "0"}
        assert found == {path: f"sha256:{digest}" for path, digest in plain.items()}


@both
def test_packages_records_are_quoted(family: str, tmp_path: Path) -> None:
    """Protects verify on such a host: it says whether a changed file is as the package installed it."""
    root = copy_of(family, tmp_path)
    whitelist = tmp_path / "w.toml"
    whitelist.write_text(f'[packages]\n{KEYS[family]} = ["app"]\n[options]\nessential = false\n')
    manifest = resolve([str(whitelist)], root=os.fsencode(root))
    assert verify_manifest(
        manifest, root=os.fsencode(root), packages=True, database=open_database(os.fsencode(root))
    ).matches
    (root / "usr/bin/app").write_text("another\n")
    (root / "etc/app.conf").write_text("as the administrator wants it\n")
    found = verify_manifest(manifest, root=os.fsencode(root), database=open_database(os.fsencode(root)))
    assert {(one.path, one.package_note) for one in found.differences} == {
        (b"/usr/bin/app", "it differs from what app:x86_64 installed"),
        (b"/etc/app.conf", ""),
    }
    changed = resolve([str(whitelist)], root=os.fsencode(root))
    compared = verify_manifest(
        changed, root=os.fsencode(root), packages=True, database=open_database(os.fsencode(root))
    )
    assert [(one.path, one.what) for one in compared.differences] == [(b"/usr/bin/app", "package")]


def test_a_package_that_was_replaced_meanwhile(tmp_path: Path) -> None:
    """Protects from digests of another version: they are read later than the packages."""
    database = open_database(os.fsencode(copy_of("rpm", tmp_path)))
    app = database.packages["app:x86_64"]
    run(*AS_ROOT, *RPM, "--root", tmp_path / "rpm/root", "-e", "--nodeps", "--justdb", "app")
    assert database.digests(app) == {}
    assert database.digests(database.packages["tool:x86_64"])


def test_an_mtree_that_is_not_whole(tmp_path: Path) -> None:
    """Protects from half a record; none at all is none. Old packages have MD5 alone."""
    root = copy_of("pacman", tmp_path)
    database = open_database(os.fsencode(root))
    app = database.packages["app:x86_64"]
    (mtree,) = (root / "var/lib/pacman/local").glob("app-*/mtree")
    whole = mtree.read_bytes()
    text = gzip.decompress(whole)
    old = b"\n".join(line.partition(b" sha256digest")[0] for line in text.split(b"\n"))
    mtree.write_bytes(gzip.compress(old))
    digest = hashlib.md5((root / "usr/bin/app").read_bytes()).hexdigest()  # noqa: S324
    assert database.digests(app)[b"/usr/bin/app"] == f"md5:{digest}"
    mtree.write_bytes(whole[:-9])
    with pytest.raises(DatabaseError, match=r"/mtree: .*; restore it from a backup"):
        database.digests(app)
    mtree.unlink()
    assert database.digests(app) == {}
