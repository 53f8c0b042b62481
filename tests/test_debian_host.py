"""The Debian backends on the whole of this host, against each other and against dpkg itself."""

from __future__ import annotations

import glob
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from debian.deb822 import PkgRelation

from pkgjail.backends import open_database
from tests.debian_roots import C_LOCALE, every_backend, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pkgjail.core.model import Package, PackageDatabase, Relation


@pytest.fixture(scope="module")
def host() -> PackageDatabase:
    """Open this host's database by the dpkg backend, which every interpreter has."""
    return open_database(b"/", "dpkg")


def relations(database: PackageDatabase) -> Iterator[tuple[Package, Relation]]:
    """Every relation of every package with who asks."""
    for package in database.packages.values():
        for group in database.requirements(package, recommends=True):
            for alternative in group.alternatives:
                yield package, alternative


@every_backend
def test_backends_agree(backend: str, host: PackageDatabase) -> None:
    """Protects that a manifest is the same whichever backend read the host: every answer is equal."""
    other = open_database(b"/", backend)
    assert dict(other.packages) == dict(host.packages)
    assert list(other.packages) == sorted(other.packages, key=lambda key: key.split(":"))
    assert (other.architecture, other.distribution) == (host.architecture, host.distribution)
    for package in host.packages.values():
        for recommends in (True, False):
            asked = host.requirements(package, recommends=recommends)
            assert other.requirements(package, recommends=recommends) == asked
        assert other.owned_paths(package) == host.owned_paths(package)
        assert other.conffiles(package) == host.conffiles(package)
    for package, one in relations(host):
        assert other.candidates(one, package.architecture) == host.candidates(one, package.architecture)
    assert other.alternatives() == host.alternatives()


def dpkg_query(*arguments: str) -> str:
    command = ["/usr/bin/dpkg-query", *arguments]
    return subprocess.run(command, check=True, capture_output=True, env=C_LOCALE).stdout.decode(
        "utf-8", "surrogateescape"
    )


@every_backend
def test_packages_are_what_dpkg_says(backend: str) -> None:
    """Protects the installed state against dpkg's own account of it."""
    fields = (
        "db:Status-Abbrev",
        "Package",
        "Architecture",
        "Version",
        "Essential",
        "Protected",
        "Installed-Size",
    )
    lines = dpkg_query("-W", "-f", "|".join(f"${{{field}}}" for field in fields) + "\n").splitlines()
    expected = [line.split("|")[1:] for line in lines if line[1:3] == "i "]
    shown = [
        [
            one.name,
            one.architecture,
            one.version,
            "yes" if one.essential else "no",
            "yes" if one.protected else "no",
            str(one.size // 1024),
        ]
        for one in open_database(b"/", backend).packages.values()
    ]
    assert sorted(shown) == sorted(
        [*row[:3], row[3] or "no", row[4] or "no", row[5] or "0"] for row in expected
    )


@every_backend
def test_paths_are_what_dpkg_says(backend: str) -> None:
    """Protects lists and diversions against `dpkg-query --listfiles`."""
    database = open_database(b"/", backend)
    blocks = dpkg_query("-L", *database.packages).split("\n\n")
    assert len(blocks) == len(database.packages)
    for package, block in zip(database.packages.values(), blocks):
        paths: list[str] = []
        for line in block.strip("\n").split("\n"):
            said, _, target = line.partition(" to: ")
            if said.startswith(("diverted by ", "locally diverted")):
                paths[-1] = target
            elif line.startswith("/"):
                paths.append("/" if line == "/." else line)
        assert [os.fsdecode(path) for path in database.owned_paths(package)] == paths


def test_relations_are_what_python_debian_says(host: PackageDatabase) -> None:
    """Protects the grammar against python-debian's, on every relation of this host."""
    for package in host.packages.values():
        for group in host.requirements(package, recommends=True):
            (parsed,) = PkgRelation.parse_relations(group.text)
            assert [
                (one["name"], one["archqual"] or "", *(one["version"] or ("", ""))) for one in parsed
            ] == [(one.name, one.architecture, one.operator, one.version) for one in group.alternatives]


def test_every_requirement_of_this_host_is_met(host: PackageDatabase) -> None:
    """Protects against rules that are too strict: dpkg holds every Depends of a whole system true."""
    unmet = [
        f"{package.key} {show(group)}"
        for package in host.packages.values()
        for group in host.requirements(package, recommends=False)
        if not any(host.candidates(one, package.architecture) for one in group.alternatives)
    ]
    assert unmet == []


def test_allow_list_has_only_what_no_other_package_owns(host: PackageDatabase) -> None:
    """Protects against an allow-list that hides a package's own file.

    A later release of a row's package may list what its scripts made before: fontconfig-config's links in
    Debian 13. Such a file is the package's (tests/test_file_extras.py).
    """
    owners: dict[bytes, set[str]] = {}
    for package in host.packages.values():
        for path in host.owned_paths(package):
            owners.setdefault(path, set()).add(package.name)
    found = {(os.fsencode(path), row.package) for row in host.generated() for path in glob.glob(row.pattern)}
    assert (b"/etc/passwd", "") in found
    assert [(path, name) for path, name in sorted(found) if not owners.get(path, {name}) <= {name}] == []
