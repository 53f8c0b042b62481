"""The rpm backend's own rules, compared with rpm's programs where possible."""

from __future__ import annotations

import filecmp
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.api import resolve
from pkgjail.backends import open_database
from pkgjail.backends.rpm import boolean, query, store
from pkgjail.backends.rpm.versions import LESS, compare, compare_parts, overlaps
from pkgjail.core.errors import ClosureError, DatabaseError, PolicyError
from pkgjail.core.model import Relation
from pkgjail.policy import load_policy
from tests.real_roots import AS_ROOT, RPM, berkeley_database, copy_of, kept, run, the_root

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.core.model import DependencyGroup

ALPHABET = "0019ab.Z~^+_"

# fmt: off
VERSIONS = [
    ("1.0", "1.0", 0), ("1.0", "2.0", -1), ("2.0.1", "2.0", 1), ("2.0.1a", "2.0.1", 1),
    ("5.5p1", "5.5p2", -1),
    ("5.5p10", "5.5p1", 1), ("10xyz", "10.1xyz", -1), ("xyz10", "xyz10.1", -1), ("xyz.4", "8", -1),
    ("1.0010", "1.9", 1), ("1.05", "1.5", 0), ("1.0", "1", 1), ("2.50", "2.5", 1), ("fc4", "fc.4", 0),
    ("FC5", "fc4", -1), ("2a", "2.0", -1), ("1.0~rc1", "1.0", -1), ("1.0~rc1", "1.0~rc2", -1),
    ("1.0~rc1~git1", "1.0~rc1", -1), ("1.0^", "1.0", 1), ("1.0^git1", "1.0^git2", -1),
    ("1.0^git1", "1.01", -1), ("1.0^20160101", "1.0.1", -1), ("1.0~rc1^git1", "1.0~rc1", 1),
    ("1.0^git1~pre", "1.0^git1", -1), ("a+", "a_", 0), ("", "0", -1), ("~", "", -1), ("^", "", 1),
]
# fmt: on


@pytest.mark.parametrize(("left", "right", "order"), VERSIONS)
def test_the_order_of_versions(left: str, right: str, order: int) -> None:
    """Protects rpm's order, by the cases that rpm's own documentation and users rely on."""
    assert (compare_parts(left, right), compare_parts(right, left)) == (order, -order) or (
        (compare_parts(left, right) > 0) - (compare_parts(left, right) < 0) == order
    )


@pytest.mark.gate
def test_the_order_is_rpms() -> None:
    """Protects the order of thousands of random versions, against `rpm.vercmp` of rpm's own Lua."""
    chance = random.Random(6)  # noqa: S311 - to be the same each time
    pairs = []
    for _ in range(3000):
        left, right = (
            "".join(chance.choice(ALPHABET) for _ in range(chance.randint(1, 7))) for _ in range(2)
        )
        if chance.random() < 1 / 2:
            right = left[: chance.randint(0, len(left))] + right[:3]
        if left.strip("~^._+") and right.strip("~^._+"):
            pairs.append((left, right))
    script = "".join(f"print(rpm.vercmp('{left}', '{right}') .. ' ')" for left, right in pairs)
    said = run("rpm", "--eval", f"%{{lua:{script}}}").split()
    ours = [compare_parts(left, right) for left, right in pairs]
    assert [(order > 0) - (order < 0) for order in ours] == [int(word) for word in said]


_RANGES = """
import json, rpm, sys
def deps(name, flags, version):
    return rpm.ds((name, flags, version), rpm.RPMTAG_REQUIRENAME)
json.dump([bool(deps("n", f, a).Compare(deps("n", g, b))) for a, f, b, g in json.load(sys.stdin)], sys.stdout)
"""


@pytest.mark.gate
def test_ranges_overlap_as_rpms_do() -> None:
    """Protects what satisfies a versioned requirement, epochs and releases too, against rpm's library."""
    import json

    chance = random.Random(7)  # noqa: S311 - to be the same each time
    versions = [
        "1",
        "1-1",
        "1-2",
        "2",
        "2-1",
        "0:1",
        "1:1",
        "1:1-1",
        "2:0",
        "1~a",
        "1~a-1",
        "1^b-1",
        "",
        "1.0-1",
    ]
    flags = [0, 2, 4, 8, 10, 12]
    cases = [(chance.choice(versions), chance.choice(flags), chance.choice(versions), chance.choice(flags))
             for _ in range(2000)]  # fmt: skip
    done = subprocess.run(
        ["/usr/bin/python3", "-c", _RANGES],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [overlaps(*case) for case in cases] == json.loads(done.stdout)


def test_a_version_without_release_fits_any() -> None:
    """Protects `name = 1.0` and `name < 1.0` where 1.0-5 is installed."""
    assert compare("1.0", "1.0-5") == 0
    assert overlaps("1.0-5", 8, "1.0", 8)
    assert not overlaps("1.0-5", 8, "1.0", LESS)


# --- rich requirements --------------------------------------------------------------------------


def shown(groups: tuple[DependencyGroup, ...]) -> list[str]:
    """Return each group as `alternatives [<- conditions]`."""
    return [
        boolean.show(group.alternatives[0])
        + (f" <- {', '.join(map(boolean.show, group.conditions))}" if group.conditions else "")
        for group in groups
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a >= 1:2-3", ["a >= 1:2-3"]),
        ("a  <2", ["a < 2"]),
        ("perl(A::B) => 1", ["perl(A::B) >= 1"]),
        ("libc.so.6(GLIBC_2.34)(64bit)", ["libc.so.6(GLIBC_2.34)(64bit)"]),
        ("(a and b)", ["a", "b"]),
        ("(a or b > 1)", ["(a or b > 1)"]),
        ("(a or b or c)", ["(a or b or c)"]),
        ("(a if b)", ["a <- b"]),
        ("(a if b else c)", ["a <- b", "(c or b)"]),
        ("(a unless b)", ["(a or b)"]),
        ("(a unless b else c)", ["(a or b)", "c <- b"]),
        ("(a if (b or c))", ["a <- b", "a <- c"]),
        ("(a if (b and c))", ["a <- b, c"]),
        ("((a and b) if c)", ["a <- c", "b <- c"]),
        ("((a if b) or c)", ["(a or c) <- b"]),
        ("(a with b)", ["(a with b)"]),
        ("(a without (b or c))", ["(a without (b or c))"]),
        ("((a with b) if c)", ["(a with b) <- c"]),
        ("(a(x) if b(y))", ["a(x) <- b(y)"]),
        ("(a or a)", ["a"]),
        ("(a if a)", []),
        ("(a if (b if c))", ["(a or c)", "a <- b"]),
        ("(a if (b if c else d))", ["(a or c) <- d", "a <- b, c", "a <- b, d"]),
        ("(a if (b unless c))", ["a <- c", "a <- b"]),
    ],
)
def test_rich_requirements(text: str, expected: list[str]) -> None:
    """Protects the meaning of rich requirements, and of their conditions."""
    assert sorted(shown(boolean.groups(text, "Requires"))) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a name is missing"),
        ("(a)", "'' is not one of and, or"),
        ("(a or b", "'' is not one of"),
        ("(a or b) c", "'c' stands after"),
        ("(a xor b)", "'xor' is not one of"),
        ("(a if b if c)", "'if' cannot follow 'if'"),
        ("(a if b else c else d)", "'else' cannot follow 'if'"),
        ("(a or b else c)", "'else' cannot follow 'or'"),
        ("a >< 1", "'><' is not one of"),
        ("a >", "a version is missing"),
        ("(" * 60 + "a", "nested too deeply"),
        ("(" + " or ".join(f"(a{n} and b{n})" for n in range(12)) + ")", "too large"),
    ],
)
def test_what_is_no_requirement(text: str, message: str) -> None:
    """Protects the message for what cannot be read, and time and memory from what is too large."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        boolean.groups(text, "Requires")


NAMES = ("a", "b", "c", "d")
NODES = st.recursive(
    st.sampled_from([Relation(name=name) for name in NAMES]),
    lambda inner: st.one_of(
        st.builds(
            lambda operator, operands: boolean.Operation(operator, tuple(operands)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
        st.builds(
            lambda operator, operands: boolean.Operation(operator, tuple(operands)),
            st.sampled_from(["if", "unless"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=6,
)  # fmt: skip


def holds(node: boolean.Node, inside: set[str]) -> bool:
    """Return whether `inside` satisfies a requirement, exactly as rpm's manual defines it."""
    if isinstance(node, Relation):
        return node.name in inside
    values = [holds(operand, inside) for operand in node.operands]
    if node.operator == "and":
        return all(values)
    if node.operator == "or":
        return any(values)
    condition = values[1] if node.operator == "if" else not values[1]
    otherwise = values[2] if len(values) > 2 else True
    return values[0] if condition else otherwise


@settings(deadline=None)
@given(node=NODES)
def test_the_clauses_say_the_same(node: boolean.Node) -> None:
    """For any set of packages, the clauses are satisfied exactly if the rich requirement is."""
    try:
        groups = boolean.groups(boolean.show(node), "Requires")
    except ValueError as error:
        assert "too large" in str(error)  # noqa: PT017 - only where it is
        return
    for size in range(len(NAMES) + 1):
        for chosen in itertools.combinations(NAMES, size):
            inside: set[str] = set(chosen)
            clauses = [
                not inside.issuperset(one.name for one in group.conditions)
                or any(holds(boolean.parse(boolean.show(one)), inside) for one in group.alternatives)
                for group in groups
            ]
            assert all(clauses) == holds(node, inside)


@settings(deadline=None)
@given(node=NODES)
def test_what_is_shown_is_read_again(node: boolean.Node) -> None:
    """A requirement that is shown is parsed as the same one."""
    assert boolean.parse(boolean.show(node)) == node


# --- rpm's answer -----------------------------------------------------------------------------

STRINGS = st.binary(max_size=12).map(lambda data: data.replace(b"\0", b"'"))


def shescape(text: bytes) -> bytes:
    """Return a string as rpm's `:shescape` writes it."""
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


@settings(max_examples=300, deadline=None)
@given(names=st.lists(STRINGS, max_size=4), files=st.lists(STRINGS, max_size=4))
def test_any_string_comes_back(names: list[bytes], files: list[bytes]) -> None:
    """Strings of any bytes, among them those that separate, are read as they are."""
    head = b"\t''\t".join([shescape(b"n"), shescape(b"1"), shescape(b"2"), shescape(b"x86_64"), b"0 7"])
    provides = b"".join(b"8 %b\t''\t%b\n''" % (shescape(name), shescape(name[::-1])) for name in names)
    listed = b"".join(b"64 2 %b\n''" % shescape(name) for name in files)
    block = b"\x1d''".join([head, provides, b"", b"", listed])
    (found, rest) = (block + b"\x1e''").replace(b"'\\''", b"\0").split(b"\x1e''")
    header = query._header(found)
    assert rest == b""
    assert (header.name, header.evr, header.size) == ("n", "1-2", 7)
    assert [(name, version) for _, name, version in query.capabilities(header.provides)] == [
        (name.decode("utf-8", "surrogateescape"), name[::-1].decode("utf-8", "surrogateescape"))
        for name in names
    ]
    assert list(query.files(header.files)) == [(64, 2, name) for name in files]


# --- what rpm's database can hold besides ---------------------------------------------------------

SPEC = """
Name: {name}
Version: {version}
Release: 1
Summary: Made for tests
License: MIT
AutoReqProv: no
{fields}
%description
Made for tests.
%install
mkdir -p %{{buildroot}}/usr/share/{name} %{{buildroot}}/usr/share/doc/{name}
echo {version} > %{{buildroot}}/usr/share/{name}/{version}
echo {version} > %{{buildroot}}/usr/share/doc/{name}/README-{version}
%files
/usr/share/{name}/{version}
%doc /usr/share/doc/{name}/README-{version}
"""

SPECIAL = {
    "kernel-1": ("kernel", "1.9", "", "x86_64"),
    "kernel-2": ("kernel", "1.10", "", "x86_64"),
    "multi-64": ("multi", "1", "Provides: capability", "x86_64"),
    "multi-32": ("multi", "1", "Provides: capability", "i686"),
    "wants-64": ("wants64", "1", "Requires: capability, multi(x86-64)", "x86_64"),
    "wants-32": ("wants32", "1", "Requires: capability, multi(x86-32)", "i686"),
    "independent": ("independent", "1", "Requires: capability", "noarch"),
}


def _special(place: Path) -> None:
    """Install two kernels, one package for two architectures, and no documentation."""
    files = {}
    for key, (name, version, fields, architecture) in SPECIAL.items():
        spec = place / f"{key}.spec"
        spec.write_text(SPEC.format(name=name, version=version, fields=fields))
        macros = {
            "_topdir": place / key, "_rpmdir": place / key, "_dbpath": place / "none",
            "_build_name_fmt": f"{key}.rpm", "__os_install_post": "%{nil}",
        }  # fmt: skip
        definitions = [word for pair in macros.items() for word in ("--define", "{} {}".format(*pair))]
        run("rpmbuild", "-bb", "--target", architecture, *definitions, spec)
        files[key] = place / key / f"{key}.rpm"
    root = place / "root"
    (root / "var/lib/rpm").mkdir(parents=True)
    (root / "etc/dnf/protected.d").mkdir(parents=True)
    (root / "etc/dnf/protected.d/made.conf").write_text("# what a site keeps: multi\nwants64\n")
    (root / "etc/os-release").write_text('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n')
    options = ("--root", root, "--nosignature", "--excludedocs", "--ignorearch")
    run(*AS_ROOT, *RPM, *options, "-i", *files.values())


@pytest.fixture(scope="module")
def special() -> Path:
    """Return a root with cases that other backends do not have."""
    return kept("special", _special, SPEC, repr(SPECIAL), Path(__file__).read_text()) / "root"


@pytest.mark.gate
def test_several_architectures(special: Path) -> None:
    """Protects multilib: a package is preferred for requirements of its own architecture, noarch included."""
    database = open_database(os.fsencode(special))
    assert database.architecture == "x86_64"
    answers: Mapping[str, list[str]] = {
        asker: [one.key for one in database.candidates(Relation(name="capability"), asker)]
        for asker in ("x86_64", "i686", "noarch")
    }
    assert answers == {
        "x86_64": ["multi:x86_64", "multi:i686"],
        "i686": ["multi:i686", "multi:x86_64"],
        "noarch": ["multi:x86_64", "multi:i686"],
    }
    for text, expected in {
        "multi.i686": ["multi:i686"],
        "multi": ["multi:x86_64", "multi:i686"],
        "multi(x86-32)": ["multi:i686"],
        "independent.noarch": ["independent:noarch"],
    }.items():
        (group,) = database.parse(text)
        assert [one.key for one in database.candidates(group.alternatives[0], "x86_64")] == expected
    assert [text for group in database.requirements(database.packages["wants32:i686"], recommends=False)
            for text in [group.text]] == ["capability", "multi(x86-32)"]  # fmt: skip


@pytest.mark.gate
def test_installed_more_than_once(special: Path) -> None:
    """Protects against two packages of one key: of kernels the newest counts, by rpm's order."""
    database = open_database(os.fsencode(special))
    kernel = database.packages["kernel:x86_64"]
    assert kernel.version == "1.10-1"
    assert b"/usr/share/kernel/1.10" in database.owned_paths(kernel)
    assert b"/usr/share/kernel/1.9" not in database.owned_paths(kernel)


@pytest.mark.gate
def test_files_that_were_not_installed(special: Path) -> None:
    """Protects from reporting documentation as missing that rpm was told to leave out."""
    database = open_database(os.fsencode(special))
    assert database.owned_paths(database.packages["independent:noarch"]) == (b"/usr/share/independent/1",)
    assert "not installed" in run(*RPM, "--root", special, "-q", "--state", "independent")
    (group,) = database.parse("/usr/share/doc/independent/README-1")
    assert database.candidates(group.alternatives[0], "x86_64") == ()


@pytest.mark.gate
@pytest.mark.parametrize(
    ("lines", "family", "command"),
    [
        ("ID=novel", "suse", "zypper"),
        ('ID="sles"', "suse", "zypper"),
        ("ID=novel\nID_LIKE=fedora", "rhel", "dnf"),
    ],
)
def test_the_family_of_an_rpm_database(lines: str, family: str, command: str, tmp_path: Path) -> None:
    """Protects openSUSE's derivatives whose os-release does not say so: `aaa_base` does."""
    place = root_with(tmp_path, "aaa_base", "", lines)
    database = open_database(os.fsencode(place))
    assert database.family == family
    assert f"'{command} install x'" in database.unmet_reason(Relation(name="x"), "x86_64")


# What the shipped lists name in every release of a family.
_RHEL = [
    "bash",
    "coreutils",
    "findutils",
    "diffutils",
    "grep",
    "sed",
    "gawk",
    "which",
    "gcc",
    "gcc-c++",
    "glibc-devel",
    "make",
    "patch",
    "m4",
    "autoconf",
    "automake",
    "libtool",
    "bison",
    "flex",
    "gettext",
    "gcc-gfortran",
    "perl",
    "tar",
    "gzip",
    "unzip",
    "bzip2",
    "xz",
    "file",
    "gnupg2",
    "git",
    "curl",
    "ca-certificates",
]
_SUSE = [
    "bash",
    "coreutils",
    "findutils",
    "diffutils",
    "grep",
    "sed",
    "gawk",
    "which",
    "gcc",
    "gcc-c++",
    "glibc-devel",
    "make",
    "patch",
    "m4",
    "autoconf",
    "automake",
    "libtool",
    "bison",
    "flex",
    "gettext-tools",
    "gcc-fortran",
    "perl",
    "tar",
    "gzip",
    "unzip",
    "bzip2",
    "xz",
    "file",
    "gpg2",
    "git",
    "curl",
    "pkg-config",
    "terminfo-base",
    "python3",
    "zstd",
    "lsb-release",
]
# Each row: os-release, what the release has besides, and the entries that nothing satisfies. The names are
# those of the distributions' own databases.
RELEASES = [
    ("ID=centos", [*_RHEL, "redhat-release", "system-release", "ncurses-base", "pkgconfig", "python34"], []),
    (
        "ID=centos\nVERSION_ID=7",
        [*_RHEL, "redhat-release = 7.5-8", "system-release = 7.5-8", "ncurses-base", "pkgconfig", "python3"],
        [],
    ),
    (
        "ID=rocky\nVERSION_ID=8",
        [*_RHEL, "redhat-release = 8.2-0", "system-release = 8.2-0", "ncurses-base", "pkgconfig", "python3"],
        ["zstd | system-release < 8"],
    ),
    (
        "ID=fedora\nVERSION_ID=40",
        [*_RHEL, "redhat-release", "system-release = 40", "ncurses-base", "pkgconfig", "python3", "zstd"],
        [],
    ),
    ("ID=mariner", [*_RHEL, "/etc/os-release", "ncurses", "pkgconfig", "python3", "zstd"], []),
    ("ID=photon", [*_RHEL, "/etc/os-release", "ncurses", "pkg-config", "python3", "zstd"], []),
    ('ID="sles"', [*_SUSE, "distribution-release", "ca-certificates-mozilla-prebuilt"], []),
    ("ID=opensuse-leap", [*_SUSE, "distribution-release", "ca-certificates-mozilla"], []),
    (
        "ID=opensuse-leap",
        [*_SUSE, "/etc/os-release"],
        ["ca-certificates-mozilla | ca-certificates-mozilla-prebuilt"],
    ),
]


@pytest.mark.gate
@pytest.mark.parametrize(("lines", "names", "problems"), RELEASES, ids=[row[0] for row in RELEASES])
def test_shipped_lists_of_all_ages(lines: str, names: list[str], problems: list[str], tmp_path: Path) -> None:
    """Protects the shipped lists in releases whose packages have other names."""
    place = root_with(tmp_path, "everything", f"Provides: {', '.join(names)}", lines)
    database = open_database(os.fsencode(place))
    if not problems:
        assert load_policy(["base", "build", "spack"], database=database).packages
        return
    with pytest.raises(PolicyError) as caught:
        load_policy(["base", "build", "spack"], database=database)
    assert [one.message.partition("'")[2].partition("'")[0] for one in caught.value.problems] == problems


def root_with(tmp_path: Path, name: str, fields: str, lines: str) -> Path:
    """Return a root with one package, which may lack what it requires, and with an os-release."""
    tmp_path.mkdir(exist_ok=True)
    place = tmp_path / "root"
    spec = tmp_path / "made.spec"
    spec.write_text(SPEC.format(name=name, version="1", fields=fields))
    macros = {
        "_topdir": tmp_path, "_rpmdir": tmp_path, "_dbpath": tmp_path / "none",
        "_build_name_fmt": "made.rpm", "__os_install_post": "%{nil}",
    }  # fmt: skip
    definitions = [word for pair in macros.items() for word in ("--define", "{} {}".format(*pair))]
    run("rpmbuild", "-bb", "--target", "noarch", *definitions, spec)
    (place / "var/lib/rpm").mkdir(parents=True)
    (place / "etc").mkdir()
    (place / "etc/os-release").write_text(f"{lines}\n")
    options = ("--root", place, "--nosignature", "--ignorearch", "--nodeps", "--noscripts")
    run(*AS_ROOT, *RPM, *options, "-i", tmp_path / "made.rpm")
    return place


@pytest.mark.gate
def test_what_only_scripts_require_may_be_gone(tmp_path: Path) -> None:
    """Protects images from which the programs for scripts were removed: recorded, and no error."""
    fields = "Requires(post): fillup\nRequires(pre): shadow\nRequires(postun): grep >= 2\n{}"
    place = root_with(tmp_path / "sound", "made", fields.format(""), "ID=sles")
    whitelist = tmp_path / "list.toml"
    whitelist.write_text('[packages]\nsuse = ["made"]\n')
    manifest = resolve([str(whitelist)], root=os.fsencode(place))
    assert [f"{one.kind}: {one.text}: {one.reason}" for one in manifest.unmet] == [
        f"Requires({when}): {text}: only scripts of the package need it, and none runs in a jail"
        for when, text in (("post", "fillup"), ("postun", "grep >= 2"), ("pre", "shadow"))
    ]
    place = root_with(tmp_path / "broken", "made", fields.format("Requires: grep >= 2\n"), "ID=sles")
    with pytest.raises(ClosureError) as caught:
        resolve([str(whitelist)], root=os.fsencode(place))
    first, _how = caught.value.problems
    assert first.message.startswith("Requires: grep >= 2: 'grep' is not installed")


@pytest.mark.gate
def test_what_the_root_says_of_itself(special: Path) -> None:
    """Protects openSUSE's key in whitelists, and the names that dnf would not remove."""
    database = open_database(os.fsencode(special))
    assert database.family == "suse"
    assert [key for key, package in database.packages.items() if package.protected] == ["wants64:x86_64"]
    assert [key for key, package in database.packages.items() if package.essential] == ["wants64:x86_64"]
    assert database.unmet_reason(Relation(name="x"), "x86_64").endswith(
        f"install it with 'zypper install x' in {special}"
    )


@pytest.mark.gate
def test_the_old_format(tmp_path: Path) -> None:
    """Protects hosts of RHEL 8 and before, whose database is of Berkeley DB: the same is read of it."""
    root = copy_of("rpm", tmp_path)
    before = open_database(os.fsencode(root))
    directory = root / "var/lib/rpm"
    berkeley_database(directory)
    after = open_database(os.fsencode(root))
    assert dict(after.packages) == dict(before.packages)
    assert os.listdir(directory) == ["Packages"]
    # What another rpm leaves beside it, or a copy that was cut off at once.
    empty = directory / "rpmdb.sqlite"
    empty.touch()
    assert dict(open_database(os.fsencode(root)).packages) == dict(before.packages)
    made = tmp_path / "made"
    run("rpm", "--dbpath", made, "--define", "_db_backend sqlite", "--initdb")
    shutil.copy(made / "rpmdb.sqlite", empty)
    assert empty.stat().st_size > 0
    found = open_database(os.fsencode(root))
    assert dict(found.packages) == dict(before.packages)
    assert b"/usr/bin/app" in found.digests(found.packages["app:x86_64"])
    for file in (empty, directory / "Packages"):
        file.write_bytes(b"")
    with pytest.raises(DatabaseError, match=r"rpmdb\.sqlite: it is empty; restore it"):
        open_database(os.fsencode(root))


@pytest.mark.gate
@pytest.mark.parametrize("place", ["usr/lib/sysimage/rpm", "usr/share/rpm"])
def test_other_places(place: str, tmp_path: Path) -> None:
    """Protects Fedora's and openSUSE's place of the database, and that of rpm-ostree, linked or not."""
    root = copy_of("rpm", tmp_path)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "var/lib/rpm").rename(root / place)
    assert len(open_database(os.fsencode(root)).packages) > 25
    (root / "var/lib/rpm").symlink_to(f"/{place}")
    assert len(open_database(os.fsencode(root), "dnf").packages) > 25


@pytest.mark.gate
def test_a_database_behind_a_link(tmp_path: Path) -> None:
    """Protects the root from a link of its own that would lead to a file of the host's."""
    root = copy_of("rpm", tmp_path)
    (root / "srv").mkdir()
    (root / "var/lib/rpm/rpmdb.sqlite").rename(root / "srv/database")
    (root / "var/lib/rpm/rpmdb.sqlite").symlink_to("/srv/database")
    assert len(open_database(os.fsencode(root)).packages) > 25


@pytest.mark.gate
def test_imported_keys_are_no_packages(tmp_path: Path) -> None:
    """Protects roots whose repositories are signed: rpm keeps each key as a package of no architecture."""
    root = copy_of("rpm", tmp_path)
    before = dict(open_database(os.fsencode(root)).packages)
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "")
    for name in ("one", "two"):
        # rpm 4.20 takes no shorter RSA keys than these.
        run(*gpg, "--quick-generate-key", name, "rsa2048", "sign")
        (root / f"{name}.asc").write_text(run(*gpg, "--armor", "--export", name))
        run(*AS_ROOT, *RPM, "--root", root, "--import", root / f"{name}.asc")
    run("gpgconf", "--homedir", home, "--kill", "all")
    assert "gpg-pubkey" in run(*RPM, "--root", root, "-qa")
    assert dict(open_database(os.fsencode(root)).packages) == before


def test_what_a_package_does_not_have() -> None:
    """Protects old packages: rpm prints `(none)`, without quotes, for a field that is not there."""
    assert list(query.capabilities(b"(none) 'a'\t''\t(none)\n''")) == [(0, "a", "")]
    assert list(query.files(b"(none) (none) '/a'\n''")) == [(0, 0, b"/a")]


@pytest.mark.gate
@pytest.mark.parametrize(
    ("relation", "said"),
    [
        (
            Relation(name="libapi", operator=">>", version="9"),
            "'libapi' is provided as 3 by lib:x86_64, and (> 9)",
        ),
        (Relation(name="lib", operator="<<", version="1"), "lib is installed as 1:1.5-2, and (< 1) is asked"),
        (Relation(name="lib", architecture="i686"), "'lib' is installed for x86_64, and i686 is asked"),
        (Relation(name="no(x)"), "nothing that is provides it; install it with 'dnf install \"no(x)\"' in"),
    ],
)
def test_why_nothing_answers(relation: Relation, said: str) -> None:
    """Protects the explanation of the nearest miss."""
    database = open_database(os.fsencode(the_root("rpm")))
    assert database.candidates(relation, "x86_64") == ()
    assert said in database.unmet_reason(relation, "x86_64")


@pytest.mark.gate
def test_a_requirement_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a rich requirement of a newer rpm being passed over."""
    root = the_root("rpm")

    def newer(_text: str, _kind: str) -> tuple[DependencyGroup, ...]:
        raise ValueError("'nand' is not an operator")

    monkeypatch.setattr(boolean, "groups", newer)
    database = open_database(os.fsencode(root))
    with pytest.raises(DatabaseError, match=r"the package rich-or:x86_64 requires '\(.*: 'nand' is not"):
        database.requirements(database.packages["rich-or:x86_64"], recommends=False)


@pytest.mark.gate
@pytest.mark.parametrize("asked", ["/usr/share/odd/it's", "/usr/moved/odd/it's", "/share/odd/it's"])
def test_paths_are_the_same_by_every_link(asked: str, tmp_path: Path) -> None:
    """Protects requirements of paths where a directory was merged below the top, as Fedora's /usr/sbin."""
    root = copy_of("rpm", tmp_path)
    (root / "usr/share").rename(root / "usr/moved")
    (root / "usr/share").symlink_to("moved")
    (root / "share").symlink_to("/usr/share")
    database = open_database(os.fsencode(root))
    (group,) = database.parse(asked)
    found = database.candidates(group.alternatives[0], "x86_64")
    assert [package.name for package in found] == ["odd++name.2"]
    assert database.candidates(Relation(name="/usr/odd/it's"), "x86_64") == ()


# --- what a hostile database has ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("(" * 51 + "a", "nested too deeply", id="deep"),
        pytest.param("(" + "a or " * 5000 + "b)", "more than 16384 characters", id="long"),
        pytest.param("(" + "(a or b) and " * 1000 + "c)", "", id="wide, and of few clauses"),
        pytest.param(
            "(" + " or ".join(f"(a{n} and b{n})" for n in range(60)) + ")", "too large", id="clauses"
        ),
        pytest.param("(" + " or ".join(f"a{n}" for n in range(2500)) + ")", "", id="alternatives"),
        pytest.param("(a if " * 49 + "b" + ")" * 49, "", id="conditions in conditions"),
        pytest.param("(a if " * 49 + "b" + " else a)" * 49, "", id="conditions with else"),
        pytest.param(
            "(a unless (b if (c unless " * 16 + "b" + ")))" * 16, "", id="conditions that alternate"
        ),
    ],
)
def test_no_requirement_takes_long(text: str, said: str) -> None:
    """Protects from rich requirements whose clauses, or whose reading, would grow without end."""
    started = time.process_time()
    try:
        boolean.groups(text, "Requires")
        found = ""
    except ValueError as error:
        found = str(error)
    assert said in found
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b"a b"),
        (0, b"a\nb"),
        (0, b"\x1b[2J"),
        (0, b"\xff"),
        (0, b""),
        (1, b"1 2"),
        (2, b"\t"),
        (3, b"x\x07"),
    ],
)
def test_names_that_are_no_words(field: int, value: bytes) -> None:
    """Protects manifests, terminals and reports from names with blanks and control bytes."""
    head = [b"'a'", b"'1'", b"'1'", b"'x86_64'", b"0 1"]
    head[field] = b"'" + value + b"'"
    block = query._STRING.encode().join(head) + query._SECTION.encode() * 4
    with pytest.raises(ValueError, match="with a blank or an unprintable character"):
        query._header(block)


# A program in rpm's place, and what is said of it.
IMPOSTORS = {
    "one that never ends": ("while :; do :; done", "rpm took more than 1 seconds of a processor"),
    "one that waits": ("exec sleep 100", "rpm took more than 2 seconds"),
    "one that prints without end": ("exec cat /dev/zero", "rpm wrote more than"),
    "one that prints much": ("head -c 2M /dev/zero", "rpm printed more than 1 MiB"),
    "one that complains without end": ("exec cat /dev/zero >&2", "rpm wrote more than"),
    "one that takes all memory": (
        "exec perl -e 'sleep 1; $x = qq(a) x (1 << 30)'",
        "rpm failed: Out of memory",
    ),
    "one that prints no database": ("echo x", "what rpm printed ends within a package"),
}


@pytest.mark.parametrize("summary", IMPOSTORS)
def test_what_rpm_may_take_is_bounded(summary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a database that makes rpm run, print or write forever; its copy is removed."""
    script, said = IMPOSTORS[summary]
    program = tmp_path / "bin/rpm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(query, "_MAX_SECONDS", 2 if "waits" in summary else 60)
    monkeypatch.setattr(query, "_MAX_OUTPUT", 1 << 20)
    limits = ((resource.RLIMIT_CPU, 1), (resource.RLIMIT_AS, 1 << 28), (resource.RLIMIT_FSIZE, 64 << 20))
    monkeypatch.setattr(query, "_LIMITS", limits)
    monkeypatch.setitem(query._EXCEEDED, signal.SIGXCPU, "rpm took more than 1 seconds of a processor")
    with pytest.raises(DatabaseError, match=said):
        open_database(os.fsencode(the_root("rpm")), "rpm")
    assert os.listdir(place) == []


@pytest.mark.slow
def test_a_copy_has_the_holes_of_its_database(tmp_path: Path) -> None:
    """Protects TMPDIR, which may be memory: holes stay holes in the copy, and data stays data."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    with original.open("wb") as file:
        for start in (0, 50 << 20, 100 << 20):
            file.seek(start)
            file.write(os.urandom(5000))
        file.truncate(200 << 20)
    with original.open("rb") as source, copy.open("xb") as target:
        store._copy_data(source.fileno(), target.fileno(), b"x")
    assert filecmp.cmp(original, copy, shallow=False)
    assert copy.stat().st_blocks * 512 < 1 << 20
