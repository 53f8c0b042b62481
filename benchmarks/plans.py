"""Compare the strategies: the time to make a layer, and to enter a jail.

Everything runs in this process with the same manifest, so that only the strategy differs.
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
from pkgjail.core.options import JailOptions
from pkgjail.jails.layer_cache import Recipe, ensure_layer
from pkgjail.jails.strategies.data_overlay import make_data_layer
from pkgjail.jails.strategies.whiteout_overlay import make_whiteout_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkgjail.core.model import FileEntry, Manifest, StrategyName

RESOLVE = "resolve spack, unhashed, in process"
BINDS = "enter spack by binds"
_STRATEGIES: tuple[StrategyName, ...] = ("binds", "whole", "mask", "tree")


def plan_subjects(place: Path) -> list[Subject]:
    """Return making each layer of /usr for `spack` in `place`, and `true` in its jail by each strategy."""
    manifest = resolve(["spack"], hashed=False)
    whiteouts = Recipe("mask", _usr(manifest), b"/", make_whiteout_layer)
    data = Recipe("tree", _usr(manifest), b"/", make_data_layer)
    return [
        Subject(RESOLVE, partial(_timed, lambda: resolve(["spack"], hashed=False))),
        Subject("make the whiteout overlay of /usr", partial(_layer, whiteouts, place), RESOLVE),
        Subject("make the data overlay of /usr", partial(_layer, data, place), RESOLVE),
        *(
            Subject(f"enter spack by {strategy}", _entering(manifest, strategy), BINDS)
            for strategy in _STRATEGIES
        ),
    ]


def _usr(manifest: Manifest) -> tuple[FileEntry, ...]:
    return tuple(e for e in manifest.files if e.path == b"/usr" or e.path.startswith(b"/usr/"))


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _layer(recipe: Recipe, place: Path) -> float:
    """Return the seconds to make a layer in an empty layer cache, in memory as always."""
    cache = Path(tempfile.mkdtemp(prefix="layers-", dir=place))
    try:
        return _timed(lambda: ensure_layer(recipe, cache))
    finally:
        shutil.rmtree(cache)


def _entering(manifest: Manifest, strategy: StrategyName) -> Callable[[], float]:
    jail = prepare_jail(manifest, JailOptions(plan=strategy, environment=default_environment()))
    return lambda: _timed(lambda: jail.run(["true"]))
