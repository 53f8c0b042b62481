"""The packages that satisfy a requirement, and the explanation if none does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.backends import open_database
from tests.debian_roots import every_backend, keys, make_root, relation

if TYPE_CHECKING:
    from pathlib import Path

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
        "providers by name",
        [
            "z 1 amd64; Provides: v",
            "a-b 1 amd64; Provides: v",
            "a1 1 amd64; Provides: v",
            "a 1 amd64; Provides: v",
        ],
        "v",
        "amd64",
        "a:amd64 a-b:amd64 a1:amd64 z:amd64",
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
    """Protects dpkg's rules for the packages that satisfy a relation (depcon.c, Policy 7.5)."""
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
def test_unmet_reason(backend: str, packages: list[str], text: str, expected: str, tmp_path: Path) -> None:
    """Protects that a user reads why a requirement fails, and what to do."""
    root = make_root(tmp_path, *packages)
    database = open_database(root, backend)
    assert keys(database.candidates(relation(text), "amd64")) == ""
    said = database.unmet_reason(relation(text), "amd64")
    assert said.replace(os.fsdecode(root), "ROOT") == expected
