"""The pacman backend's own rules, compared with pacman's programs where possible."""

from __future__ import annotations

import gzip
import os
import random
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from pkgjail.backends.pacman.relations import parse_relation
from pkgjail.backends.pacman.versions import compare, satisfies
from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import Relation
from tests.real_roots import run, the_root

if TYPE_CHECKING:
    from pathlib import Path

# vercmp(8) tells the first two rows; the others are what a first reading gets wrong.
# fmt: off
VERSIONS = [
    "1.0a < 1.0b < 1.0beta < 1.0p < 1.0pre < 1.0rc < 1.0 < 1.0.a < 1.0.1",
    "1 < 1.0 < 1.1 < 1.1.1 < 1.2 < 2.0 < 3.0.0",
    "1.0-1 < 1.0-2 < 1.0-10", "9.9-9 < 1:0.1-1 < 2:0-1", "1.0 = 1.0-5", "0:1.0 = 1.0", "01 = 1", "1.a = 1_a",
    "1.0 < 1..0", "1.1 < 1.10", "1.0. > 1.0", "1.. > 1.a", "0.9~rc1 > 0.9", "x < 1", "a < b", "A < a",
    "r12.abc < r12.1",
]
# fmt: on


def rows() -> list[tuple[str, str, str]]:
    """Return each pair of neighbours, and the sign between them."""
    found = []
    for line in VERSIONS:
        words = line.split(" ")
        found += [(words[at], words[at + 1], words[at + 2]) for at in range(0, len(words) - 2, 2)]
    return found


@pytest.mark.parametrize(("left", "sign", "right"), rows())
def test_the_order_of_versions(left: str, sign: str, right: str) -> None:
    """Protects pacman's order, which is not rpm's: letters at the end are older than none."""
    said = {"<": -1, "=": 0, ">": 1}[sign]
    orders = compare(left, right), compare(right, left)
    assert [(order > 0) - (order < 0) for order in orders] == [said, -said]
    assert satisfies(left, {"<": "<<", "=": "=", ">": ">>"}[sign], right)


@pytest.mark.gate
def test_the_order_is_pacmans() -> None:
    """Protects the order of hundreds of random versions, epochs and releases too, against `vercmp`."""
    chance = random.Random(8)  # noqa: S311 - to be the same each time
    for _ in range(600):
        left, right = ("".join(chance.choices("0019ab.Z~^+_:-", k=chance.randint(1, 7))) for _ in range(2))
        if chance.random() < 1 / 2:
            right = left[: chance.randint(0, len(left))] + right[:3]
        order = compare(left, right)
        assert (order > 0) - (order < 0) == int(run("vercmp", left, right)), (left, right)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", Relation(name="a")),
        ("libfoo.so=1-64", Relation(name="libfoo.so", operator="=", version="1-64")),
        ("python3.11>=1:3", Relation(name="python3.11", operator=">=", version="1:3")),
        (" a < 2 ", Relation(name="a", operator="<<", version="2")),
        ("a>1", Relation(name="a", operator=">>", version="1")),
    ],
)
def test_requirements(text: str, expected: Relation) -> None:
    """Protects how requirements are read."""
    assert parse_relation(text) == expected


@pytest.mark.gate
def test_what_only_pacman_has() -> None:
    """Protects HoldPkg, groups, and that there are no alternatives and no other architectures."""
    database = open_database(os.fsencode(the_root("pacman")))
    held = {key for key, package in database.packages.items() if package.protected}
    assert held == {"bash:x86_64", "base:x86_64"}
    assert [group.text for group in database.parse("set")] == ["group-one", "group-two"]
    assert database.alternatives() == ()
    assert database.candidates(Relation(name="lib", architecture="i686"), "x86_64") == ()
    assert database.unmet_reason(Relation(name="no"), "x86_64").endswith(
        "'pacman -S no' in " + str(the_root("pacman"))
    )


@pytest.mark.parametrize("name", ["a\x1b[2J", "a b", "a\udcff", "a\x85b"])
def test_names_that_are_no_words(name: str, tmp_path: Path) -> None:
    """Protects manifests, terminals and reports from names with blanks and control bytes."""
    local = tmp_path / "var/lib/pacman/local"
    place = local / f"{name}-1-1"
    place.mkdir(parents=True)
    (local / "ALPM_DB_VERSION").write_text("9\n")
    desc = f"%NAME%\n{name}\n\n%VERSION%\n1-1\n\n%ARCH%\nx86_64\n\n"
    (place / "desc").write_bytes(desc.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatabaseError, match="has a blank or an unprintable character"):
        open_database(os.fsencode(tmp_path), "pacman")


def test_a_package_whose_mtree_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """Protects memory from a package's record that grows."""
    local = tmp_path / "var/lib/pacman/local"
    place = local / "a-1-1"
    place.mkdir(parents=True)
    (local / "ALPM_DB_VERSION").write_text("9\n")
    (place / "desc").write_text("%NAME%\na\n\n%VERSION%\n1-1\n\n%ARCH%\nx86_64\n\n")
    (place / "files").write_text("%FILES%\nusr/x\n\n")
    (place / "mtree").write_bytes(gzip.compress(bytes(70 << 20), 9))
    database = open_database(os.fsencode(tmp_path), "pacman")
    with pytest.raises(DatabaseError, match="mtree: it unpacks to more than 16 MiB"):
        database.digests(database.packages["a:x86_64"])
