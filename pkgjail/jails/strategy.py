"""Choose the strategy for each top directory of a manifest: an overlay, or bind mounts.

In order of preference, the first that works on this host, directory by directory:

    tree    a data overlay (`pkgjail.jails.strategies.data_overlay`): one mount, closed to later names
    mask    a whiteout overlay (`pkgjail.jails.strategies.whiteout_overlay`): one mount, open to names that
            come while the jail runs
    whole   directory binds (`pkgjail.jails.strategies.directory_binds`): one mount for each directory that
            has nothing else, open in the same way
    binds   file binds (`pkgjail.jails.strategies.file_binds`): one mount per file, closed to later names

A directory with few names is shown by `binds`, which is as quick and closed, unless `whole` is requested by
name. A directory with a few hundred names (`/etc`) falls back to `binds` if it cannot have the requested
strategy: no overlay can show another mount. For a larger directory that is an error. With files that are
made at entry, such a directory has no whiteout overlay: `binds` is closed, and people change files there, so
that the layer would be made again and again.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pkgjail.core.errors import JailError, os_error_text
from pkgjail.core.jail_names import KERNEL_DIRECTORIES, TMP
from pkgjail.core.model import record
from pkgjail.core.parameters import parameter
from pkgjail.core.text import text_path
from pkgjail.jails.layer_cache import Recipe, ensure_layer
from pkgjail.jails.probe import TEMPORARY_ERRORS, mounts_left, probe_obstacle
from pkgjail.jails.strategies.data_overlay import data_layer_fits, data_overlay_obstacle, make_data_layer
from pkgjail.jails.strategies.directory_binds import directory_bind_steps
from pkgjail.jails.strategies.whiteout_overlay import make_whiteout_layer, whiteout_overlay_obstacle
from pkgjail.jails.user_binds import new_mount_points
from pkgjail.sandbox.steps import HostFile, MaskedOverlay, Overlay, WholeDirectory
from pkgjail.storage.fingerprint import PACKAGE_DATABASES, take_settled_fingerprint
from pkgjail.storage.locations import runtime_directory
from pkgjail.storage.mounts import mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.model import FileEntry, Manifest, PlanOption, StrategyName
    from pkgjail.core.options import JailOptions
    from pkgjail.sandbox.steps import Plan, Step

    State = tuple[bytes, int, int, int, int]
    # Why the strategy does not work, or "", its steps, and the states of the directories it depends on.
    Outcome = tuple[str, Mapping[bytes, Step], tuple[State, ...]]

# What "auto" tries, before file binds.
_PREFERENCE: tuple[StrategyName, ...] = ("tree", "mask", "whole")
# Below this many names, a mount for each file is as quick.
_LEAST_NAMES = 100
# From this many names on, file binds are no substitute for the requested strategy.
_MANY_NAMES = 500
# The mounts of every jail: its root twice, proc and what covers its parts, sys, devices, scratch.
_OWN_MOUNTS = 50
_AUTO: Final = "plan='auto'"


@record
class Choice:
    """The strategy for the top directory `top`.

    `tried` has each strategy that was tried, with "" or why it does not work; `why` is the reason if none had
    to be tried. `steps` show a directory and all below it, as `plan_jail` takes them. `observed` are the
    states of the directories that they depend on, the host's and the layer's: once one has changed, choose
    again. A choice is not `lasting` if a better strategy failed for a reason that may be temporary.
    """

    top: bytes
    strategy: StrategyName
    steps: Mapping[bytes, Step]
    why: str = ""
    tried: tuple[tuple[StrategyName, str], ...] = ()
    observed: tuple[State, ...] = ()
    lasting: bool = True


@record
class _TopDirectory:
    """A top directory of a manifest: its entries by path, itself first.

    `mounts` are those below it on the host, `mount_points` those that the user's binds need in it.
    """

    entries: Sequence[FileEntry]
    root: bytes
    mounts: Sequence[bytes]
    mount_points: Sequence[bytes]
    thorough: bool = False
    user_namespace: bool = True

    @property
    def path(self) -> bytes:
        """Return the path of the directory in the jail."""
        return self.entries[0].path

    @property
    def on_host(self) -> bytes:
        """Return the path of the directory on the host."""
        return self.root.rstrip(b"/") + self.path


def choose_strategies(
    manifest: Manifest, options: JailOptions, root: bytes, *, thorough: bool = False
) -> tuple[Choice, ...]:
    """Choose a strategy for each top directory, and make the layers that it needs. Takes no privilege.

    Args:
        manifest: what the jail has.
        options: `plan` names the requested strategy; no overlay can have new mount points of the binds.
        root: the directory of the manifest's files, a real path.
        thorough: check every name of layers that exist already; see `pkgjail.jails.layer_cache`.

    Raises:
        JailError: the requested strategy does not work for a directory.

    """
    mount_points = new_mount_points(manifest, options)
    return tuple(
        _choose(
            _TopDirectory(
                entries=entries,
                root=root,
                mounts=mounts_below(root.rstrip(b"/") + top),
                mount_points=[path for path in mount_points if path.startswith(top + b"/")],
                thorough=thorough,
                user_namespace=options.user_namespace,
            ),
            options.plan,
        )
        for top, entries in _top_directories(manifest).items()
    )


def steps_by_directory(choices: Sequence[Choice]) -> dict[bytes, Step]:
    """Return all steps of the choices, as `pkgjail.jails.plan.plan_jail` takes them."""
    return {path: step for choice in choices for path, step in choice.steps.items()}


def refuse_too_many_mounts(plan: Plan) -> None:
    """Refuse a plan of more mounts than the kernel allows. Raises `JailError`."""
    count = sum(1 for step in plan.steps if isinstance(step, (HostFile, WholeDirectory)))
    if count + _OWN_MOUNTS > (left := mounts_left()):
        raise JailError(
            f"cannot make a jail of {count:,} bind mounts: this host allows {max(left - _OWN_MOUNTS, 0):,} "
            "more (fs.mount-max); use {parameter(_AUTO)}, or as root: sysctl -w fs.mount-max=1000000"
        )


def _top_directories(manifest: Manifest) -> dict[bytes, tuple[FileEntry, ...]]:
    """Return the entries of each directory that gets a strategy of its own, itself first.

    If little else is in /var, these are also the directories of package databases. With an overlay of
    their own they need not be shown by hundreds of file binds, and the rest of /var can be shown by these.
    """
    tops: dict[bytes, list[FileEntry]] = {}
    for entry in manifest.files:
        tops.setdefault(b"/" + entry.path.split(b"/", 2)[1], []).append(entry)
    for directory in PACKAGE_DATABASES:
        top = b"/" + directory.split(b"/", 2)[1]
        inside = [entry for entry in tops.get(top, ()) if entry.path.startswith(directory)]
        if inside and len(tops[top]) - len(inside) < _LEAST_NAMES:
            own = directory.rstrip(b"/")
            tops[own] = [entry for entry in tops[top] if (entry.path + b"/").startswith(directory)]
            tops[top] = [entry for entry in tops[top] if not entry.path.startswith(directory)]
    return {
        top: tuple(entries)
        for top, entries in tops.items()
        if top not in (b"/", *KERNEL_DIRECTORIES, TMP)
        and entries[0].path == top
        and entries[0].kind == "directory"
    }


def _choose(top: _TopDirectory, plan: PlanOption) -> Choice:
    if plan == "binds":
        return _file_binds(top, "asked for")
    if plan != "whole" and len(top.entries) < _LEAST_NAMES:
        return _file_binds(top, f"fewer than {_LEAST_NAMES} names, for which a bind per file is as quick")
    tried: list[tuple[StrategyName, str]] = []
    lasting = True
    for strategy in _PREFERENCE if plan == "auto" else (plan,):
        try:
            obstacle, steps, observed = _STRATEGIES[strategy](top)
        except OSError as error:  # for example, the runtime directory is full
            obstacle, steps, observed = os_error_text(error, runtime_directory()), {}, ()
            lasting = lasting and error.errno not in TEMPORARY_ERRORS
        tried.append((strategy, obstacle))
        if not obstacle:
            return Choice(
                top=top.path,
                strategy=strategy,
                tried=tuple(tried),
                steps=steps,
                observed=observed,
                lasting=lasting,
            )
    if plan in ("auto", "whole") or len(top.entries) < _MANY_NAMES:
        return replace(_file_binds(top, ""), tried=tuple(tried), lasting=lasting)
    raise JailError(
        f"cannot use the plan '{plan}' for {text_path(top.path)}: {tried[-1][1]}; "
        f"use {parameter(_AUTO)} or 'binds'"
    )


def _file_binds(top: _TopDirectory, why: str) -> Choice:
    return Choice(top=top.path, strategy="binds", why=why, steps={})


class _OverlayStrategy(NamedTuple):
    """A strategy that shows a directory by an overlay over a layer.

    `obstacle` gives why it cannot show entries, and `step` makes the step from the top directory and the
    layer's path. `make` and `fits` are as `pkgjail.jails.layer_cache.Recipe` has them.
    """

    name: StrategyName
    obstacle: Callable[[Sequence[FileEntry]], str]
    make: Callable[[bytes, Sequence[FileEntry], bytes], None]
    step: Callable[[bytes, bytes], Step]
    fits: Callable[[bytes, Sequence[FileEntry], bytes], bool] | None = None

    def attempt(self, top: _TopDirectory) -> Outcome:
        """Make the layer and the step, or find out why there can be no overlay."""
        obstacle = self.obstacle(top.entries)
        if top.mounts:
            obstacle = f"{text_path(top.mounts[0])} is a mount of its own"
        elif top.mount_points:
            obstacle = f"a bind needs a new mount point there: {text_path(top.mount_points[0])}"
        obstacle = obstacle or _probed(self.name, top, top.on_host, _sample(top))
        if obstacle:
            return obstacle, {}, ()
        recipe = Recipe(self.name, top.entries, top.root, self.make, self.fits)
        layer = ensure_layer(recipe, Path(runtime_directory()).resolve(), thorough=top.thorough)
        return "", {top.path: self.step(top.path, layer.path)}, layer.observed


def _probed(strategy: StrategyName, top: _TopDirectory, directory: bytes, sample: bytes | None = None) -> str:
    cache = Path(runtime_directory())
    return probe_obstacle(strategy, directory, cache, sample, user_namespace=top.user_namespace)


def _sample(top: _TopDirectory) -> bytes | None:
    """Return a regular file with content that all may read, relative to the top directory."""
    for entry in top.entries:
        if entry.kind == "regular" and entry.size and entry.mode & 0o004:
            return entry.path[len(top.path) + 1 :]
    return None


def _attempt_directory_binds(top: _TopDirectory) -> Outcome:
    """Make the steps for directory binds, or find out why no directory can have one."""
    prefix = top.root.rstrip(b"/")
    paths = [prefix + e.path for e in top.entries if e.kind == "directory"]
    observed = take_settled_fingerprint(filter(os.path.lexists, paths))
    mounts = [mount[len(prefix) :] for mount in top.mounts]
    steps = directory_bind_steps(top.entries, top.root, (*mounts, *top.mount_points))
    if not steps:
        return "the host has something else in every directory", {}, ()
    if obstacle := _probed("whole", top, prefix + next(iter(steps))):
        return obstacle, {}, ()
    return "", steps, observed


def _whiteout_overlay_obstacle(entries: Sequence[FileEntry]) -> str:
    made = next((entry for entry in entries if entry.origin == "entry"), None)
    if made is not None and len(entries) < _MANY_NAMES:
        return f"{text_path(made.path)} is made at entry, and a bind per file is closed to later names"
    return whiteout_overlay_obstacle(entries)


_STRATEGIES: dict[StrategyName, Callable[[_TopDirectory], Outcome]] = {
    "tree": _OverlayStrategy(
        "tree", data_overlay_obstacle, make_data_layer, Overlay, data_layer_fits
    ).attempt,
    "mask": _OverlayStrategy("mask", _whiteout_overlay_obstacle, make_whiteout_layer, MaskedOverlay).attempt,
    "whole": _attempt_directory_binds,
}
