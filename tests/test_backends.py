"""The Debian backends: dpkg's rules on small roots made from text, and the whole of this host.

Every test of a rule runs over each backend that this interpreter can import.
"""

from __future__ import annotations

import glob
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
from debian.deb822 import PkgRelation
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail import backends
from pkgjail.backends import available, debian, open_database, resolve_inside
from pkgjail.backends.debian import is_version, parse_alternative
from pkgjail.backends.dpkg import DpkgReader
from pkgjail.errors import DatabaseError
from pkgjail.model import Distribution, Package, Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.model import DependencyGroup, PackageDatabase

USABLE = [status.name for status in available() if status.usable]
C_LOCALE = {**os.environ, "LC_ALL": "C"}

every_backend = pytest.mark.parametrize("backend", USABLE)


def stanza(line: str) -> str:
    """A stanza from `name version architecture [state]; Field: value; …`; state is one word or three."""
    head, *fields = [part.strip() for part in line.split(";")]
    name, version, architecture, *state = head.split()
    status = " ".join(state) if len(state) > 1 else f"install ok {state[0] if state else 'installed'}"
    lines = [
        f"Package: {name}",
        f"Status: {status}",
        f"Architecture: {architecture}",
        f"Version: {version}",
        *fields,
    ]
    return "\n".join(lines) + "\n\n"


def make_root(root: Path, *lines: str, files: dict[str, str] | None = None) -> bytes:
    """A root with the packages of `lines` (see `stanza`), dpkg itself for amd64, and `files`."""
    content = {
        "var/lib/dpkg/status": "".join(map(stanza, ("dpkg 1.21.22 amd64", *lines))),
        "var/lib/dpkg/info/format": "1\n",
        **(files or {}),
    }
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return os.fsencode(root)


def keys(packages: tuple[Package, ...]) -> str:
    return " ".join(package.key for package in packages)


def show(group: DependencyGroup) -> str:
    return f"{group.kind}: {group.text}"


def relation(text: str) -> Relation:
    return parse_alternative(text)


# --- who satisfies a requirement ------------------------------------------------------------

CANDIDATES = [
    # summary, packages, requirement, who asks, expected
    ("by name", ["gcc 4:12.2 amd64"], "gcc", "amd64", "gcc:amd64"),
    ("not there", ["gcc 4:12.2 amd64"], "g++", "amd64", ""),
    ("an epoch outweighs", ["gcc 4:12.2 amd64"], "gcc (>= 13)", "amd64", "gcc:amd64"),
    ("newer asked", ["gcc 4:12.2 amd64"], "gcc (>= 4:13)", "amd64", ""),
    ("tilde is older", ["a 1.0~rc1 amd64"], "a (>= 1.0)", "amd64", ""),
    ("strictly older", ["a 1.0~rc1 amd64"], "a (<< 1.0)", "amd64", "a:amd64"),
    ("not strictly older", ["a 1.0 amd64"], "a (<< 1.0)", "amd64", ""),
    ("no revision is revision 0", ["a 1.0-0 amd64"], "a (= 1.0)", "amd64", "a:amd64"),
    ("at most", ["a 1.0 amd64"], "a (<= 1.0)", "amd64", "a:amd64"),
    ("strictly newer", ["a 1.0 amd64"], "a (>> 1.0)", "amd64", ""),
    ("all counts as native", ["a 1 all"], "a", "amd64", "a:all"),
    ("all is not foreign", ["a 1 all"], "a", "i386", ""),
    ("all asks as native", ["a 1 amd64"], "a", "all", "a:amd64"),
    ("another architecture", ["a 1 i386"], "a", "amd64", ""),
    ("foreign answers any", ["a 1 i386; Multi-Arch: foreign"], "a", "amd64", "a:i386"),
    ("foreign does not answer :any", ["a 1 i386; Multi-Arch: foreign"], "a:any", "amd64", ""),
    ("foreign does not answer another name", ["a 1 i386; Multi-Arch: foreign"], "a:amd64", "amd64", ""),
    ("foreign answers all for all", ["a 1 all; Multi-Arch: foreign"], "a", "i386", "a:all"),
    (":any wants allowed", ["a 1 i386; Multi-Arch: allowed"], "a:any", "amd64", "a:i386"),
    ("allowed does not answer the bare name", ["a 1 i386; Multi-Arch: allowed"], "a", "amd64", ""),
    (":any refuses same", ["a 1 amd64; Multi-Arch: same"], "a:any", "amd64", ""),
    (":any refuses none", ["a 1 amd64"], "a:any", "amd64", ""),
    ("named architecture", ["a 1 amd64", "a 1 i386"], "a:i386", "amd64", "a:i386"),
    ("named all is native", ["a 1 amd64"], "a:all", "i386", "a:amd64"),
    (
        "the asker's first, then by name",
        [
            "a 1 arm64; Multi-Arch: foreign",
            "a 1 i386; Multi-Arch: foreign",
            "a 1 amd64; Multi-Arch: foreign",
        ],
        "a",
        "i386",
        "a:i386 a:amd64 a:arm64",
    ),
    ("virtual", ["mawk 1 amd64; Provides: awk"], "awk", "amd64", "mawk:amd64"),
    (
        "providers by key",
        ["z 1 amd64; Provides: v", "a 1 amd64; Provides: v"],
        "v",
        "amd64",
        "a:amd64 z:amd64",
    ),
    ("real before virtual", ["a 1 amd64; Provides: v", "v 1 amd64"], "v", "amd64", "v:amd64 a:amd64"),
    ("unversioned never satisfies", ["a 1 amd64; Provides: v"], "v (>= 0)", "amd64", ""),
    ("unversioned never satisfies older", ["a 1 amd64; Provides: v"], "v (<< 9)", "amd64", ""),
    ("versioned satisfies bare", ["a 1 amd64; Provides: v (= 2)"], "v", "amd64", "a:amd64"),
    ("versioned is compared", ["a 1 amd64; Provides: v (= 2)"], "v (>= 2)", "amd64", "a:amd64"),
    ("versioned is too old", ["a 9 amd64; Provides: v (= 2)"], "v (>> 2)", "amd64", ""),
    ("two versions", ["a 1 amd64; Provides: v (= 2), v (= 5)"], "v (>= 4)", "amd64", "a:amd64"),
    ("no operator but =", ["a 1 amd64; Provides: v (>= 2)"], "v", "amd64", ""),
    ("provider's architecture", ["a 1 i386; Provides: v"], "v", "amd64", ""),
    ("provider is foreign", ["a 1 i386; Multi-Arch: foreign; Provides: v"], "v", "amd64", "a:i386"),
    ("provider is allowed", ["a 1 i386; Multi-Arch: allowed; Provides: v"], "v:any", "amd64", "a:i386"),
    ("provider names an architecture", ["a 1 amd64; Provides: v:i386"], "v", "i386", "a:amd64"),
    ("provider is all", ["a 1 all; Provides: v"], "v", "amd64", "a:all"),
    ("provides its own name", ["a 1 amd64; Provides: a (= 2)"], "a", "amd64", "a:amd64"),
    ("provides its own newer", ["a 1 amd64; Provides: a (= 2)"], "a (= 2)", "amd64", "a:amd64"),
    ("unpacked does not count", ["a 1 amd64 unpacked; Provides: v"], "v", "amd64", ""),
    ("on hold counts", ["a 1 amd64 hold ok installed"], "a", "amd64", "a:amd64"),
    ("must be reinstalled", ["a 1 amd64 install reinstreq installed"], "a", "amd64", ""),
    ("triggers pending", ["a 1 amd64 triggers-pending"], "a", "amd64", ""),
]


@every_backend
@pytest.mark.parametrize(("packages", "text", "asker", "expected"), [row[1:] for row in CANDIDATES],
                         ids=[row[0] for row in CANDIDATES])  # fmt: skip
def test_candidates(  # noqa: PLR0913, PLR0917
    backend: str, packages: list[str], text: str, asker: str, expected: str, tmp_path: Path
) -> None:
    """Protects dpkg's own answer to who satisfies a relation (depcon.c, Policy 7.5)."""
    database = open_database(make_root(tmp_path, *packages), backend)
    assert keys(database.candidates(relation(text), asker)) == expected


SHORTCOMINGS = [
    (
        "absent",
        [],
        "gfortan",
        "'gfortan' is not installed; install it with 'apt-get install gfortan' in ROOT",
    ),
    (
        "absent for an architecture",
        [],
        "a:i386",
        "'a' is not installed; install it with 'apt-get install a:i386' in ROOT",
    ),
    (
        "version",
        ["gcc 4:12.2.0-3 amd64"],
        "gcc (>= 4:13)",
        (
            "gcc is installed as 4:12.2.0-3, and (>= 4:13) is asked; "
            "install such a version, or change what is asked"
        ),
    ),
    (
        "unpacked",
        ["a 1 amd64 unpacked"],
        "a",
        "'a' is unpacked but not configured; run 'dpkg --configure -a' in ROOT",
    ),
    (
        "half",
        ["a 1 amd64 half-configured"],
        "a",
        "'a' is configured in half; run 'dpkg --configure -a' in ROOT",
    ),
    (
        "removed",
        ["a 1 amd64 deinstall ok config-files"],
        "a",
        "'a' is removed, and only its configuration is left; install it with 'apt-get install a' in ROOT",
    ),
    (
        "to be reinstalled",
        ["a 1 amd64 install reinstreq half-installed"],
        "a",
        (
            "'a' is half-installed, and dpkg says that it must be installed again; "
            "run 'apt-get install --reinstall a' in ROOT"
        ),
    ),
    (
        "whole for one, half for the other",
        ["a 1 amd64 unpacked; Multi-Arch: same", "a 1 i386; Multi-Arch: same"],
        "a",
        "'a' is unpacked but not configured; run 'dpkg --configure -a' in ROOT",
    ),
    (
        "architecture",
        ["a 1 i386"],
        "a",
        "'a' is installed for i386, and amd64 is asked; install it with 'apt-get install a:amd64' in ROOT",
    ),
    (
        ":any",
        ["a 1 amd64"],
        "a:any",
        (
            "'a' is installed for amd64, and ':any' is for packages with 'Multi-Arch: allowed' alone; "
            "leave ':any' out"
        ),
    ),
    (
        "virtual without version",
        ["mawk 1 amd64; Provides: awk"],
        "awk (>= 1)",
        (
            "'awk' is provided by mawk:amd64 without a version, and (>= 1) is asked; "
            "ask for a package by its own name"
        ),
    ),
    (
        "virtual with version",
        ["a 1 amd64; Provides: v (= 1)"],
        "v (>= 2)",
        (
            "'v' is provided as 1 by a:amd64, and (>= 2) is asked; "
            "install such a version, or change what is asked"
        ),
    ),
    (
        "virtual of another architecture",
        ["a 1 i386; Provides: v"],
        "v",
        "'v' is provided by a:i386 for another architecture; name a package itself",
    ),
]


@every_backend
@pytest.mark.parametrize(("packages", "text", "expected"), [row[1:] for row in SHORTCOMINGS],
                         ids=[row[0] for row in SHORTCOMINGS])  # fmt: skip
def test_shortcoming(backend: str, packages: list[str], text: str, expected: str, tmp_path: Path) -> None:
    """Protects that a user reads why a requirement fails, and what to do."""
    root = make_root(tmp_path, *packages)
    database = open_database(root, backend)
    assert keys(database.candidates(relation(text), "amd64")) == ""
    said = database.shortcoming(relation(text), "amd64")
    assert said.replace(os.fsdecode(root), "ROOT") == expected


# --- syntax ---------------------------------------------------------------------------------

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
    group = database.parse(" g++(>=4:10)  |libc6:any\t| c ")
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


# --- the status file ------------------------------------------------------------------------

GOOD = stanza("dpkg 1 amd64")
DAMAGED = [
    (
        "unknown state",
        GOOD + stanza("a 1 amd64 broken"),
        r"status:6: the package 'a' has no field 'Status' that",
    ),
    (
        "version of two words",
        GOOD + stanza("a 1 amd64").replace(": 1", ": 1 2"),
        r"status:6: .* 'Version' of one",
    ),
    (
        "a field in other case",
        GOOD + stanza("a 1 amd64; depends: b"),
        r"status:10: .* misspelt field 'depends'",
    ),
    (
        "a field twice",
        GOOD + stanza("a 1 amd64; Depends: b; Depends: c"),
        r"status:11: a second .* 'Depends'",
    ),
    ("a carriage return", GOOD[:-2] + "\r\n\n", r"status:5: neither a field nor the continuation"),
    ("an empty line first", "\n" + GOOD, r"status:1: neither a field nor the continuation"),
    ("a stanza of no known field", GOOD + "X: y\n\n", r"status:6: this stanza has no field 'Package'"),
    (
        "no Package",
        GOOD + "Status: install ok installed\nVersion: 1\n\n",
        r"status:6: this stanza has no field 'Package'",
    ),
    ("bad name", GOOD + stanza("../a 1 amd64"), r"status:6: the field 'Package' of a stanza is '../a'"),
    (
        "no Version",
        GOOD + stanza("a 1 amd64").replace("Version: 1\n", ""),
        r"status:6: the package 'a' has no field 'Version'",
    ),
    (
        "no Architecture",
        GOOD + stanza("a 1 amd64").replace("Architecture: amd64\n", ""),
        r"status:6: the package 'a' has no field 'Architecture'",
    ),
    (
        "no Status",
        GOOD + stanza("a 1 amd64").replace("Status: install ok installed\n", ""),
        r"status:6: the package 'a' has no field 'Status'",
    ),
    (
        "size",
        GOOD + stanza("a 1 amd64; Installed-Size: 1x"),
        r"status:6: the field 'Installed-Size' of the pack",
    ),
    ("twice", GOOD + "\n" + stanza("a 1 amd64") * 2, r"status:12: a second stanza for a:amd64"),
    ("two run together", GOOD[:-1] + stanza("a 1 amd64"), r"status:5: a second or misspelt field 'Package'"),
    ("cut in a line", GOOD + "Package: a\nSta", r"status:7: neither a field nor the continuation"),
    (
        "cut in a value",
        GOOD + stanza("a 1 amd64; Depends: libc6")[:-5],
        r"status:10: the file ends within a stanza",
    ),
    ("cut after a line", GOOD + stanza("a 1 amd64")[:-1], r"status:10: the file ends within a stanza"),
    ("a comment", GOOD + "# x\n" + stanza("a 1 amd64"), r"status:6: neither a field nor the continuation"),
    (
        "a blank continuation",
        GOOD[:-1] + "Depends: a,\n \n b\n\n",
        r"status:6: neither a field nor the contin",
    ),
    (
        "a stray continuation",
        GOOD + " x\n" + stanza("a 1 amd64"),
        r"status:6: neither a field nor the contin",
    ),
    ("a continuation first", " x\n" + GOOD, r"status:1: neither a field nor the continuation"),
    ("binary", "\0\1\2\n\n", r"status:1: neither a field nor the continuation"),
    (
        "Provides",
        GOOD + stanza("a 1 amd64; Provides: v, "),
        r"the field Provides of the package a:amd64: a pack",
    ),
]


@every_backend
@pytest.mark.parametrize(("status", "message"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_damaged_status(backend: str, status: str, message: str, tmp_path: Path) -> None:
    """Protects that damage is refused at its line by both readers, and never read as fewer packages."""
    root = make_root(tmp_path, files={"var/lib/dpkg/status": status})
    with pytest.raises(DatabaseError, match=message) as caught:
        open_database(root, backend)
    assert str(caught.value).startswith(f"cannot read the package database of {tmp_path}: ")
    assert "; " in str(caught.value)


SEED = (
    stanza("dpkg 1 amd64; Essential: yes; Installed-Size: 3")
    + stanza("a 1:2.0-3 all; Multi-Arch: foreign; Provides: v (= 2), w; Depends: b (>> 1) | c:any, d; X: y")
    + stanza("b 2 i386; Conffiles:\n /etc/a 00\n /etc/Å 11 obsolete; Recommends: x,\n y")
).encode()
# Line ends and spaces by one standard or another, and what a reader might take for syntax.
SPLINTERS = [
    *(b"\n", b"\n\n", b" ", b"\t", b"\r", b"\x0b", b"\x0c", b"\x1c", b"\0", b"\x85", b"\xa0", b"\xff"),
    *("\xa0".encode(), "\u2028".encode(), b":", b"#", b"-", b"_", b",", b"|", b"9", b" .\n", b"Provides:\n"),
    *(b"Depends: q\n", b"depends: q\n", b"Package: z\n", b"-----BEGIN PGP SIGNED MESSAGE-----\n"),
]
EDITS = st.tuples(st.integers(0, len(SEED)), st.integers(0, 5), st.sampled_from([b"", *SPLINTERS]))


def account(root: bytes, backend: str) -> object:
    """All that a database says of its stanzas, or the error that it ends with."""
    try:
        database = open_database(root, backend)
        return [
            (package, database.requirements(package, recommends=True))
            for package in database.packages.values()
        ]
    except DatabaseError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(EDITS, max_size=3))
def test_damage_is_read_alike(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, bytes]]
) -> None:
    """Protects against damage that one reader passes over and another takes: equal, to the message."""
    status = SEED
    for place, gone, put in edits:
        status = status[:place] + put + status[place + gone :]
    root = make_root(tmp_path_factory.getbasetemp() / "damage")
    Path(os.fsdecode(root), "var/lib/dpkg/status").write_bytes(status)
    assert [account(root, backend) for backend in USABLE] == [account(root, "dpkg")] * len(USABLE)


@every_backend
def test_names_of_any_bytes(backend: str, tmp_path: Path) -> None:
    """Protects conffiles whose names hold what Unicode counts as a space or as the end of a line."""
    name = "/etc/\x0c\x1c\x85\xa0\u2028Å\udc85 \udcff"
    files = {"var/lib/dpkg/info/a.list": f"{name}\n"}
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:\n {name} 00", files=files), backend)
    assert database.conffiles(database.packages["a:amd64"]) == {name.encode("utf-8", "surrogateescape")}


@every_backend
@pytest.mark.parametrize("name", ["updates", "alternatives"])
def test_a_file_for_a_directory(backend: str, name: str, tmp_path: Path) -> None:
    """Protects the message where a directory of dpkg's is none."""
    root = make_root(tmp_path, files={f"var/lib/dpkg/{name}": ""})
    with pytest.raises(DatabaseError, match=rf"var/lib/dpkg/{name}: Not a directory; repair it"):
        open_database(root, backend).alternatives()


@every_backend
def test_an_installed_version_that_is_none(backend: str, tmp_path: Path) -> None:
    """Protects comparisons: dpkg warns of such a version and goes on, and no order of it is agreed."""
    database = open_database(make_root(tmp_path, "a 1_2 amd64"), backend)
    assert keys(database.candidates(relation("a"), "amd64")) == "a:amd64"
    with pytest.raises(DatabaseError, match=r"the version '1_2' of what is 'a' is not one by deb-version"):
        database.candidates(relation("a (>= 1)"), "amd64")


@every_backend
def test_packages(backend: str, tmp_path: Path) -> None:
    """Protects what a package is: order by key, bytes from KiB, Essential and Protected, states."""
    database = open_database(
        make_root(
            tmp_path,
            "z 1 amd64; Essential: yes; Installed-Size: 3",
            "a 1 i386; Protected: yes; Essential: no",
            "b 1 amd64 unpacked",
            "c 1 all",
            files={"etc/os-release": "ID=debian\n"},
        ),
        backend,
    )
    shown = [
        f"{key} {one.version} {one.size}{' essential' * one.essential}{' protected' * one.protected}"
        for key, one in database.packages.items()
    ]
    assert shown == ["a:i386 1 0 protected", "c:all 1 0", "dpkg:amd64 1.21.22 0", "z:amd64 1 3072 essential"]
    assert (database.backend, database.family) == (backend, "debian")


@every_backend
def test_what_is_not_installed_needs_no_version(backend: str, tmp_path: Path) -> None:
    """Protects roots that remember removed packages, whose stanzas dpkg writes short."""
    gone = "Package: old\nStatus: purge ok not-installed\nPriority: optional\n\n"
    database = open_database(make_root(tmp_path, files={"var/lib/dpkg/status": GOOD + gone}), backend)
    assert list(database.packages) == ["dpkg:amd64"]
    assert database.shortcoming(relation("old"), "amd64").startswith("'old' is not installed")


@every_backend
@pytest.mark.parametrize(
    ("names", "refused"), [(["0001", "tmp.i"], True), (["tmp.i"], False), ([], False)], ids=str
)
def test_pending_updates(backend: str, names: list[str], tmp_path: Path, *, refused: bool) -> None:
    """Protects against reading a state that dpkg has half written."""
    root = make_root(tmp_path, files={f"var/lib/dpkg/updates/{name}": "" for name in names})
    if refused:
        with pytest.raises(
            DatabaseError, match=r"dpkg is running or was interrupted .*'dpkg --configure -a'"
        ):
            open_database(root, backend)
    else:
        assert list(open_database(root, backend).packages) == ["dpkg:amd64"]


ARCHITECTURES = [
    ("the package dpkg", "dpkg 1 arm64", "amd64\n", "arm64"),
    ("dpkg, though not configured", "dpkg 1 arm64 unpacked", "amd64\n", "arm64"),
    ("the file, where dpkg is not installed", "a 1 i386", "s390x\namd64\n", "s390x"),
]


@every_backend
@pytest.mark.parametrize(("line", "file", "expected"), [row[1:] for row in ARCHITECTURES],
                         ids=[row[0] for row in ARCHITECTURES])  # fmt: skip
def test_architecture(backend: str, line: str, file: str, expected: str, tmp_path: Path) -> None:
    """Protects the native architecture of a root that is not this host."""
    files = {"var/lib/dpkg/status": stanza(line), "var/lib/dpkg/arch": file}
    assert open_database(make_root(tmp_path, files=files), backend).architecture == expected


@every_backend
def test_architecture_unknown(backend: str, tmp_path: Path) -> None:
    """Protects against guessing where nothing says what is native."""
    database = open_database(make_root(tmp_path, files={"var/lib/dpkg/status": stanza("a 1 i386")}), backend)
    with pytest.raises(DatabaseError, match=r"the native architecture is unknown"):
        assert database.architecture


# --- files ----------------------------------------------------------------------------------

DIVERSIONS = "/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.local\n:\n"
LISTS = [
    ("as recorded", "a 1 amd64", "a", "/.\n/usr\n/usr/b\n/usr/a\n", "/ /usr /usr/b /usr/a"),
    ("empty", "a 1 amd64", "a", "", ""),
    ("diverted by another", "bash 1 amd64", "bash", "/bin/sh\n", "/bin/sh.distrib"),
    ("diverted by itself", "dash 1 amd64", "dash", "/bin/sh\n", "/bin/sh"),
    ("diverted locally", "a 1 amd64", "a", "/etc/x\n", "/etc/x.local"),
    ("architecture in the name", "a 1 amd64; Multi-Arch: same", "a:amd64", "/x\n", "/x"),
    ("not the foreign", "a 1 amd64; Multi-Arch: foreign", "a", "/x\n", "/x"),
    ("any bytes", "a 1 amd64", "a", "/ü \udcff\r\n", "/ü \udcff\r"),
    ("made normal", "a 1 amd64", "a", "/.\n/usr/\n//usr/./x\n", "/ /usr /usr/x"),
    ("once each", "a 1 amd64", "a", "/x\n/x\n", "/x"),
]


@every_backend
@pytest.mark.parametrize(("line", "name", "content", "expected"), [row[1:] for row in LISTS],
                         ids=[row[0] for row in LISTS])  # fmt: skip
def test_owned_paths(  # noqa: PLR0913, PLR0917
    backend: str, line: str, name: str, content: str, expected: str, tmp_path: Path
) -> None:
    """Protects where a package's files are, dpkg's diversions and file names included."""
    files = {f"var/lib/dpkg/info/{name}.list": content, "var/lib/dpkg/diversions": DIVERSIONS}
    database = open_database(make_root(tmp_path, line, files=files), backend)
    package = database.packages[f"{line.split(maxsplit=1)[0]}:amd64"]
    assert b" ".join(database.owned_paths(package)) == expected.encode("utf-8", "surrogateescape")


@every_backend
def test_lists_of_the_older_format(backend: str, tmp_path: Path) -> None:
    """Protects roots without `info/format`, where no list is named for an architecture."""
    files = {"var/lib/dpkg/info/format": "", "var/lib/dpkg/info/a.list": "/x\n"}
    database = open_database(make_root(tmp_path, "a 1 amd64; Multi-Arch: same", files=files), backend)
    assert database.owned_paths(database.packages["a:amd64"]) == (b"/x",)


BAD_LISTS = [
    ("missing", {}, r"a\.list: No such file or directory; .*install the package"),
    ("cut off", {"info/a.list": "/.\n/us"}, r"a\.list was cut off within a line; install a:amd64 again"),
    ("relative", {"info/a.list": "/.\n/x\nusr\n"}, r"a\.list:3: b'usr' is not an absolute path"),
    ("upwards", {"info/a.list": "/x/../y\n"}, r"a\.list:1: b'/x/\.\./y' is not an absolute path"),
    ("empty line", {"info/a.list": "/x\n\n/y\n"}, r"a\.list:2: b'' is not an absolute path"),
    ("a directory", {"info/a.list/x": ""}, r"a\.list: Is a directory; repair it"),
    (
        "diversions cut",
        {"info/a.list": "/x\n", "diversions": "/x\n/y\n"},
        r"diversions: a diversion has three",
    ),
    (
        "diversions relative",
        {"info/a.list": "/x\n", "diversions": "/x\n/y\na\n/z\nq\na\n"},
        r"diversions:5: b'q' is not an absolute path",
    ),
]


@every_backend
@pytest.mark.parametrize(
    ("files", "message"), [row[1:] for row in BAD_LISTS], ids=[row[0] for row in BAD_LISTS]
)
def test_damaged_lists(backend: str, files: dict[str, str], message: str, tmp_path: Path) -> None:
    """Protects that a damaged list is an error with its file and line, never a smaller package."""
    under = {f"var/lib/dpkg/{name}": text for name, text in files.items()}
    database = open_database(make_root(tmp_path, "a 1 amd64", files=under), backend)
    with pytest.raises(DatabaseError, match=message):
        database.owned_paths(database.packages["a:amd64"])


@every_backend
def test_conffiles(backend: str, tmp_path: Path) -> None:
    """Protects which files the administrator may have changed: shipped ones, flags and names heeded."""
    value = """
 /etc/a b 0123456789abcdef0123456789abcdef
 /etc/old 0123456789abcdef0123456789abcdef obsolete
 /etc/leave 0123456789abcdef0123456789abcdef remove-on-upgrade
 /etc/x newconffile
 /etc/\udcfe 0123456789abcdef0123456789abcdef
 /etc/notlisted 0123456789abcdef0123456789abcdef"""
    paths = ["/etc/a b", "/etc/old", "/etc/leave", "/etc/x", "/etc/\udcfe", "/usr/x"]
    files = {
        "var/lib/dpkg/info/a.list": "".join(f"{path}\n" for path in paths),
        "var/lib/dpkg/diversions": DIVERSIONS,
    }
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:{value}", files=files), backend)
    assert database.conffiles(database.packages["a:amd64"]) == {b"/etc/a b", b"/etc/x.local", b"/etc/\xfe"}
    assert database.conffiles(database.packages["dpkg:amd64"]) == frozenset()


@every_backend
@pytest.mark.parametrize("line", ["/etc/a", "etc/a 0123", "0123 obsolete"])
def test_damaged_conffiles(backend: str, line: str, tmp_path: Path) -> None:
    """Protects that a line that is no path and hash is named."""
    files = {"var/lib/dpkg/info/a.list": "/etc/a\n"}
    database = open_database(make_root(tmp_path, f"a 1 amd64; Conffiles:\n {line}", files=files), backend)
    with pytest.raises(
        DatabaseError, match=f"field Conffiles of the package a:amd64 has the line '.*{line}'"
    ):
        database.conffiles(database.packages["a:amd64"])


# --- alternatives ---------------------------------------------------------------------------

AWK = """auto
/usr/bin/awk
awk.1.gz
/usr/share/man/man1/awk.1.gz
nawk
/usr/bin/nawk

/usr/bin/gawk
10
/usr/share/man/man1/gawk.1.gz

/usr/bin/mawk
5

/usr/bin/mawk

"""


@every_backend
def test_alternatives(backend: str, tmp_path: Path) -> None:
    """Protects both ends of every link, the slaves' order, and the candidates."""
    files = {
        "var/lib/dpkg/alternatives/cc": "manual\n/usr/bin/cc\n\n/usr/bin/gcc\n20\n\n",
        "var/lib/dpkg/alternatives/awk": AWK,
        "var/lib/dpkg/alternatives/awk.dpkg-tmp": "junk",
        "var/lib/dpkg/alternatives/empty": "",
    }
    database = open_database(make_root(tmp_path, files=files), backend)
    shown = [
        line
        for group in database.alternatives()
        for line in (
            group.name,
            *(b" -> ".join(pair).decode() for pair in group.links),
            *(f"{choice.priority} {b' '.join(choice.targets).decode()}" for choice in group.choices),
        )
    ]
    assert shown == [
        "awk",
        "/usr/bin/awk -> /etc/alternatives/awk",
        "/usr/share/man/man1/awk.1.gz -> /etc/alternatives/awk.1.gz",
        "/usr/bin/nawk -> /etc/alternatives/nawk",
        "10 /usr/bin/gawk /usr/share/man/man1/gawk.1.gz ",
        "5 /usr/bin/mawk  /usr/bin/mawk",
        "cc",
        "/usr/bin/cc -> /etc/alternatives/cc",
        "20 /usr/bin/gcc",
    ]


@every_backend
def test_no_alternatives(backend: str, tmp_path: Path) -> None:
    """Protects minimal roots, in which nothing has ever registered an alternative."""
    assert open_database(make_root(tmp_path), backend).alternatives() == ()


BAD_ALTERNATIVES = [
    ("mode", "automatic\n/usr/bin/x\n\n", r"x:1: the mode is b'automatic'"),
    ("relative link", "auto\nbin/x\n\n", r"x:2: b'bin/x' is not an absolute path"),
    ("cut after the mode", "auto\n", r"x:2: the file ends where the master link should stand"),
    (
        "cut in a line",
        "auto\n/usr/bin/x\n\n/usr/bin/y",
        r"x:4: the file ends where a candidate's path should",
    ),
    ("slave without link", "auto\n/x\ns\n", r"x:4: the file ends where a slave's link should stand"),
    ("slave twice", "auto\n/x\ns\n/s\ns\n/t\n\n", r"x:5: b's' is not a name, or stands twice"),
    ("slave with a slash", "auto\n/x\n../s\n/s\n\n", r"x:3: b'\.\./s' is not a name"),
    ("link twice", "auto\n/x\ns\n/x\n\n", r"x:4: the link /x stands twice"),
    ("priority", "auto\n/x\n\n/y\nhigh\n\n", r"x:5: the priority b'high' is not a number"),
    ("candidate twice", "auto\n/x\n\n/y\n1\n/y\n2\n\n", r"x:6: the candidate /y stands twice"),
    ("relative slave", "auto\n/x\ns\n/s\n\n/y\n1\nz\n\n", r"x:8: b'z' is not an absolute path"),
    ("no end", "auto\n/x\n\n/y\n1\n", r"x:6: the file ends where a candidate's path should stand"),
]


@every_backend
@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BAD_ALTERNATIVES],
                         ids=[row[0] for row in BAD_ALTERNATIVES])  # fmt: skip
def test_damaged_alternatives(backend: str, text: str, message: str, tmp_path: Path) -> None:
    """Protects that a damaged record is named with its line, as update-alternatives does."""
    root = make_root(tmp_path, files={"var/lib/dpkg/alternatives/x": text})
    with pytest.raises(DatabaseError, match=message):
        open_database(root, backend).alternatives()


# --- generated files ------------------------------------------------------------------------


def test_allow_list() -> None:
    """Protects the shape of the allow-list: no line twice, and what is made at entry is always there."""
    lines = open_database().generated()
    assert len({(line.pattern, line.package) for line in lines}) == len(lines)
    assert all(line.pattern.startswith("/") and "**" not in line.pattern and line.made_by for line in lines)
    assert {line.pattern for line in lines if line.at_entry and not line.package} == {
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/hosts",
        "/etc/resolv.conf",
    }


def test_allow_list_has_only_what_no_package_owns(host: PackageDatabase) -> None:
    """Protects against an allow-list that hides a package's own file."""
    owned = {path for package in host.packages.values() for path in host.owned_paths(package)}
    found = {os.fsencode(path) for line in host.generated() for path in glob.glob(line.pattern)}
    assert b"/etc/passwd" in found
    assert found & owned == set()


# --- os-release -----------------------------------------------------------------------------

RELEASES = [
    ("plain", {"etc/os-release": "ID=debian\nVERSION_ID=12\n"}, Distribution(id="debian", version="12")),
    (
        "quoted",
        {"etc/os-release": 'ID=\'a-b\'\nVERSION_ID="1 \\"2"\n'},
        Distribution(id="a-b", version='1 "2'),
    ),
    ("rolling", {"etc/os-release": "# ID=x\n\nNAME=y\nID=debian\n"}, Distribution(id="debian", version="")),
    ("no ID", {"etc/os-release": "NAME=y\n"}, Distribution(id="linux", version="")),
    ("in /usr/lib", {"usr/lib/os-release": "ID=u\n"}, Distribution(id="u", version="")),
    (
        "/etc decides",
        {"etc/os-release": "ID=e\n", "usr/lib/os-release": "ID=u\n"},
        Distribution(id="e", version=""),
    ),
]


@every_backend
@pytest.mark.parametrize(
    ("files", "expected"), [row[1:] for row in RELEASES], ids=[row[0] for row in RELEASES]
)
def test_distribution(backend: str, files: dict[str, str], expected: Distribution, tmp_path: Path) -> None:
    """Protects os-release(5): its order of files, its quoting, its defaults."""
    assert open_database(make_root(tmp_path, files=files), backend).distribution == expected


@every_backend
def test_distribution_is_the_roots_own(backend: str, tmp_path: Path) -> None:
    """Protects against a root's absolute link being followed on this host."""
    root = make_root(tmp_path, files={"usr/share/release": "ID=inside\n"})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    (tmp_path / "usr/lib").mkdir()
    (tmp_path / "usr/lib/os-release").symlink_to("../../../../../usr/share/release")
    assert open_database(root, backend).distribution.id == "inside"


@every_backend
def test_database_is_the_roots_own(backend: str, tmp_path: Path) -> None:
    """Protects roots that keep dpkg's directory elsewhere behind an absolute link."""
    make_root(tmp_path, "a 1 amd64", files={"var/lib/dpkg/info/a.list": "/x\n"})
    (tmp_path / "usr/share").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg").rename(tmp_path / "usr/share/dpkg-db")
    (tmp_path / "var/lib/dpkg").symlink_to("/usr/share/dpkg-db")
    with pytest.raises(DatabaseError, match="it has no var/lib/dpkg/status"):
        open_database(os.fsencode(tmp_path / "usr"), backend)
    database = open_database(os.fsencode(tmp_path), backend)
    assert database.owned_paths(database.packages["a:amd64"]) == (b"/x",)


BAD_RELEASES: list[tuple[str, Callable[[Path], object], str]] = [
    ("none", lambda etc: etc, "it has neither etc/os-release nor usr/lib/os-release; install base-files"),
    (
        "quote",
        lambda etc: (etc / "os-release").write_text("A=1\nID='x\n"),
        r"os-release:2: No closing quotation",
    ),
    ("loop", lambda etc: (etc / "os-release").symlink_to("os-release"), r"Too many levels of symbolic links"),
]


@every_backend
@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in BAD_RELEASES],
                         ids=[row[0] for row in BAD_RELEASES])  # fmt: skip
def test_damaged_release(backend: str, spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """Protects that a root that does not say what it is ends in one clear error."""
    (tmp_path / "etc").mkdir()
    spoil(tmp_path / "etc")
    database = open_database(make_root(tmp_path), backend)
    with pytest.raises(DatabaseError, match=message):
        assert database.distribution


def test_resolve_inside(tmp_path: Path) -> None:
    """Protects the walk itself: links in the middle, `..` at the top, and what does not exist."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/up").symlink_to("../../../b/./c")
    (tmp_path / "top").symlink_to("/a")
    root = os.fsencode(tmp_path)
    assert resolve_inside(root, b"/top/up/x") == root + b"/b/c/x"
    assert resolve_inside(root, b"/../..//nothing") == root + b"/nothing"
    assert resolve_inside(b"/", b"/") == b"/"


# --- choosing a backend ---------------------------------------------------------------------


def test_guard() -> None:
    """Protects against a second copy of the types, imported by the directory's own name."""
    path = os.fspath(Path(backends.__file__).resolve())
    spec = importlib.util.spec_from_file_location("backends", path)
    assert spec is not None
    assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
    with pytest.raises(ImportError, match=r"import 'pkgjail\.backends'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hide a module, as on a host where it is not installed, with the backends that have it."""

    def hide(module: str) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        for name in ("apt", "dpkg"):
            monkeypatch.delitem(sys.modules, f"pkgjail.backends.{name}", raising=False)
            monkeypatch.delattr(backends, name, raising=False)

    return hide


def test_auto_falls_back_to_dpkg(without: Callable[[str], None], tmp_path: Path) -> None:
    """Protects hosts whose Python has no python-apt: the dpkg backend serves unasked."""
    without("apt_pkg")
    root = make_root(tmp_path)
    assert open_database(root).backend == "dpkg"
    assert [(status.name, status.usable) for status in available(root)] == [("apt", False), ("dpkg", True)]
    assert "apt_pkg cannot be imported" in available(root)[0].reason
    with pytest.raises(DatabaseError, match=r"backend 'apt' cannot be imported .*; install python3-apt and"):
        open_database(root, "apt")


def test_nothing_to_read_with(without: Callable[[str], None], tmp_path: Path) -> None:
    """Protects the message on a host that has neither library."""
    without("apt_pkg")
    without("debian.deb822")
    root = make_root(tmp_path)
    with pytest.raises(DatabaseError, match=r"'apt' cannot be .*'dpkg' cannot be .*; install python-debian"):
        open_database(root)
    assert [status.usable for status in available(root)] == [False, False]


def test_no_database(tmp_path: Path) -> None:
    """Protects the message on a system of another family."""
    root = os.fsencode(tmp_path)
    with pytest.raises(DatabaseError) as caught:
        open_database(root)
    assert str(caught.value) == (
        f"cannot read the package database of {tmp_path}: it has no var/lib/dpkg/status; "
        "name the root directory of a Debian or derived system"
    )
    assert {status.reason for status in available(root)} == {f"{tmp_path} has no var/lib/dpkg/status"}


def test_unknown_backend() -> None:
    """Protects against a misspelt name being taken for a choice."""
    with pytest.raises(DatabaseError, match="there is no backend 'yum'; use one of auto, apt, dpkg"):
        open_database(b"/", "yum")


@every_backend
def test_unreadable(backend: str, tmp_path: Path) -> None:
    """Protects the message where the status file is no file."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").mkdir()
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: Is a directory; repair it"):
        open_database(root, backend)


@every_backend
def test_looping_status(backend: str, tmp_path: Path) -> None:
    """Protects against following a loop of links for ever."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").symlink_to("status")
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: Too many levels of symbolic links"):
        open_database(root, backend)


@every_backend
def test_a_reader_that_gives_up(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects callers from the libraries' own errors, whatever the next version of one refuses."""
    root = make_root(tmp_path)
    open_database(root, backend)
    module = sys.modules[f"pkgjail.backends.{backend}"]
    path = {"apt": "apt_pkg.TagFile", "dpkg": "Packages.iter_paragraphs"}[backend]
    fault = {"apt": SystemError("no more"), "dpkg": ValueError("no more")}[backend]

    def give_up(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(f"{module.__name__}.{path}", give_up)
    with pytest.raises(DatabaseError, match=r"var/lib/dpkg/status: no more; restore the file"):
        open_database(root, backend)


class Forgetful(DpkgReader):
    """A reader that loses the last stanza."""

    def stanzas(self, file: BinaryIO) -> Iterator[dict[str, str]]:
        """Give all but the last."""
        yield from list(super().stanzas(file))[:-1]


def test_a_reader_that_loses_a_stanza(tmp_path: Path) -> None:
    """Protects against a library that one day stops at what it does not know: never fewer packages."""
    with pytest.raises(DatabaseError, match=r"the backend 'dpkg' found 1 of 2 stanzas; use another backend"):
        debian.DebianDatabase(make_root(tmp_path, "a 1 amd64"), Forgetful())


@every_backend
def test_dangling_status(backend: str, tmp_path: Path) -> None:
    """Protects the message where the status file is a link to nothing in the root."""
    root = make_root(tmp_path)
    (tmp_path / "var/lib/dpkg/status").unlink()
    (tmp_path / "var/lib/dpkg/status").symlink_to("/etc/hostname")
    with pytest.raises(DatabaseError, match=r"it has no var/lib/dpkg/status"):
        open_database(root, backend)


# --- this host ------------------------------------------------------------------------------


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
    assert list(other.packages) == sorted(other.packages)
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
