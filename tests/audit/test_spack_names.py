"""Spack's names of packages: what a recipe probably lacks for a package that its build wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.spack_names import USER_FILE, SpackName, SpackNames, load_spack_names
from pkgjail.core.errors import PolicyError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pkgjail").mkdir()
    return tmp_path / "pkgjail" / USER_FILE


@pytest.mark.parametrize(
    ("family", "package", "name"),
    [
        ("debian", "zlib1g-dev", "zlib-api"),
        ("debian", "zlib1g-dev:amd64", "zlib-api"),
        ("debian", "libssl-dev", "openssl"),
        ("debian", "libbz2-dev", "bzip2"),
        ("rhel", "openssl-devel", "openssl"),
        ("rhel", "hdf5-devel:x86_64", "hdf5"),
    ],
)
def test_the_table_names_common_packages(family: str, package: str, name: str) -> None:
    """Protects the `depends_on` of packages that nearly every build wants."""
    assert load_spack_names().depends_on(family, package) == SpackName(name=name, basis="table")


@pytest.mark.parametrize("family", ["debian", "rhel"])
def test_each_package_has_one_name(family: str) -> None:
    """Protects the table from two rows with one package, of which only the last would count."""
    rows = load_spack_names()._rows
    packages = [package for row in rows.values() for package in row[family]]
    assert len(packages) > 250
    assert len(packages) == len(set(packages))


@pytest.mark.parametrize(
    ("package", "paths", "name"),
    [
        ("libfoo-dev", [b"/usr/lib/pkgconfig/foo-core-2.0.pc", b"/usr/include/foo.h"], "foo-core"),
        ("libfoo-dev", [b"/usr/lib/cmake/FooBar/FooBarConfig.cmake"], "foobar"),
        ("libfoo-dev", [b"/usr/include/x86_64-linux-gnu/Foo_X.h"], "foo-x"),
        ("libfoo-dev", [b"/usr/include/foolib/core.h"], "foolib"),
        ("libfoo3-dev", [], "foo"),
        ("python3-seed", [], "py-seed"),
        ("libseed-more-perl", [], "perl-seed-more"),
        ("seedtool", [b"/usr/bin/seedtool"], "seedtool"),
    ],
)
def test_others_are_guessed_and_say_so(package: str, paths: list[bytes], name: str) -> None:
    """Protects that a guess is marked: nobody may take it for a fact."""
    assert load_spack_names().depends_on("debian", package, paths) == SpackName(name=name, basis="guess")


def test_a_guess_is_a_recipe_if_recipes_are_given(tmp_path: Path) -> None:
    """Protects from names that Spack does not have, and finds the one that it has under another spelling."""
    recipes = tmp_path / "packages"
    for name in ("foo_core", "libbar", "_7zip"):
        (recipes / name).mkdir(parents=True)
    names = load_spack_names(str(recipes))
    header = [b"/usr/include/foo.h", b"/usr/lib/pkgconfig/foo-core.pc"]
    assert names.depends_on("debian", "libfoo-dev", header).name == "foo-core"
    assert names.depends_on("debian", "libbar-dev").name == "libbar"
    assert names.depends_on("debian", "libbaz-dev", [b"/usr/include/baz.h"]) == SpackName()


def test_users_add_and_replace_rows(configuration: Path) -> None:
    """Protects that a site's own names win."""
    configuration.write_text(
        'zlib-ng = { debian = ["zlib1g-dev"] }\nsite-tool = { debian = ["tool"], suse = ["t"] }\n'
    )
    names = load_spack_names()
    assert names.depends_on("debian", "zlib1g-dev").directive == 'depends_on("zlib-ng")'
    assert names.depends_on("debian", "libssl-dev").name == "openssl"
    assert names.elsewhere("debian", "tool") == {"suse": "t"}


def test_all_that_is_wrong_with_a_users_table_is_said_at_once(configuration: Path) -> None:
    """Protects users from mending one line after the other."""
    configuration.write_text(
        'a = 1\nb = { debain = ["x"] }\nc = { debian = "x" }\nd = { debian = ["x y"] }\n'
    )
    with pytest.raises(PolicyError) as caught:
        load_spack_names()
    text = str(caught.value)
    assert [word for word in ("'a'", "'debain'", "c: debian", "d: debian") if word not in text] == []
    configuration.write_text("a = [\n")
    with pytest.raises(PolicyError, match="not valid TOML"):
        load_spack_names()
    configuration.write_text("a." * 10_000 + "b = 1\n")
    with pytest.raises(PolicyError, match="not a table of Spack's names"):
        load_spack_names()


def test_other_families_have_a_package_of_the_same_kind() -> None:
    """Protects the lines for other distributions: a -dev package is a -devel package there."""
    names = load_spack_names()
    assert names.elsewhere("debian", "libbz2-dev:amd64") == {"rhel": "bzip2-devel"}
    assert names.elsewhere("debian", "bzip2") == {"rhel": "bzip2"}
    assert names.elsewhere("rhel", "xz-libs") == {"debian": "liblzma5"}
    assert names.elsewhere("debian", "unheard-of") == {}
    assert SpackNames([]).elsewhere("debian", "zlib1g-dev") == {}
