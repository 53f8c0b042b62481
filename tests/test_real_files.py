"""The files of real roots, against `rpm -ql`, `rpm -V`, `pacman -Ql` and pacman's mtree files."""

from __future__ import annotations

import gzip
import os
import re
from typing import TYPE_CHECKING

import pytest

from pkgjail.api import resolve
from pkgjail.backends import open_database
from pkgjail.backends.rpm.generated import AT_ENTRY
from pkgjail.core.text import raw_path, text_path
from tests.real_roots import RPM, copy_of, pacman, run, the_root
from tests.real_world import world

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import FileEntry

pytestmark = pytest.mark.gate

# Ghosts of the world that are not on the disk, or that are links of alternatives.
GHOSTS = {b"/var/log/absent.log", b"/usr/bin/prog"}


def whole_set(root: Path, key: str, family: str, tmp_path: Path) -> dict[bytes, FileEntry]:
    """The file set of all packages of the world."""
    names = [made.name for made in world(family)]
    whitelist = tmp_path / "all.toml"
    whitelist.write_text(f"[packages]\n{key} = {names}\n")
    manifest = resolve([str(whitelist)], root=os.fsencode(root))
    assert {package.name for package in manifest.packages} == set(names)
    return {entry.path: entry for entry in manifest.files}


def paths_of(database_root: Path, name: str) -> set[bytes]:
    """Return the paths that a package owns, by our backend."""
    database = open_database(os.fsencode(database_root))
    (package,) = (one for one in database.packages.values() if one.name == name)
    return set(database.owned_paths(package))


def test_rpm_lists(tmp_path: Path) -> None:
    """Protects against a path of a package that is lost, and one that is not its own."""
    root = copy_of("rpm", tmp_path)
    for made in world("rpm"):
        said = run(*RPM, "--root", root, "-ql", made.name)
        listed = {raw_path(line) for line in said.splitlines() if line.startswith("/")}
        assert paths_of(root, made.name) == listed - GHOSTS - AT_ENTRY


def test_rpm_verifies_what_is_recorded(tmp_path: Path) -> None:
    """Protects modes, links, sizes and digests: rpm's own account of each file is the manifest's.

    `rpm -V` finds nothing wrong with the root; then `--dump` is what the manifest must say.
    """
    root = copy_of("rpm", tmp_path)
    found = whole_set(root, "rhel", "rpm", tmp_path)
    run(*RPM, "--root", root, "-Va", "--nouser", "--nogroup", "--nomtime", "--noghost")
    dumped = 0
    for line in run(*RPM, "--root", root, "-qa", "--dump").splitlines():
        match = re.fullmatch(r"(/.*) (\d+) \d+ ([0-9a-f]+) 0(\d+) \S+ \S+ [01] [01] \d+ (.*)", line)
        if match is None:
            continue
        path, size, digest, mode, target = match.groups()
        entry = found.get(raw_path(path))
        if raw_path(path) in GHOSTS | AT_ENTRY or entry is None or path == "/var/log/ghostly.log":
            assert raw_path(path) in GHOSTS | AT_ENTRY or path == "/var/log/ghostly.log", path
            continue
        dumped += 1
        assert {"4": "directory", "10": "regular", "12": "symlink"}[mode[:-4]] == entry.kind
        if entry.kind != "symlink":
            assert entry.mode == int(mode[-4:], 8)
        if entry.kind == "symlink":
            assert entry.target == raw_path(target)
        elif entry.kind == "regular":
            assert entry.size == int(size)
            assert entry.sha256 in {digest, None}
            assert (entry.sha256 is None) == (not entry.mode & 0o004)
    assert dumped > 50


def test_rpm_owners_and_kinds(tmp_path: Path) -> None:
    """Protects who brings a file that two packages share, and what counts as configuration."""
    found = whole_set(the_root("rpm"), "rhel", "rpm", tmp_path)
    assert found[b"/usr/share/shared"].owners == ("shared-a:x86_64", "shared-b:x86_64")
    assert found[b"/etc/app.conf"].origin == "conffile"
    assert found[b"/var/log/ghostly.log"].owners == ("ghostly:x86_64",)
    assert b"/var/log/absent.log" not in found
    assert found[b"/etc/passwd"].origin == "entry"


def test_pacman_lists(tmp_path: Path) -> None:
    """Protects against a path of a package that is lost, and one that is not its own."""
    root = copy_of("pacman", tmp_path)
    prefix = os.fsencode(root)
    for made in world("pacman"):
        lines = pacman(root, "-Ql", made.name).splitlines()
        listed = {raw_path(line.partition(" ")[2])[len(prefix) :].rstrip(b"/") for line in lines}
        assert paths_of(root, made.name) == listed - AT_ENTRY


def unescaped(name: str) -> bytes:
    """A name of mtree(5), whose odd bytes are octal."""
    return re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), name.encode())


def test_pacman_mtree(tmp_path: Path) -> None:
    """Protects modes, links, sizes and digests: pacman's record of each file is the manifest's."""
    root = the_root("pacman")
    found = whole_set(root, "arch", "pacman", tmp_path)
    checked = 0
    for record in sorted((root / "var/lib/pacman/local").glob("*/mtree")):
        defaults: dict[str, str] = {}
        for line in gzip.decompress(record.read_bytes()).decode().splitlines():
            name, *words = line.split(" ")
            values = {key: value for key, _, value in (word.partition("=") for word in words)}
            if name == "/set":
                defaults = {**defaults, **values}
            path = unescaped(name[1:]) if name.startswith("./") else b""
            if not path or path.startswith(b"/.") or path in AT_ENTRY:
                continue
            known, entry = {**defaults, **values}, found[path]
            checked += 1
            assert {"dir": "directory", "file": "regular", "link": "symlink"}[known["type"]] == entry.kind
            if entry.kind == "symlink":
                assert text_path(entry.target or b"") == known["link"]
            else:
                assert entry.mode == int(known["mode"], 8)
            if entry.kind == "regular":
                assert entry.size == int(known["size"])
                assert entry.sha256 in {known["sha256digest"], None}
    assert checked > 60
