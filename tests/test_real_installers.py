"""Roots that dnf, zypper, and pacman have filled from repositories, with packages of makepkg's too."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from pkgjail.closure.search import resolve_closure
from pkgjail.core.model import Policy, Requirement
from tests.real_roots import AS_ROOT, QUIET, packages, pacman, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

pytestmark = pytest.mark.gate

WANTED = ("app", "bash", "rich-if", "odd++name.2")


def home(place: Path) -> dict[str, str]:
    """An environment in which rpm's library has its database where Fedora has it."""
    (place / ".rpmmacros").write_text("%_dbpath /var/lib/rpm\n")
    return {**QUIET, "HOME": str(place)}


def repository(place: Path) -> Path:
    """The world's rpm packages as a repository."""
    shutil.copytree(packages("rpm") / "packages", place / "repository")
    run("createrepo_c", "-q", place / "repository")
    return place / "repository"


def closure_of(root: Path, *names: str) -> set[str]:
    """Return the closure of these names, which must have nothing unmet."""
    database = open_database(os.fsencode(root))
    packages = tuple(Requirement(text=name, origin="test", groups=database.parse(name)) for name in names)
    policy = Policy(whitelists=(), blacklists=(), packages=packages, essential=False)
    closure = resolve_closure(database, policy)
    assert closure.unmet == ()
    return {package.name for package in closure.packages}


def installed(root: Path) -> set[str]:
    """All that our backend finds."""
    return {package.name for package in open_database(os.fsencode(root)).packages.values()}


def test_dnf_has_installed_it(tmp_path: Path) -> None:
    """Protects the closure: what dnf installs for some names into nothing is what those names bring."""
    configuration = tmp_path / "dnf.conf"
    configuration.write_text(
        f"[main]\nplugins=0\ngpgcheck=0\n[made]\nname=made\nbaseurl=file://{repository(tmp_path)}\n"
    )
    root = tmp_path / "root"
    command = [*AS_ROOT, "dnf", "-q", "-c", configuration, f"--installroot={root}", "--releasever=39", "-y"]
    subprocess.run([*command, "install", *WANTED], env=home(tmp_path), check=True, capture_output=True)
    assert closure_of(root, *WANTED) == installed(root)
    assert "tool" in installed(root)


def test_zypper_has_installed_it(tmp_path: Path) -> None:
    """Protects the same with openSUSE's solver."""
    root = tmp_path / "root"
    root.mkdir()
    options = ("--root", root, "--non-interactive", "--no-gpg-checks", "--quiet")
    for arguments in (("addrepo", "-G", f"file://{repository(tmp_path)}", "made"), ("install", *WANTED)):
        command = [*AS_ROOT, "zypper", *options, *arguments]
        subprocess.run(command, env=home(tmp_path), check=True, capture_output=True)
    assert closure_of(root, *WANTED) == installed(root)
    assert "tool" in installed(root)


PKGBUILD = """
pkgname={name}
pkgver={version}
pkgrel=1
{fields}
arch=(any)
package() {{
    install -Dm755 /dev/null "$pkgdir/usr/bin/{name}"
    install -Dm644 /dev/null "$pkgdir/etc/{name}.conf"
}}
"""


def test_makepkg_has_made_it(user: Caller) -> None:
    """Protects what makepkg itself writes into a package: relations, configuration, an epoch."""
    output = user.home / "packages"
    made = {
        "first": ("1.0", "epoch=2\ndepends=('second>=1' virtual)\nbackup=(etc/first.conf)"),
        "second": ("1.5.r3", "provides=(virtual=3)\ngroups=(pair)\ndepends=('virtual<4')"),
    }
    for name, (version, fields) in made.items():
        place = user.home / name
        place.mkdir()
        (place / "PKGBUILD").write_text(PKGBUILD.format(name=name, version=version, fields=fields))
        run("chown", "-R", f"{user.uid}:{user.uid}", place)
        environment = {"PKGDEST": str(place), "BUILDDIR": str(place / "build"), "PACKAGER": "tests"}
        done = user.run(["makepkg", "--nodeps", "--force"], environment=environment, cwd=place)
        assert done.returncode == 0, done.stderr
    output.mkdir()
    files = sorted(path for name in made for path in (user.home / name).glob("*.pkg.tar*"))
    assert len(files) == 2
    for file in files:
        shutil.copy(file, output)
    root = user.home / "root"
    (root / "var/lib/pacman").mkdir(parents=True)
    run("repo-add", "-q", output / "made.db.tar.gz", *(output / file.name for file in files))
    pacman(root, "-Sy", "first")
    database = open_database(os.fsencode(root))
    assert {key: package.version for key, package in database.packages.items()} == {
        "first:any": "2:1.0-1",
        "second:any": "1.5.r3-1",
    }
    assert closure_of(root, "first") == {"first", "second"}
    assert closure_of(root, "second") == {"second"}
    assert closure_of(root, "pair") == {"second"}
    assert database.conffiles(database.packages["first:any"]) == {b"/etc/first.conf"}
    assert database.architecture == "any"
