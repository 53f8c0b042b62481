"""The ways to show a directory, side by side: what a layer takes to make, and a jail to be set up.

All in this process, from a manifest that is read already: what differs is the way alone.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.measure import Subject
from pkgjail import default_environment, prepare_jail, resolve
from pkgjail.core.model import JailOptions
from pkgjail.jail.layer_cache import Recipe, ensure_layer
from pkgjail.jail.strategies.data_overlay import make_data_layer
from pkgjail.jail.strategies.whiteout_overlay import make_whiteout_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import FileEntry, Manifest, StrategyName

RESOLVE = "resolve spack, unhashed, in process"
BINDS = "enter spack by binds"
_WAYS: tuple[StrategyName, ...] = ("binds", "whole", "mask", "tree")


def plan_subjects(place: Path) -> list[Subject]:
    """A layer of /usr for `spack`, made in an empty cache in `place`; and `true` in its jail, each way."""
    manifest = resolve(["spack"], hashed=False)
    mask = Recipe("mask", _usr(manifest), b"/", make_whiteout_layer)
    tree = Recipe("tree", _usr(manifest), b"/", make_data_layer)
    return [
        Subject(RESOLVE, partial(_timed, lambda: resolve(["spack"], hashed=False))),
        Subject("make the mask of /usr", partial(_layer, mask, place), RESOLVE),
        Subject("make the tree of /usr", partial(_layer, tree, place), RESOLVE),
        *(Subject(f"enter spack by {way}", _entering(manifest, way), BINDS) for way in _WAYS),
    ]


def _usr(manifest: Manifest) -> tuple[FileEntry, ...]:
    return tuple(e for e in manifest.files if e.path == b"/usr" or e.path.startswith(b"/usr/"))


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _layer(recipe: Recipe, place: Path) -> float:
    """Make a layer where none is, in memory as pkgjail keeps them; the seconds."""
    cache = Path(tempfile.mkdtemp(prefix="layers-", dir=place))
    try:
        return _timed(lambda: ensure_layer(recipe, cache))
    finally:
        shutil.rmtree(cache)


def _entering(manifest: Manifest, way: StrategyName) -> Callable[[], float]:
    jail = prepare_jail(manifest, JailOptions(plan=way, environment=default_environment()))
    return lambda: _timed(lambda: jail.run(["true"]))
