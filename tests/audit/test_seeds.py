"""The seeds: an audit finds what each build wants of its host, and whose package that is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.audit.run import run_audited
from pkgjail.audit.wanted import wanted
from pkgjail.core.text import text_path
from tests.audit.seed_root import PACKAGES, UNOWNED, seed_root
from tests.audit.seed_runs import copy_of_build, manifest_of, options_of, possible_seeds, run_seed
from tests.audit.seeds import BUILDS, COMMAND, SEEDS, Seed

if TYPE_CHECKING:
    from pathlib import Path


def names(seed: Seed) -> str:
    return f"{seed.name}:{seed.path.rpartition('/')[2]}"


def test_seeds_and_their_builds_and_packages_agree() -> None:
    """Protects the measure from a build that no seed runs, and a seed that wants what its package lacks."""
    assert {seed.name for seed in SEEDS} == {build.name for build in BUILDS.iterdir()}
    for seed in SEEDS:
        files = PACKAGES[seed.package] if seed.package else UNOWNED
        assert [
            path
            for path in files
            if f"{seed.path}/".startswith(f"{path}/") or path.startswith(f"{seed.path}/")
        ]
        assert set(seed.lists) <= PACKAGES.keys()


@pytest.mark.long
@pytest.mark.parametrize("seed", possible_seeds(), ids=names)
def test_what_a_seed_wants_changes_its_output_or_does_not(seed: Seed, tmp_path: Path) -> None:
    """Protects the measure of influence: each seed is what it says that it is."""
    without, with_it = (run_seed(seed, tmp_path, whole=whole) for whole in (False, True))
    assert without
    assert (without != with_it) == seed.influences


@pytest.mark.long
@pytest.mark.parametrize("seed", possible_seeds(), ids=names)
def test_an_audit_finds_what_a_seed_wants_and_whose_it_is(seed: Seed, tmp_path: Path) -> None:
    """Protects that nothing that a build wants of its host is overlooked, or said to be another package's."""
    options, manifest = options_of(copy_of_build(seed, tmp_path)), manifest_of(seed, tmp_path)
    audit = run_audited(manifest, COMMAND, options, root=os.fsencode(seed_root()))
    found = {each.package.partition(":")[0]: each.look_ups for each in wanted(audit)}
    assert seed.package in found
    assert found.keys() <= {other.package for other in SEEDS if other.name == seed.name}
    paths = [text_path(look_up.path) for look_up in found[seed.package]]
    assert [path for path in paths if f"{path}/".startswith(f"{seed.path}/")]
