"""Policies: the result of merging lists, and the messages about faulty ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.exit_status import exit_status
from pkgjail.core.errors import PolicyError
from pkgjail.core.model import Policy, Requirement, Rule
from pkgjail.policy import load_policy, policy_digest
from pkgjail.policy.lists import WHITELIST, find
from tests.policy_cases import database, text, write

if TYPE_CHECKING:
    from pathlib import Path


def required(text: str, origin: str) -> Requirement:
    """Return a whitelist's entry, which no package satisfies."""
    return Requirement(text=text, origin=origin, groups=())


def shown(policy: Policy) -> str:
    """Return a policy as text, one line for each part."""

    def rules(word: str, values: tuple[Rule, ...]) -> list[str]:
        return [f"{word} {rule.pattern} @ {rule.origin}" for rule in values]

    return "\n".join(
        [
            f"lists {' '.join(policy.whitelists)} / {' '.join(policy.blacklists)}",
            *[f"package {each.text} @ {each.origin}" for each in policy.packages],
            *rules("include", policy.includes),
            *rules("drop", policy.drops),
            f"recommends {policy.recommends} essential {policy.essential}",
        ]
    )


GOOD = [
    pytest.param(
        """
        -- my.toml
        [packages]
        debian = ["gcc (>=  10)", # a comment
            "nix | awk",
            "zlib1g:i386", "gcc (>= 10)"]
        rhel = ["never-checked ((("]
        [files]
        include = ["/opt/cuda/**"]
        """,
        "my.toml",
        "",
        """
        lists my.toml /\x20
        package gcc (>= 10) @ my.toml:2
        package nix | awk @ my.toml:3
        package zlib1g:i386 @ my.toml:4
        include /opt/cuda/** @ my.toml:7
        recommends False essential True
        """,
        id="one list: white space folded, repeated entries dropped, other families unread",
    ),
    pytest.param(
        """
        -- top.toml
        include = ["lib/left.toml", "./lib/right.toml"]
        packages.debian = ["c-compiler"]
        -- lib/left.toml
        include = ["deep.toml"]
        packages = { debian = ["gfortran", "bash"] }
        -- lib/right.toml
        include = ["../lib/deep.toml"]
        [packages]
        debian = ["gfortran"]
        -- lib/deep.toml
        [packages]
        debian = ["bash"]
        """,
        "top.toml lib/deep.toml",
        "",
        """
        lists deep.toml left.toml right.toml top.toml /\x20
        package bash @ deep.toml:2
        package gfortran @ left.toml:2
        package c-compiler @ top.toml:2
        recommends False essential True
        """,
        id="a diamond is read once, and names are relative to the including file",
    ),
    pytest.param(
        """
        -- my.toml
        include = ["other.toml"]
        packages.debian = []
        options.blacklists = ["b/two.ignore", "one.ignore"]
        -- other.toml
        packages.debian = []
        options.blacklists = ["one.ignore"]
        -- one.ignore
        # nothing
        *.a

        !lib*.a
        -- b/two.ignore
        /two/
        -- last.ignore
        \\#last
        """,
        "my.toml",
        "b/two.ignore last.ignore",
        """
        lists other.toml my.toml / one.ignore two.ignore last.ignore
        drop *.a @ one.ignore:2
        drop !lib*.a @ one.ignore:4
        drop /two/ @ two.ignore:1
        drop \\#last @ last.ignore:1
        recommends False essential True
        """,
        id="blacklists: whitelists' first, in the order of merging, each once",
    ),
    pytest.param(
        """
        -- my.toml
        [files]
        include = ["/opt/x"]
        """,
        "my.toml",
        "",
        """
        lists my.toml /\x20
        include /opt/x @ my.toml:2
        recommends False essential True
        """,
        id="a list of files serves every family",
    ),
]


@pytest.mark.parametrize(("files", "whitelists", "blacklists", "expected"), GOOD)
def test_merged(  # noqa: PLR0913 - a table's columns
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    files: str,
    whitelists: str,
    blacklists: str,
    expected: str,
) -> None:
    """Lists are merged in the documented order, each rule with file and line."""
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    policy = load_policy(whitelists.split(), blacklists.split(), database=database())
    assert shown(policy) == text(expected)


BAD = [
    pytest.param(
        """
        -- my.toml
        pakages = {}
        zzz = 1
        include = "base"
        files = 1
        [packages]
        debian = ["gfortan",
            "c (>= 9)", "gcc (>", "n | sh", "", 1.5]
        debain = []
        rhel = ["a", [1], 2020-01-01]
        [options]
        recommend = true
        essential = "yes"
        recommends = 1
        blacklists = ["x", {}]
        """,
        "my.toml",
        """
        my.toml:1: unknown key 'pakages'; did you mean 'packages'?
        my.toml:2: unknown key 'zzz'; use one of devices, files, include, options, packages
        my.toml:3: 'include' must be an array of strings, not a string
        my.toml:4: 'files' must be a table, not an integer
        my.toml:6: cannot satisfy 'gfortan': gfortan is not installed; did you mean 'gfortran'?
        my.toml:7: an empty string in 'debian' names nothing
        my.toml:7: 'debian' must have only strings, not a float
        my.toml:7: cannot satisfy 'c (>= 9)': c (>= 9) for amd64 is asked and c:amd64 1 is installed
        my.toml:7: bad requirement 'gcc (>': 'gcc (>' is not name[:architecture] [(operator version)]
        my.toml:7: cannot satisfy 'n | sh': n is not installed; install it; sh is not installed; install it
        my.toml:8: unknown family 'debain' in [packages]; did you mean 'debian'?
        my.toml:9: 'rhel' must have only strings, not an array
        my.toml:9: 'rhel' must have only strings, not a date or time
        my.toml:11: unknown key 'recommend' in [options]; did you mean 'recommends'?
        my.toml:12: 'essential' must be true or false, not a string
        my.toml:13: 'recommends' must be true or false, not an integer
        my.toml:14: 'blacklists' must have only strings, not a table
        my.toml:14: unknown blacklist 'x'; use one of docs, locales, python-bytecode, static-libs
        """,
        id="every fault of a list, by line",
    ),
    pytest.param(
        """
        -- my.toml
        packages.debian = []
        [files]
        include = ["opt/x", "/opt/x/",
            "/a/../b", "/a//b", "/a\\u0000", "/"]
        """,
        "my.toml",
        """
        my.toml:3: the pattern 'opt/x' is relative; begin it with '/', because it names files of the host
        my.toml:3: the pattern '/opt/x/' ends in '/'; write '/opt/x/**' for everything in the directory
        my.toml:4: the pattern '/a/../b' is not normal: leave out '.', '..' and doubled slashes
        my.toml:4: the pattern '/a//b' is not normal: leave out '.', '..' and doubled slashes
        my.toml:4: the pattern '/a\\x00' has a NUL byte, which no path has
        my.toml:4: the pattern '/' ends in '/'; write '/**' for everything in the directory
        """,
        id="patterns of files",
    ),
    pytest.param(
        """
        -- mine
        -- gone.d/x
        """,
        "mine nix spak base.toml ./x.toml",
        """
        unknown whitelist 'mine'; write './mine' for the file
        unknown whitelist 'nix'; use one of base, build, fabric, gpu-amd, gpu-intel, gpu-nvidia, spack
        unknown whitelist 'spak'; did you mean 'spack'?
        cannot read the whitelist 'base.toml': No such file or directory; the shipped one is called 'base'
        cannot read the whitelist 'x.toml': No such file or directory
        """,
        id="names that mean nothing",
    ),
    pytest.param(
        """
        -- a.toml
        include = [
            "b.toml",
            "base\\u0000", "./a.toml"]
        packages.debian = []
        -- b.toml
        include = ["c.toml"]
        -- c.toml
        include = ["b.toml"]
        """,
        "a.toml",
        """
        a.toml:3: 'base\\x00' is not a path: it has a NUL byte
        a.toml:3: include cycle: a.toml -> a.toml
        c.toml:1: include cycle: b.toml -> c.toml -> b.toml
        """,
        id="cycles",
    ),
    pytest.param(
        """
        -- a.toml
        include = ["b.toml"]

        [packages]
        arch = ["gcc"]
        -- b.toml
        packages.rhel = ["gcc"]
        -- c.toml
        # nothing
        -- d.toml
        include = ["a.toml"]
        packages.debian = []
        """,
        "d.toml c.toml",
        """
        a.toml:3: no packages for this host's family: [packages] has arch, rhel; add debian = [...]
        b.toml:1: no packages for this host's family: [packages] has rhel; add debian = [...]
        c.toml:1: no packages for this host's family: [packages] is empty; add debian = [...]
        """,
        id="lists without the host's family",
    ),
    pytest.param(
        """
        -- a.toml
        x = 1
        y =
        -- b.toml
        x = [
        -- c.toml
        x = 1
        x = 2
        """,
        "a.toml b.toml c.toml a.toml",
        """
        a.toml:2: not valid TOML: Invalid value
        b.toml:1: not valid TOML: Invalid value
        c.toml:2: not valid TOML: Cannot overwrite a value
        """,
        id="no TOML",
    ),
]


@pytest.mark.parametrize(("files", "whitelists", "expected"), BAD)
def test_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str, whitelists: str, expected: str
) -> None:
    """All problems of all lists are reported at once, each with file and line and a remedy."""
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError) as caught:
        load_policy(whitelists.split(), database=database())
    assert str(caught.value) == text(expected)
    assert exit_status(caught.value) == 2


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A whitelist is UTF-8; a blacklist may have any bytes, because paths may."""
    (tmp_path / "w.toml").write_bytes(b"packages.debian = []\n# \xe9\n")
    (tmp_path / "b.ignore").write_bytes(b"\xef\xbb\xbf/x\xff\r\n!\n[b-a]\nx\\\n/\n# \xff\n")
    with pytest.raises(PolicyError) as caught:
        load_policy([f"{tmp_path}/w.toml"], [f"{tmp_path}/b.ignore"], database=database())
    no_pattern = (
        "it is not a gitignore pattern; write a backslash as '\\\\', a name after '!', ranges upwards"
    )
    assert [str(each) for each in caught.value.problems] == [
        "w.toml:2: not UTF-8: byte 0xe9",
        f"b.ignore:2: bad pattern '!': {no_pattern}",
        f"b.ignore:3: bad pattern '[b-a]': {no_pattern}",
        f"b.ignore:4: bad pattern 'x\\\\': {no_pattern}",
        "b.ignore:5: bad pattern '/': it matches nothing",
    ]
    (tmp_path / "b.ignore").write_bytes(b"\xef\xbb\xbf/x\xff\r\n")
    policy = load_policy([], [f"{tmp_path}/b.ignore"], database=database())
    assert policy.drops == (Rule(pattern="/x\udcff", origin="b.ignore:1"),)


def test_nesting_that_exhausts_the_parser(tmp_path: Path) -> None:
    """A hostile list is a problem like any other, not a crash."""
    (tmp_path / "w.toml").write_text("x = " + "[" * 100_000 + "]" * 100_000, encoding="utf-8")
    with pytest.raises(PolicyError, match=r"^w\.toml:1: not "):
        load_policy([f"{tmp_path}/w.toml"], database=database())


def test_a_link_is_the_list_that_it_leads_to(tmp_path: Path) -> None:
    """A list is merged once, whatever names it is included by."""
    (tmp_path / "w.toml").write_text('packages.debian = ["gcc"]', encoding="utf-8")
    (tmp_path / "x.toml").symlink_to("w.toml")
    policy = load_policy([f"{tmp_path}/w.toml", f"{tmp_path}/x.toml"], database=database())
    assert policy.whitelists == ("w.toml",)


@pytest.mark.parametrize(
    ("own", "included", "beside", "expected"),
    [
        ("", "", "", (False, True)),
        ("", "recommends = true\nessential = false", "", (True, False)),
        ("recommends = false\nessential = true", "recommends = true\nessential = false", "", (False, True)),
        ("recommends = false\nessential = false", "", "essential = true", (False, True)),
        ("essential = false", "", "recommends = true", (True, False)),
    ],
)
def test_options(tmp_path: Path, own: str, included: str, beside: str, expected: tuple[bool, bool]) -> None:
    """A list's own option overrides its includes; of lists side by side, the wider option counts."""
    write(
        tmp_path,
        f'-- own.toml\ninclude = ["in.toml"]\npackages.debian = []\n[options]\n{own}\n'
        f"-- in.toml\npackages.debian = []\n[options]\n{included}\n"
        f"-- beside.toml\npackages.debian = []\n[options]\n{beside}\n",
    )
    names = [f"{tmp_path}/own.toml", f"{tmp_path}/beside.toml"]
    policy = load_policy(names, database=database())
    assert (policy.recommends, policy.essential) == expected
    for choice in (True, False):
        policy = load_policy(names, database=database(), recommends=choice, essential=not choice)
        assert (policy.recommends, policy.essential) == (choice, not choice)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./x.toml", "'./x.toml' is a path, and a shipped list may name only shipped lists"),
        (
            "mine",
            "unknown whitelist 'mine'; use one of base, build, fabric, gpu-amd, gpu-intel, gpu-nvidia, spack",
        ),
    ],
)
def test_a_shipped_list_names_no_file(name: str, message: str) -> None:
    """The meaning of a shipped list cannot depend on the user's files."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find(WHITELIST, name, None)


def test_the_nearest_packages_are_named(tmp_path: Path) -> None:
    """Several similar names are suggested, the most similar first."""
    (tmp_path / "w.toml").write_text('packages.debian = ["gfortra"]', encoding="utf-8")
    with pytest.raises(PolicyError, match=r"; did you mean 'gfortran' or 'gfortran-1'\?$"):
        load_policy([f"{tmp_path}/w.toml"], database=database("gfortran-1"))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"whitelists": ("x",), "blacklists": ("y",)}, True, id="names of lists"),
        pytest.param({"packages": (required("a", "moved:9"),)}, True, id="origins"),
        pytest.param({"packages": (required("b", "w:1"),)}, False, id="packages"),
        pytest.param({"packages": (), "includes": (Rule(pattern="a", origin=""),)}, False, id="which part"),
        pytest.param(
            {"drops": (Rule(pattern="*", origin=""), Rule(pattern="!\udcff", origin=""))}, False, id="!"
        ),
        pytest.param({"recommends": True}, False, id="recommends"),
        pytest.param({"essential": False}, False, id="essential"),
        pytest.param({"package_database": True}, True, id="package database, the default"),
        pytest.param({"package_database": False}, False, id="package database"),
    ],
)
def test_digest(change: dict[str, object], same: bool) -> None:  # noqa: FBT001
    """The digest changes with everything that the jail depends on, and with nothing else."""
    fields: dict[str, object] = {
        "whitelists": ("w",),
        "blacklists": (),
        "packages": (required("a", "w:1"),),
        "drops": (Rule(pattern="!\udcff", origin=""), Rule(pattern="*", origin="")),
    }
    before = policy_digest(Policy(**fields))  # type: ignore[arg-type]
    after = policy_digest(Policy(**{**fields, **change}))  # type: ignore[arg-type]
    assert re.fullmatch("sha256:[0-9a-f]{64}", before)
    assert (before == after) is same
