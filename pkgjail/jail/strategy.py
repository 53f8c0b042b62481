"""Which way each top directory of a manifest is shown, and why: an overlay, or bind mounts.

In order of preference, the first that this host can, directory by directory:

    tree    a data overlay (`pkgjail.jail.strategies.data_overlay`): one mount, closed to later names
    mask    a whiteout overlay (`pkgjail.jail.strategies.whiteout_overlay`): one mount, open to names that
            come while it runs
    whole   binds of whole directories that have nothing else (`pkgjail.jail.strategies.directory_binds`):
            open likewise
    binds   a bind a file: closed to later names

A directory of few names is shown by `binds`, which is as quick and closed, unless `whole` is asked for by
name. So is one of a few hundred (`/etc`) that cannot be had as asked for: with files made at entry as a mask,
which is the same for every entry; with another mount in it. A larger one is refused then.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.core.errors import JailError, told
from pkgjail.core.model import record, text_path
from pkgjail.jail.layer_cache import Recipe, ensure
from pkgjail.jail.plan import new_mount_points
from pkgjail.jail.probe import PASSING, mounts_left, why_not
from pkgjail.jail.strategies.data_overlay import make_tree, tree_fits, why_no_tree
from pkgjail.jail.strategies.directory_binds import whole_directories
from pkgjail.jail.strategies.whiteout_overlay import make_mask, why_no_mask
from pkgjail.sandbox.steps import HostFile, MaskedOverlay, Overlay, WholeDirectory
from pkgjail.storage.cache import tree_directory
from pkgjail.storage.fingerprint import mounts_below, observe_settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pkgjail.core.model import FileEntry, JailOptions, Manifest, PlanOption, StrategyName
    from pkgjail.sandbox.steps import Plan, Step

    State = tuple[bytes, int, int, int, int]
    # Why not, or "", the steps and what they rely on.
    Answer = tuple[str, Mapping[bytes, Step], tuple[State, ...]]

# What "auto" looks at, before a bind a file.
_ORDER: tuple[StrategyName, ...] = ("tree", "mask", "whole")
# A mount for each file is as quick below this many names.
_WORTH_IT = 100
# Binds stand in for the way that was asked for below this many, and are refused from it on.
_LARGE = 500
# What the jail has of its own, and what is mounted around it: its root twice, proc and what covers its
# parts, sys, devices, scratch.
_OWN = (b"/", b"/dev", b"/proc", b"/sys", b"/tmp")
_OWN_MOUNTS = 50


@record
class Choice:
    """How the top directory `top` is shown.

    `tried` has each way that was looked at, with "" or
    why it is not taken; `why` says so where nothing had to be tried. `instead` are the steps that show
    a directory and all below it, as `plan_jail` takes them. `observed` are the states of
    the directories that they rest on, of the host's and of the layer: once one has changed, choose again.
    A choice that is not `lasting` is a makeshift: a better way failed for what may pass.
    """

    top: bytes
    way: StrategyName
    instead: Mapping[bytes, Step]
    why: str = ""
    tried: tuple[tuple[StrategyName, str], ...] = ()
    observed: tuple[State, ...] = ()
    lasting: bool = True


@record
class _Subject:
    """A top directory: its entries by path, itself first, and what stands apart in it."""

    entries: Sequence[FileEntry]
    root: bytes
    mounts: Sequence[bytes]
    places: Sequence[bytes]
    thorough: bool = False

    @property
    def top(self) -> bytes:
        return self.entries[0].path

    @property
    def on_host(self) -> bytes:
        return self.root.rstrip(b"/") + self.top


def choose(
    manifest: Manifest, options: JailOptions, root: bytes, *, thorough: bool = False
) -> tuple[Choice, ...]:
    """Choose for each top directory, and make the layers that it takes. Needs no privilege.

    Args:
        manifest: what the jail holds.
        options: `plan` says which way is wanted; in the binds' new mount points no overlay can be.
        root: where the files of the manifest are, a real path.
        thorough: look at every name of the layers that are there; see `pkgjail.jail.layer_cache`.

    Raises:
        JailError: the way that is wanted cannot be had for a directory.

    """
    places = new_mount_points(manifest, options)
    return tuple(
        _choose(
            _Subject(
                entries=entries,
                root=root,
                mounts=mounts_below(root.rstrip(b"/") + top),
                places=[place for place in places if place.startswith(top + b"/")],
                thorough=thorough,
            ),
            options.plan,
        )
        for top, entries in _tops(manifest).items()
    )


def instead_of_binds(choices: Sequence[Choice]) -> dict[bytes, Step]:
    """All steps of the choices, as `pkgjail.jail.plan.plan_jail` takes them."""
    return {path: step for choice in choices for path, step in choice.instead.items()}


def refuse_too_many(plan: Plan) -> None:
    """Refuse a plan of more mounts than the kernel allows. Raises `JailError`."""
    wanted = sum(1 for step in plan.steps if isinstance(step, (HostFile, WholeDirectory)))
    if wanted + _OWN_MOUNTS > (left := mounts_left()):
        raise JailError(
            f"cannot make a jail of {wanted:,} bind mounts: this host allows {max(left - _OWN_MOUNTS, 0):,} "
            "more (fs.mount-max); use '--plan auto', or as root: sysctl -w fs.mount-max=1000000"
        )


def _tops(manifest: Manifest) -> dict[bytes, tuple[FileEntry, ...]]:
    tops: dict[bytes, list[FileEntry]] = {}
    for entry in manifest.files:
        tops.setdefault(b"/" + entry.path.split(b"/", 2)[1], []).append(entry)
    return {
        top: tuple(entries)
        for top, entries in tops.items()
        if top not in _OWN and entries[0].path == top and entries[0].kind == "directory"
    }


def _choose(subject: _Subject, plan: PlanOption) -> Choice:
    ways = _ORDER if plan == "auto" else (plan,)
    if plan == "binds":
        return _binds(subject, "asked for")
    if plan != "whole" and len(subject.entries) < _WORTH_IT:
        return _binds(subject, f"fewer than {_WORTH_IT} names, for which a bind a file is as quick")
    tried: list[tuple[StrategyName, str]] = []
    lasting = True
    for way in ways:
        try:
            answer, instead, observed = _WAYS[way](subject)
        except OSError as error:  # a runtime directory that is full, say
            answer, instead, observed = told(error, tree_directory()), {}, ()
            lasting = lasting and error.errno not in PASSING
        tried.append((way, answer))
        if not answer:
            return Choice(
                top=subject.top,
                way=way,
                tried=tuple(tried),
                instead=instead,
                observed=observed,
                lasting=lasting,
            )
    if plan in ("auto", "whole") or len(subject.entries) < _LARGE:
        return replace(_binds(subject, ""), tried=tuple(tried), lasting=lasting)
    raise JailError(
        f"cannot use the plan '{plan}' for {text_path(subject.top)}: {tried[-1][1]}; "
        "use '--plan auto' or 'binds'"
    )


def _binds(subject: _Subject, why: str) -> Choice:
    return Choice(top=subject.top, way="binds", why=why, instead={})


class _Overlay(NamedTuple):
    """One way to show a directory by an overlay.

    `why_no` says why it cannot show entries, and `step` makes the step from the top and the layer's path.
    `make` and `fits` are as `pkgjail.jail.layer_cache.Recipe` has them.
    """

    way: StrategyName
    why_no: Callable[[Sequence[FileEntry]], str]
    make: Callable[[bytes, Sequence[FileEntry], bytes], None]
    step: Callable[[bytes, bytes], Step]
    fits: Callable[[bytes, Sequence[FileEntry], bytes], bool] | None = None

    def answer(self, subject: _Subject) -> Answer:
        """Why there can be no overlay, or the step for it."""
        answer = self.why_no(subject.entries)
        if subject.mounts:
            answer = f"{text_path(subject.mounts[0])} is a mount of its own"
        elif subject.places:
            answer = f"a bind needs a new mount point there: {text_path(subject.places[0])}"
        answer = answer or why_not(self.way, subject.on_host, tree_directory(), _sample(subject))
        if answer:
            return answer, {}, ()
        recipe = Recipe(self.way, subject.entries, subject.root, self.make, self.fits)
        layer = ensure(recipe, tree_directory().resolve(), thorough=subject.thorough)
        return "", {subject.top: self.step(subject.top, layer.path)}, layer.observed


def _sample(subject: _Subject) -> bytes | None:
    """A regular file with content that all may read, relative to the top directory."""
    for entry in subject.entries:
        if entry.kind == "regular" and entry.size and entry.mode & 0o004:
            return entry.path[len(subject.top) + 1 :]
    return None


def _whole(subject: _Subject) -> Answer:
    """Why no directory can be bound whole, or the steps for those that can."""
    prefix = subject.root.rstrip(b"/")
    paths = [prefix + e.path for e in subject.entries if e.kind == "directory"]
    observed = observe_settled(filter(os.path.lexists, paths))
    mounts = [mount[len(prefix) :] for mount in subject.mounts]
    steps = whole_directories(subject.entries, subject.root, (*mounts, *subject.places))
    if not steps:
        return "the host has something else in every directory", {}, ()
    if answer := why_not("whole", prefix + next(iter(steps)), tree_directory()):
        return answer, {}, ()
    return "", steps, observed


_WAYS: dict[StrategyName, Callable[[_Subject], Answer]] = {
    "tree": _Overlay("tree", why_no_tree, make_tree, Overlay, tree_fits).answer,
    "mask": _Overlay("mask", why_no_mask, make_mask, MaskedOverlay).answer,
    "whole": _whole,
}
