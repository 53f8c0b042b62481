"""The grammar of requirements and the order of versions."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.backends import debian, open_database
from pkgjail.backends.debian.relations import is_version, parse_alternative
from pkgjail.backends.dpkg import DpkgReader
from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import Relation
from tests.debian_roots import USABLE, every_backend, make_root, show

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import PackageDatabase


REFUSED = [
    ("", "a package name is missing"),
    ("|", "a package name is missing beside a '|' in '|'"),
    ("a |", "a package name is missing beside a '|' in 'a |'"),
    ("(>= 1)", "a package name is missing in '(>= 1)'"),
    ("gcc (>> )", "a version is missing after '>>' in 'gcc (>> )'"),
    ("a b", "'a b' is more than one package name; write an entry for each"),
    ("a, b", "'a, b' has a comma, so it is more than one requirement; write an entry for each"),
    ("gcc (> 1)", "'>' is not an operator in 'gcc (> 1)'; use one of <<, <=, =, >=, >>"),
    ("gcc (=> 1)", "'=>' is not an operator in 'gcc (=> 1)'; use one of <<, <=, =, >=, >>"),
    ("gcc (1)", "an operator is missing in 'gcc (1)'; use one of <<, <=, =, >=, >>"),
    ("gcc (>= 1", "'gcc (>= 1' has a '(' that nothing closes"),
    ("gcc (>= 1) b", "'b' stands after the version in 'gcc (>= 1) b'; write an entry for each package"),
    ("gcc (>= 1_2)", "'1_2' is not a version in 'gcc (>= 1_2)'; see deb-version(7)"),
    ("gcc (>= 1-)", "'1-' is not a version in 'gcc (>= 1-)'; see deb-version(7)"),
    (
        "gcc [amd64]",
        "'gcc [amd64]' has a restriction of build dependencies, '[…]' or '<…>'; it has no meaning here",
    ),
    (
        "gcc <!nocheck>",
        "'gcc <!nocheck>' has a restriction of build dependencies, '[…]' or '<…>'; it has no meaning here",
    ),
    ("gcc:", "an architecture is missing after ':' in 'gcc:'"),
    ("gcc:_", "'_' is not an architecture in 'gcc:_'; write 'any' or one like 'amd64'"),
    ("../x", "'../x' is not a package name: letters, digits, '+', '-', '.', the first no sign"),
]


@every_backend
@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[row[0] or "nothing" for row in REFUSED])
def test_parse_refuses(backend: str, text: str, reason: str, tmp_path: Path) -> None:
    """Protects that a wrong whitelist entry is refused with the very reason."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        open_database(make_root(tmp_path), backend).parse(text)
    assert str(caught.value) == reason


@every_backend
def test_parse_accepts(backend: str, tmp_path: Path) -> None:
    """Protects Policy 7.1's syntax, the order of alternatives, and the folding of white space."""
    database = open_database(make_root(tmp_path), backend)
    (group,) = database.parse(" g++(>=4:10)  |libc6:any\t| c ")
    assert show(group) == "whitelist: g++(>=4:10) |libc6:any | c"
    assert group.alternatives == (
        Relation(name="g++", operator=">=", version="4:10"),
        Relation(name="libc6", architecture="any"),
        Relation(name="c"),
    )


@every_backend
def test_requirements(backend: str, tmp_path: Path) -> None:
    """Protects the order of the record, the kinds, and dpkg's reading of the obsolete operators."""
    line = "a 1 amd64; Recommends: r; Depends: b (> 1) | c:any (= 2), d; Pre-Depends: e (< 3); Suggests: s"
    database = open_database(make_root(tmp_path, line), backend)
    package = database.packages["a:amd64"]
    with_recommends = database.requirements(package, recommends=True)
    assert list(map(show, with_recommends)) == [
        "Recommends: r",
        "Depends: b (> 1) | c:any (= 2)",
        "Depends: d",
        "Pre-Depends: e (< 3)",
    ]
    assert with_recommends[1].alternatives == (
        Relation(name="b", operator=">=", version="1"),
        Relation(name="c", architecture="any", operator="=", version="2"),
    )
    assert with_recommends[3].alternatives == (Relation(name="e", operator="<=", version="3"),)
    assert database.requirements(package, recommends=False) == with_recommends[1:]


@every_backend
def test_requirements_name_the_field_at_fault(backend: str, tmp_path: Path) -> None:
    """Protects that a damaged field is an error of its package, never a missing dependency."""
    database = open_database(make_root(tmp_path, "a 1 amd64; Depends: b (>= 1_0), c"), backend)
    with pytest.raises(
        DatabaseError, match=r"the field Depends of the package a:amd64: '1_0' is not a version"
    ):
        database.requirements(database.packages["a:amd64"], recommends=False)


NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9+._-]{0,8}", fullmatch=True)
VERSIONS = st.from_regex(
    r"([0-9]{1,3}:)?[0-9][A-Za-z0-9.+~]{0,6}(-[A-Za-z0-9.+~]{1,4})?|[0-9]{1,2}:[0-9][a-c.:~-]{0,5}[0-9]",
    fullmatch=True,
).filter(is_version)
RELATIONS = st.builds(
    lambda name, architecture, constraint: Relation(
        name=name, architecture=architecture, operator=constraint[0], version=constraint[1]
    ),
    NAMES,
    st.sampled_from(["", "any", "amd64", "kfreebsd-i386"]),
    st.just(("", "")) | st.tuples(st.sampled_from(["<<", "<=", "=", ">=", ">>"]), VERSIONS),
)


@given(RELATIONS, st.sampled_from(["", " ", "\t "]))
def test_relations_round_trip(one: Relation, space: str) -> None:
    """Protects that every relation survives being written, whatever white space is between."""
    text = one.name + (f":{one.architecture}" if one.architecture else "")
    if one.operator:
        text += f"{space}({space}{one.operator}{space}{one.version}{space})"
    assert parse_alternative(f"{space}{text}{space}") == one


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("1", True),
        ("1:2-3", True),
        ("1:2:3-4", True),
        ("2-3-4", True),
        ("1.0~rc1+b1", True),
        ("", False),
        (":1", False),
        ("1:", False),
        ("a:1", False),
        ("1-", False),
        ("-1", False),
        ("1:2-3:4", False),
        ("1 2", False),
        ("1\n", False),
        ("1_2", False),
        ("٣", False),
        ("9999999999:1", False),
        ("1" * 5000, False),
    ],
)
def test_is_version(text: str, *, sound: bool) -> None:
    """Protects comparisons from texts that the readers would order each in its own way, or not."""
    assert is_version(text) is sound


@cache
def readers() -> list[debian.Reader]:
    """A reader of each usable backend."""
    return [_reader(open_database(b"/", name)) for name in USABLE]


def _reader(database: PackageDatabase) -> debian.Reader:
    assert isinstance(database, debian.DebianDatabase)
    return database._reader


@settings(max_examples=60, deadline=None)
@given(VERSIONS, VERSIONS)
def test_versions_are_ordered_as_dpkg_orders_them(left: str, right: str) -> None:
    """Protects the order of versions: each reader, and dpkg itself, give the same answer."""
    asked = {word: ["/usr/bin/dpkg", "--compare-versions", left, word, right] for word in ("lt", "eq", "gt")}
    operator = next(
        word for word, command in asked.items() if subprocess.run(command, check=False).returncode == 0
    )
    expected = {"lt": -1, "eq": 0, "gt": 1}[operator]
    for reader in {type(one): one for one in (*readers(), DpkgReader())}.values():
        order = reader.compare(left, right)
        assert (order > 0) - (order < 0) == expected
