"""Changes of a copied directory, with a fault at any system call: no name is half changed, nothing is lost.

`make test` does it at the first and the last call of each kind, `make test-long` at every one.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pkgjail.machine.changes import KEPT
from tests.faults import Worker, faults
from tests.forking import BROKEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.gate  # what it asks is the kernel's to answer, not a Python's

BEFORE = {"a": "old a", "d/b": "old b", "gone": "old", "replaced/x": "old x"}
CHANGES = [
    ["f", "a", "new a", ""],
    ["d", "d", "", ""],
    ["f", "d/b", "new b", ""],
    ["f", "d/c", "new c", ""],
    ["x", "gone", "", ""],
    ["l", "link", "", "a"],
    ["d", "made", "", ""],
    ["f", "made/e", "new e", ""],
    ["f", "replaced", "new", ""],
]
AFTER = {path: content for kind, path, content, _ in CHANGES if kind == "f"}
STOPS = ("signal=SIGKILL", "signal=SIGINT", "error=ENOSPC", "error=EIO")


def make(place: Path) -> None:
    """Make the directory as it is copied."""
    shutil.rmtree(place, ignore_errors=True)
    for path, content in BEFORE.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(content)


def contents(place: Path) -> dict[str, str]:
    """Return the files and links of a directory, by path."""
    found = {}
    for folder, _, names in os.walk(place):
        for name in names:
            path = os.path.join(folder, name)
            short = os.path.relpath(path, place)
            found[short] = f"-> {os.readlink(path)}" if os.path.islink(path) else _read(path)
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize(
    "every", [pytest.param(False, id="some"), pytest.param(True, id="every", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("what", STOPS)
def test_a_fault_loses_nothing(
    tmp_path: Path, what: str, *, every: bool, record_property: Callable[[str, object], None]
) -> None:
    """Protects the directory: each name is as it was or as the guest has it; what is not there is beside."""
    place = tmp_path / "place"
    request = (str(place), CHANGES)
    met = []
    with Worker(tmp_path, "tests.copied_binds_worker") as worker:
        make(place)
        calls = worker.calls(request)
        assert contents(place) == {**AFTER, "link": "-> a"}
        for fault in faults(calls, what=what, every=every):
            make(place)
            done = worker.disturbed(request, fault)
            met.append(done.met)
            assert done.status != BROKEN, (fault, done.err)
            found = contents(place)
            beside = {path: text for path, text in found.items() if path.startswith(".pkgjail-")}
            there = {path: text for path, text in found.items() if path not in beside}
            kept = {path.partition("/")[2]: text for path, text in beside.items() if path.startswith(KEPT)}
            for path, text in there.items():
                assert text in (BEFORE.get(path), AFTER.get(path), "-> a"), (fault, path, text)
            if done.status == 0:
                assert (there, beside) == ({**AFTER, "link": "-> a"}, {}), (fault, done.err)
            elif there != BEFORE:
                lost = {path for path, text in AFTER.items() if text not in (there.get(path), kept.get(path))}
                assert lost == set(), (fault, done.err)
            if done.status > 0 and kept:
                assert KEPT in done.err, (fault, done.err)
    record_property("faults met", f"{sum(met)} of {len(met)}")
    assert sum(met) > len(met) // 2
