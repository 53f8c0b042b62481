"""The inputs of `make fuzz`, each read once: what was found by fuzzing is not found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.mutating import mutate
from tests.fuzz.targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = [
    pytest.param(target, path, id=f"{target}/{path.name}")
    for target in TARGETS
    for path in sorted((CORPUS / target).iterdir())
]


def test_every_target_has_inputs() -> None:
    """Protects from a corpus that is read by nobody, and from a target that begins with nothing."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


# Two backends are the distribution's own Python's.
@pytest.mark.gate
@pytest.mark.parametrize(("target", "path"), INPUTS)
def test_an_input_is_read_or_refused(target: str, path: Path) -> None:
    """Protects from what was found once, and each time in the same words."""
    data = path.read_bytes()
    inputs = [data, *(mutate(data, 1 << 14, seed) for seed in range(3))]
    said = [TARGETS[target](each) for each in inputs]
    assert said == [TARGETS[target](each) for each in inputs]


def test_a_change_is_the_same_each_time() -> None:
    """Protects that a finding is found again: by its seed a change is what it was."""
    data = b"a\nb\nc\n"
    changed = [mutate(data, 100, seed) for seed in range(200)]
    assert changed == [mutate(data, 100, seed) for seed in range(200)]
    assert len(set(changed)) > 100
    assert max(map(len, changed)) == 100
