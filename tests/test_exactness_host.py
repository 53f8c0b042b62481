"""Exactness on the real host: random whitelists by random blacklists, every plan, each user."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pkgjail.api import build_manifest, collect_files, load_policy, open_database, resolve_closure
from tests.conftest import EXAMPLES
from tests.test_exactness import USERS, WAYS, promised, seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pkgjail.core.model import Manifest, PackageDatabase

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

# Of each sort of rule one at least. `{}` stands for a directory of packages.
_PATTERNS = (
    "*.py",
    "*.so*",
    "/usr/share/**",
    "/usr/lib/**/*a*",
    "/usr/bin/?[a-m]*",
    "!/usr/bin/",
    "/etc/*",
    "!/etc/alternatives/",
    "{}/",
    "{}/*",
    "!{}/",
)
_DIRECTORIES = (
    "/usr/share/perl5",
    "/usr/lib/python3*",
    "/usr/share/zoneinfo",
    "/usr/share/doc",
    "/usr/lib/git-core",
)
_RULES = st.lists(st.tuples(st.sampled_from(_PATTERNS), st.sampled_from(_DIRECTORIES)), max_size=5)


@pytest.fixture(scope="module")
def lists(spack_manifest: Manifest) -> tuple[PackageDatabase, list[str]]:
    """The host's database, and what a whitelist may name: all packages that the list `spack` brings in."""
    return open_database(b"/"), sorted({package.name for package in spack_manifest.packages})


def _resolve(
    database: PackageDatabase, packages: Sequence[str], rules: Sequence[tuple[str, str]]
) -> Manifest:
    with tempfile.TemporaryDirectory(prefix="pkgjail-lists-") as made:
        whitelist, blacklist = Path(made) / "w.toml", Path(made) / "b.ignore"
        whitelist.write_text(f"[packages]\ndebian = {list(packages)}\n[options]\nessential = false\n")
        blacklist.write_text("".join(pattern.format(place) + "\n" for pattern, place in rules))
        policy = load_policy([str(whitelist)], [str(blacklist)], database=database)
    closure = resolve_closure(database, policy)
    files = collect_files(database, closure, policy)
    return build_manifest(policy, "sha256:0", database.distribution, "amd64", closure, files)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("uid", USERS)
@settings(max_examples=EXAMPLES // (10 * len(WAYS) * len(USERS)), deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=3), _RULES)
def test_the_jail_of_any_lists_shows_their_manifest(
    lists: tuple[PackageDatabase, list[str]],
    uid: int,
    way: str,
    picked: list[int],
    rules: list[tuple[str, str]],
) -> None:
    """0 names too many, 0 missing, same kind, mode, content and link text as the host has."""
    database, packages = lists
    manifest = _resolve(database, [packages[number % len(packages)] for number in picked], rules)
    assert len(manifest.files) > 1
    assert seen(manifest, b"/", uid, way).splitlines() == promised(manifest, b"", uid)
