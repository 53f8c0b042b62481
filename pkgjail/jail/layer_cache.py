"""Layers of overlays, kept: made once whatever number of jails asks, used only whole and unchanged.

A layer is a directory with a record of it beside:

    layers/KIND-BASE-STATE/layer     what overlayfs gets
    layers/KIND-BASE-STATE/record    the proof that `layer` is whole and as it was made

BASE stands for the manifest's entries, STATE for the host's directories as they were when the layer
was made (`pkgjail.storage.fingerprint`). So a host that has changed asks for another layer, unless the
recipe can tell that the layer still fits. A layer, once it has its name, never changes. It gets its name by
rename(2), when its record is written.

What is noticed when: at each use, every directory of the layer is held against the record, which shows
any name that was added, removed or replaced, and any directory's changed mode, owner or attributes. A
layer's file that was changed in place (its attributes, size or mode) shows when `thorough` is asked for,
which looks at every name. A process that runs as the same user outside of a jail could write a record
that fits; against that nothing helps.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import marshal
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.fingerprint import changed, observe, observe_settled
from pkgjail.storage.locations import NEW, open_file, opened, read_kept
from pkgjail.storage.removal import is_left_over, make_in_use, put_away, remove_unused, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pkgjail.core.model import FileEntry, StrategyName

    State = tuple[bytes, int, int, int, int]

# Raised whenever what a layer holds, or its record, changes its form: a layer of another version of
# pkgjail is none.
_FORMAT = 2
_ATTEMPTS = 5
# A layer that was used within so many seconds may be about to be entered.
_RECENT_SECONDS = 60
_DIGEST = 32


class Recipe(NamedTuple):
    """How a layer is made: `make` fills an empty directory from entries and a root (a real path).

    The first of `entries` is the top directory. `make` raises `OSError` where it cannot. `fits` says whether
    a layer that was made of the same entries and root, when the host's directories were in another state, is
    the one that `make` would make now; None where every change of a directory matters.
    """

    kind: StrategyName
    entries: Sequence[FileEntry]
    root: bytes
    make: Callable[[bytes, Sequence[FileEntry], bytes], None]
    fits: Callable[[bytes, Sequence[FileEntry], bytes], bool] | None = None


class Layer(NamedTuple):
    """A layer that can be used: its path, and the states of all directories that it depends on.

    They are its own, and those of the host's directories unless its recipe tells whether it fits.
    """

    path: bytes
    observed: tuple[State, ...]


class _Record(NamedTuple):
    """`directories` has (path in the layer, device, inode, mtime, ctime); `names` a digest of all."""

    format: int
    directories: tuple[State, ...]
    names: bytes


def ensure(recipe: Recipe, cache: Path, *, thorough: bool = False) -> Layer:
    """The layer of a recipe, made now where the cache has none that is whole and as it was made.

    Safe beside others that want the same one: one makes it, the others wait and take it.

    Args:
        recipe: what it is made from.
        cache: the directory that layers are kept in, a real path, private to the user.
        thorough: look at every name of a layer that is there, not at its directories alone.

    Raises:
        OSError: it cannot be made there; `ENOTSUP` where the filesystem keeps no user attributes.

    """
    shelf = cache / "layers"
    with opened(str(shelf), make=True) as descriptor:
        place, observed, states = _ensured(recipe, shelf, descriptor, thorough=thorough)
        os.utime(place.name, dir_fd=descriptor)  # when it was last used, for `pkgjail cache prune`
    return Layer(bytes(place / "layer"), (*(observed if recipe.fits is None else ()), *states))


def _ensured(
    recipe: Recipe, shelf: Path, descriptor: int, *, thorough: bool
) -> tuple[Path, tuple[State, ...], tuple[State, ...]]:
    """The layer's place, and the states of the host's and of its own directories."""
    directories = _directories(recipe)
    observed = observe(directories)
    base = f"{recipe.kind}-{_base(recipe)}"
    place = shelf / _name(base, observed)
    states = _states(place, thorough=thorough)
    if not states and recipe.fits is not None:
        place, states = _fitting(recipe, base, place, thorough=thorough)
    if states:
        return place, observed, states
    with _one_builder(descriptor):
        for _ in range(_ATTEMPTS):
            observed = observe_settled(directories)
            place = shelf / _name(base, observed)
            if is_whole(place, thorough=thorough) or _build(recipe, place, descriptor, observed):
                break
        else:
            raise BlockingIOError(0, "its directories keep changing")
        _sweep(descriptor, base, place.name)
        return place, observed, _states(place, thorough=False)


def _fitting(recipe: Recipe, base: str, place: Path, *, thorough: bool) -> tuple[Path, tuple[State, ...]]:
    """A layer that was made for another state of the host and fits this one; `place` and nothing else."""
    for other in sorted(place.parent.glob(f"{base}-*")):
        states = _states(other, thorough=thorough)
        layer = bytes(other / "layer")
        if states and recipe.fits is not None and recipe.fits(layer, recipe.entries, recipe.root):
            return other, states
    return place, ()


def is_whole(place: Path, *, thorough: bool = False) -> bool:
    """Whether the layer at `place` (a member of `layers`) is complete and as it was made."""
    return bool(_states(place, thorough=thorough))


def _states(place: Path, *, thorough: bool) -> tuple[State, ...]:
    """The states of all directories of the layer at `place`; none where it is not as it was made."""
    layer = bytes(place / "layer")
    try:
        record = _read(place)
        if record is None:
            return ()
        states = tuple([(layer + path, a, b, c, d) for path, a, b, c, d in record.directories])
        if changed(states) or (thorough and _all_names(layer) != record.names):
            return ()
    except OSError:
        return ()
    return states


def _directories(recipe: Recipe) -> list[bytes]:
    """The host's directories in which a name that comes or goes matters to the layer."""
    prefix = recipe.root.rstrip(b"/")
    paths = (prefix + entry.path for entry in recipe.entries if entry.kind == "directory")
    return list(filter(os.path.lexists, paths))


def _base(recipe: Recipe) -> str:
    """Changes with all that a layer is made from, but for the host's own state."""
    rows = [(e.path, e.kind, e.mode, e.size, e.target, e.origin) for e in recipe.entries]
    facts = (_FORMAT, _code_of(recipe.make), os.getegid(), recipe.root, rows)
    # Version 2: later ones tell objects that are shared, and so differ for equal content.
    return hashlib.sha256(marshal.dumps(facts, 2)).hexdigest()[:40]


def _code_of(make: Callable[..., None]) -> bytes:
    """The module that makes a layer: another version of pkgjail may make another one of the same."""
    with open(sys.modules[make.__module__].__file__ or "", "rb") as file:
        return file.read()


def _name(base: str, observed: tuple[State, ...]) -> str:
    return f"{base}-{hashlib.sha256(marshal.dumps(observed, 2)).hexdigest()[:24]}"


@contextlib.contextmanager
def _one_builder(shelf: int) -> Iterator[None]:
    descriptor = open_file(shelf, "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(recipe: Recipe, place: Path, shelf: int, observed: tuple[State, ...]) -> bool:
    """Make the layer at `place`; False where the host's directories changed meanwhile."""
    with undisturbed():
        return _make(recipe, place, shelf, observed)


def _make(recipe: Recipe, place: Path, shelf: int, observed: tuple[State, ...]) -> bool:
    new = place.with_name(f"{NEW}{os.urandom(8).hex()}")
    descriptor = make_in_use(shelf, new.name)
    done = False
    try:
        # By its path, on which nobody else can put anything (`pkgjail.storage.locations`).
        layer = bytes(new / "layer")
        os.mkdir(layer, 0o700)
        recipe.make(layer, recipe.entries, recipe.root)
        if changed(observed):
            return False
        _write(descriptor, layer)
        if os.path.lexists(place):  # not whole, or it would have been taken
            _remove(shelf, put_away(shelf, place.name))
        os.rename(new.name, place.name, src_dir_fd=shelf, dst_dir_fd=shelf)
        done = True
    finally:
        os.close(descriptor)
        if not done:
            _remove(shelf, new.name)
    return True


def _write(place: int, layer: bytes) -> None:
    """Write the record of a layer that is finished, in its directory."""
    states = observe_settled(sorted(directory for directory, _ in _walk(layer)))
    directories = [(path[len(layer) :], *state) for path, *state in states]
    data = marshal.dumps((_FORMAT, directories, _all_names(layer)), 2)
    with open(open_file(place, "record", os.O_CREAT | os.O_WRONLY), "wb") as file:
        file.write(hashlib.sha256(data).digest() + data)


def _read(place: Path) -> _Record | None:
    """The record of a layer; None where there is none that this version of pkgjail wrote, as it did."""
    content = read_kept(str(place / "record"))
    digest, data = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(data).digest() != digest:
        return None
    fields = marshal.loads(data)  # noqa: S302 - its digest was held against it
    return _Record(*fields) if fields[0] == _FORMAT else None


def _all_names(layer: bytes) -> bytes:
    """A digest of the names in a layer, each with its inode's mode, size, times and identity."""
    rows = []
    for directory, names in _walk(layer):
        for name in names:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            rows.append((path[len(layer) :], found.st_mode, found.st_uid, found.st_ino, found.st_ctime_ns))
    return hashlib.sha256(marshal.dumps(sorted(rows), 2)).digest()


def _walk(layer: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each directory of a layer, and the names in it.

    Before Python 3.12 os.walk() calls itself at each level, and a manifest may have 2,000.
    """
    todo = [layer]
    for directory in todo:  # which grows
        inner: list[os.DirEntry[bytes]] = []
        with contextlib.suppress(OSError), os.scandir(directory) as found:
            inner += found
        todo += [each.path for each in inner if each.is_dir(follow_symlinks=False)]
        yield directory, [each.name for each in inner]


def _remove(shelf: int, name: str) -> None:
    """Remove what nobody uses; what cannot be removed now is tried again another time."""
    with contextlib.suppress(OSError):
        remove_unused(shelf, name)


def _sweep(shelf: int, base: str, kept: str) -> None:
    """Remove what builders that were killed left, and this layer's forms of an earlier host."""
    recent = os.stat(kept, dir_fd=shelf).st_mtime - _RECENT_SECONDS
    for name in os.listdir(shelf):
        is_earlier = name.startswith(base + "-") and name != kept
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=shelf, follow_symlinks=False)
            if is_left_over(name) or (is_earlier and found.st_mtime < recent):
                _remove(shelf, name)
