"""Differences between two manifests, by cause; the markdown fits a comment."""

from __future__ import annotations

import json
from dataclasses import replace
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail import diff_manifests, resolve, write_manifest
from pkgjail.backends import version_order
from pkgjail.cli.diff_text import MOST_CHARACTERS, markdown, text
from pkgjail.cli.main import main
from pkgjail.core.model import Distribution, Unmet
from tests.debian_roots import every_backend, make_root
from tests.manifest_strategies import manifests
from tests.manifest_text import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest

COMPARE = version_order(Distribution(id="debian", version="12"))
_PACKAGES = """
a 1
b 1
w.toml:1 -> a
a -> b
"""

# Each row: what it protects, the old files, the new ones, what differs: change, path (what): cause.
FILES = [
    ("nothing differs", "/etc/f 1 #x of a", "/etc/f 1 #x of a", ""),
    (
        "content that changed under the same version is the host's doing",
        "/usr/lib/f 1 #x of a",
        "/usr/lib/f 1 #y of a",
        "! /usr/lib/f (content): host a:amd64",
    ),
    (
        "a configuration file is the administrator's",
        "/etc/f 1 #x of a, conffile",
        "/etc/f 2 #y of a, conffile",
        "! /etc/f (content, size): configuration a:amd64",
    ),
    (
        "what a program generated",
        "/etc/cache 1 #x of a, generated: ldconfig",
        "/etc/cache 1 #y of a, generated: ldconfig",
        "! /etc/cache (content): generated ldconfig",
    ),
    (
        "another choice of an alternative",
        "/etc/alternatives/x -> /usr/bin/a of a, alternative: x",
        "/etc/alternatives/x -> /usr/bin/b of b, alternative: x",
        "! /etc/alternatives/x (target, owners): alternatives x",
    ),
    (
        "a rule that drops a path now, and the alternatives that led there",
        """
        /usr/man/a 1 of a
        /etc/alternatives/x -> /usr/man/a of a, alternative: x
        /usr/man/x -> /etc/alternatives/x of a, alternative: x
        """,
        "dropped /usr/man/a d.ignore:1: man",
        """
        - /etc/alternatives/x: blacklist d.ignore:1: man
        - /usr/man/a: blacklist d.ignore:1: man
        - /usr/man/x: blacklist d.ignore:1: man
        """,
    ),
    (
        "a rule that drops it no more",
        "dropped /usr/man/a d.ignore:1: man",
        "/usr/man/a 1 of a",
        "+ /usr/man/a: blacklist d.ignore:1: man",
    ),
    (
        "a line of a whitelist's files, under another policy",
        "",
        "/srv/x 1, include: w.toml:5",
        "+ /srv/x: whitelist w.toml:5",
    ),
    (
        "content of a file that a whitelist names is the host's",
        "/srv/x 1 #x, include: w.toml:5",
        "/srv/x 1 #y, include: w.toml:5",
        "! /srv/x (content): host",
    ),
    (
        "what the host lacked, and has now",
        "missing /usr/lib/f absent of a",
        "/usr/lib/f 1 of a",
        "+ /usr/lib/f: host a:amd64",
    ),
    (
        "and the other way round",
        "/usr/lib/f 1 of a",
        "missing /usr/lib/f absent of a",
        "- /usr/lib/f: host a:amd64",
    ),
    (
        "one manifest has no digests",
        "/usr/lib/f 1 of a",
        "/usr/lib/f 1 #x of a",
        "! /usr/lib/f (digest): digests",
    ),
    (
        "a file that is a link now",
        "/usr/lib/f 1 of a",
        "/usr/lib/f -> g of a",
        "! /usr/lib/f (type, size, mode, target): host a:amd64",
    ),
    ("what is made at entry", "", "/etc/passwd, entry: pkgjail", "+ /etc/passwd: pkgjail"),
]

# Each row: what it protects, both manifests whole, the packages and the files that differ.
WHOLE = [
    (
        "an upgrade and what came with it",
        """
        a 1
        w.toml:1 -> a
        /usr/bin/a 1 #x of a
        /usr/share/a/old 1 of a
        /usr/lib/pyc 1 #x of a, generated: compileall
        """,
        """
        a 2
        b 1
        w.toml:1 -> a
        a -> b [Depends] b (>= 1)
        /usr/bin/a 1 #y of a
        /usr/lib/pyc 1 #y of a, generated: compileall
        /usr/lib/b 5 of b
        """,
        """
        upgraded a:amd64 1 2
        added b:amd64  1 because a:amd64: b (>= 1)
        """,
        """
        ! /usr/bin/a (content): package a:amd64 upgraded
        + /usr/lib/b: package b:amd64 added
        ! /usr/lib/pyc (content): package a:amd64 upgraded
        - /usr/share/a/old: package a:amd64 upgraded
        """,
    ),
    (
        "a package that nobody asks for any more goes, for the line that is gone; a shared directory stays",
        """
        a 1
        b 2
        w.toml:1 -> a
        w.toml:2 -> b
        /usr/ of a,b
        /usr/bin/b 1 of b
        """,
        """
        a 1~rc1
        w.toml:1 -> a
        /usr/ of a
        """,
        """
        downgraded a:amd64 1 1~rc1
        removed b:amd64 2  because w.toml:2: b
        """,
        """
        ! /usr (owners): package a:amd64 downgraded
        - /usr/bin: pkgjail
        - /usr/bin/b: package b:amd64 removed
        """,
    ),
    (
        "content that changed while another package came to list the file is no upgrade's doing",
        """
        a 1
        w.toml:1 -> a
        /usr/f 1 #x of a
        """,
        """
        a 1
        b 1
        w.toml:1 -> a
        w.toml:2 -> b
        /usr/f 1 #y of a,b
        """,
        "added b:amd64  1 because w.toml:2: b",
        "! /usr/f (content, owners): host a:amd64",
    ),
    (
        "a file that moved from one package to another",
        """
        a 1
        w.toml:1 -> a
        /usr/f 1 #x of a
        """,
        """
        b 1
        w.toml:1 -> b
        /usr/f 1 #y of b
        """,
        """
        removed a:amd64 1  because w.toml:1: a
        added b:amd64  1 because w.toml:1: b
        """,
        "! /usr/f (content, owners): package b:amd64 added",
    ),
]


def _policy(manifest: Manifest, digit: str) -> Manifest:
    return replace(manifest, header=replace(manifest.header, policy=f"sha256:{digit * 64}"))


def _files(old: Manifest, new: Manifest, *, parents: bool = False) -> list[str]:
    """Return the differences of files as text, without directories that only lead to others."""
    signs = {"added": "+", "removed": "-", "changed": "!"}
    return [
        f"{signs[one.change]} {one.path.decode()}{' (' + ', '.join(one.what) + ')' if one.what else ''}: "
        f"{' '.join(filter(None, one.cause))}"
        for one in diff_manifests(old, new, compare=COMPARE).files
        if parents or one.cause.kind != "pkgjail" or not one.path.count(b"/") < 3
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in FILES], ids=[row[0] for row in FILES]
)
def test_causes_of_files(old: str, new: str, expected: str) -> None:
    """The same packages in both manifests, so that no version explains it."""
    above = "/usr/lib/\n/usr/man/\n/etc/\n/etc/alternatives/\n/srv/\n"
    before = _policy(manifest_of(_PACKAGES + above + dedent(old)), "0")
    after = _policy(manifest_of(_PACKAGES + above + dedent(new)), "1")
    assert _files(before, after, parents=True) == dedent(expected).strip().splitlines()


@pytest.mark.parametrize(
    ("old", "new", "packages", "files"), [row[1:] for row in WHOLE], ids=[row[0] for row in WHOLE]
)
def test_packages_and_their_files(old: str, new: str, packages: str, files: str) -> None:
    above = "/usr/bin/\n/usr/lib/\n/usr/share/a/\n" if "/usr/bin/a" in old else ""
    before, after = manifest_of(above + dedent(old)), manifest_of(above + dedent(new))
    found = [
        f"{one.change} {one.package} {one.old_version} {one.new_version}"
        + (f" because {one.because.source}: {one.because.text}" if one.because else "")
        for one in diff_manifests(before, after, compare=COMPARE).packages
    ]
    assert found == dedent(packages).strip().splitlines()
    assert _files(before, after, parents=True) == dedent(files).strip().splitlines()


@pytest.mark.parametrize("name", ["debian", "linuxmint", "fedora", "opensuse", "arch"])
def test_each_distribution_orders_versions_its_own_way(name: str) -> None:
    """By numbers and not by letters; a later epoch before all."""
    order = version_order(Distribution(id=name, version=""))
    assert order is not None
    assert order("1.9-1", "1.10-1") < 0 < order("1:1-1", "2-1")
    assert order("1-1", "1-1") == 0


def test_versions_without_an_order_are_only_changed() -> None:
    """No upgrade is claimed for a distribution whose order is not known, or for what is no version."""
    assert version_order(Distribution(id="void", version="", family="xbps")) is None
    old, new = manifest_of("a 1\nw:1 -> a"), manifest_of("a 2\nw:1 -> a")
    assert diff_manifests(old, new).packages[0].change == "changed"
    assert diff_manifests(old, manifest_of("a !\nw:1 -> a"), compare=COMPARE).packages[0].change == "changed"


@pytest.mark.slow
@settings(deadline=None)
@given(manifests(), manifests())
def test_rules_for_any_two(old: Manifest, new: Manifest) -> None:
    """Manifests with equal records are the same; each differing path is listed once; swapping mirrors."""
    there, back = diff_manifests(old, new), diff_manifests(new, old)
    assert there.same == (old == new) == back.same
    before, after = ({entry.path: entry for entry in m.files} for m in (old, new))
    differing = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    assert [change.path for change in there.files] == differing == [change.path for change in back.files]
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    assert [turned[change.change] for change in there.files] == [change.change for change in back.files]
    assert all(change.what for change in there.files if change.change == "changed")
    assert there.edges_added == back.edges_removed
    assert sum(len(changes) for _, changes in there.by_cause()) == len(differing)
    assert len(markdown(there)) <= MOST_CHARACTERS
    assert there.same or "\n".join(text(there, most=2))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1500), st.integers(0, 80), st.integers(1, 4000))
def test_markdown_fits_a_comment(names: int, rules: int, longest: int) -> None:
    """Whatever the number and the length of names; what is left out is counted."""
    new = "\n".join(
        f"/{'x' * (longest * i // max(names, 1))}{i} 1, include: w.toml:{i % 7}" for i in range(names)
    )
    old = "\n".join(f"dropped /d{i} d.ignore:{i}: {'é' * longest}" for i in range(rules))
    difference = diff_manifests(_policy(manifest_of(old), "1"), manifest_of(new))
    made = markdown(difference)
    assert len(made) <= len(made.encode()) <= MOST_CHARACTERS
    shown = sum(line.startswith("+ /") for line in made.splitlines())
    told = [line.split()[1] for line in made.splitlines() if line.endswith(" more left out")]
    assert made.count("````diff") == made.count("</details>")
    assert shown == names or told


# --- the command ------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As diff(1): no output and 0 for equal manifests, 1 if they differ, 2 for trouble."""
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    write_manifest(manifest_of(WHOLE[0][1]), old)
    gap = Unmet(source="b:amd64", kind="Depends", text="gone", reason="not installed")
    write_manifest(replace(manifest_of(WHOLE[0][2], blacklists=["docs"]), unmet=(gap,)), new)
    assert main(["diff", str(old), str(old)]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["diff", str(old), str(new)]) == 1
    out = capsys.readouterr().out
    for line in (
        "settings\n  blacklists: '' -> 'docs'",
        "packages: 1 added\n  + b:amd64 1 added, +5 bytes; a:amd64: Depends b (>= 1)",
        "packages: 1 upgraded\n  ! a:amd64 1 -> 2 upgraded, -1 byte",
        "by package a:amd64 upgraded\n  ! /usr/bin/a (content)",
        "consequences (--all lists them)\n  dependencies: 0 removed, 1 added\n",
        "unmet requirements\n  + b:amd64: gone",
    ):
        assert line in out
    assert main(["diff", "--all", str(old), str(new)]) == 1
    out = capsys.readouterr().out
    assert "  dependencies: 0 removed, 1 added\n    + a:amd64: Depends b (>= 1) -> b:amd64" in out
    assert main(["diff", str(old), "/no/such"]) == 2
    assert "No such file" in capsys.readouterr().err


def test_one_added_package_comes_first() -> None:
    """Protects the answer from its consequences: owners of shared directories, rules, a digest."""
    old = manifest_of("a 1\nw:1 -> a\n/usr/ of a\n/usr/a 1 of a")
    new = manifest_of(
        "a 1\nb 2\nw:1 -> a\nw:2 -> b [whitelist] b\nb -> a\n/usr/ of a,b\n/usr/a 1 of a\n/usr/b 5 of b\n"
        "dropped /usr/share/doc/b docs.ignore:1: doc"
    )
    difference = diff_manifests(_policy(old, "1"), _policy(new, "2"), compare=COMPARE)
    assert list(text(difference, most=10)) == [
        "packages: 1 added",
        "  + b:amd64 2 added, +5 bytes; w:2: whitelist b",
        "",
        "names: 1 added by package b:amd64 added",
        "  + /usr/b",
        "",
        "consequences (--all lists them)",
        "  names with other owners: 1 by package b:amd64 added",
        "  dependencies: 0 removed, 2 added",
        "  dropped names: 0 -> 1, by 1 rule",
        "  the policy's digest",
        "",
        "old: 1 package, 2 names, 1 byte; 0 dropped, 0 missing",
        "new: 2 packages, 3 names, 6 bytes; 1 dropped, 0 missing",
    ]
    back = list(text(diff_manifests(new, old), most=10))
    assert back[:2] == ["packages: 1 removed", "  - b:amd64 2 removed, -5 bytes; w:2: whitelist b"]


def test_packages_that_came_are_before_other_versions() -> None:
    """Whatever their names; a requirement between two packages that stay is no consequence."""
    old = manifest_of("a 1\nc 1\nd 1\nw:1 -> a\nw:2 -> c\nw:3 -> d\na -> c")
    new = manifest_of("a 2\nb 1\nc 1\nw:1 -> a\nw:2 -> c\nw:1 -> b")
    rows = list(text(diff_manifests(old, new, compare=COMPARE), most=10))
    assert rows[:8] == [
        "packages: 1 added, 1 removed",
        "  + b:amd64 1 added, same size; w:1: whitelist b",
        "  - d:amd64 1 removed, same size; w:3: whitelist d",
        "",
        "packages: 1 upgraded",
        "  ! a:amd64 1 -> 2 upgraded, same size",
        "",
        "dependencies: 1 removed, 0 added",
    ]


def test_json_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    write_manifest(manifest_of(WHOLE[0][1]), old)
    write_manifest(manifest_of(WHOLE[0][2]), new)
    assert main(["diff", "--json", str(old), str(new)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["change"] for row in told["packages"]] == ["upgraded", "added"]
    assert told["files"][0] == {
        "path": "/usr/bin/a",
        "change": "changed",
        "what": ["content"],
        "cause": "package",
        "detail": "a:amd64 upgraded",
        "old_bytes": 1,
        "new_bytes": 1,
    }
    assert main(["diff", "--format", "markdown", str(old), str(new)]) == 1
    out = capsys.readouterr().out
    assert "<summary>packages: 1 added</summary>\n\n````diff\n+ b:amd64 1 added" in out
    assert "<summary>packages: 1 upgraded</summary>\n\n````diff\n! a:amd64 1 -> 2" in out
    assert main(["diff", "--format", "markdown", str(old), str(old)]) == 0
    assert capsys.readouterr().out == "The manifests are the same.\n"


@every_backend
def test_an_upgrade_on_a_root(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From dpkg's records and files to the words: the package, its files, and what is drift besides."""
    whitelist = tmp_path / "w.toml"
    whitelist.write_text('[packages]\ndebian = ["hello"]\n')
    lists = {"var/lib/dpkg/info/libgreet.list": "/.\n/usr\n/usr/lib\n/usr/lib/libgreet.so\n"}
    written = []
    for version, content, also in (("1.9-1", "one", "same"), ("1.10-1", "two", "touched")):
        root = tmp_path / version
        owned = f"/.\n/usr\n/usr/bin\n/usr/bin/hello\n/usr/bin/hello-{version}\n"
        files = {
            "etc/os-release": "ID=debian\nVERSION_ID=12\n",
            "usr/bin/hello": content,
            f"usr/bin/hello-{version}": "x",
            "usr/lib/libgreet.so": also,
            "var/lib/dpkg/info/hello.list": owned,
            **lists,
        }
        lines = (f"hello {version} amd64; Depends: libgreet", "libgreet 3 amd64")
        manifest = resolve([str(whitelist)], root=make_root(root, *lines, files=files), backend=backend)
        written.append(str(tmp_path / f"{version}.jsonl"))
        write_manifest(manifest, written[-1])
    assert main(["diff", *written]) == 1
    out = capsys.readouterr().out
    assert "packages: 1 upgraded\n  ! hello:amd64 1.9-1 -> 1.10-1 upgraded" in out
    assert (
        "1 added, 1 changed, 1 removed by package hello:amd64 upgraded\n  ! /usr/bin/hello (content)\n" in out
    )
    assert "by the host alone (drift): libgreet:amd64\n  ! /usr/lib/libgreet.so (content, size)" in out
