"""The layer cache: layers of overlays, made once for all jails that need them.

A layer is used only if it is complete and unchanged. A record is beside it:

    layers/KIND-BASE-STATE/layer     the lower directory of an overlay
    layers/KIND-BASE-STATE/record    the proof that `layer` is complete and as it was made

BASE is a digest of the manifest's entries, STATE one of the states of the host's directories when the
layer was made (`pkgjail.storage.fingerprint`). So a changed host needs another layer, unless the recipe
can check that the layer still fits. A layer never changes once it has its name, which it gets by
rename(2) after its record is written.

Each use compares every directory of the layer with the record. This shows names that were added, removed
or replaced, and a directory's changed mode, owner or attributes. A file of the layer that was changed in
place (its attributes, size or mode) is seen only by a `thorough` check, which compares every name. A
process of the same user outside of a jail could write a matching record; there is no defence against that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.storage.fingerprint import changed_directories, take_fingerprint, take_settled_fingerprint
from pkgjail.storage.locks import lock_shared
from pkgjail.storage.marshal_store import digest, pack, unpack
from pkgjail.storage.own_files import NEW_PREFIX, open_own_file, opened_directory, read_own_file, set_aside
from pkgjail.storage.removal import is_left_over, make_locked_directory, remove_unused, signals_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pkgjail.core.model import FileEntry

    State = tuple[bytes, int, int, int, int]

# Raised whenever the format of a layer or its record changes; layers of other formats are not used.
_FORMAT = 3
_ATTEMPTS = 5
# A layer that was used within so many seconds may be about to be entered.
_RECENT_SECONDS = 60


class Recipe(NamedTuple):
    """A way to make a layer: `make` fills an empty directory from entries and a root (a real path).

    The first of `entries` is the top directory. `make` raises `OSError` if it fails. `fits` checks whether
    `make` would now make the same layer as one that was made of the same entries and root when the host's
    directories were in another state; it is None if every change of a directory matters.
    `content` is the digest of what else a layer is made from, if there is something.
    """

    kind: str
    entries: Sequence[FileEntry]
    root: bytes
    make: Callable[[bytes, Sequence[FileEntry], bytes], None]
    fits: Callable[[bytes, Sequence[FileEntry], bytes], bool] | None = None
    content: str = ""


class Layer(NamedTuple):
    """A layer that can be used: its path, and the states of all directories that it depends on.

    These are its own directories, and the host's unless the recipe has `fits`.
    """

    path: bytes
    observed: tuple[State, ...]


class _Record(NamedTuple):
    """The record of a layer.

    `directories` has (path in the layer, device, inode, mtime, ctime); `names` is a digest of all names.
    """

    directories: tuple[State, ...]
    names: str


def ensure_layer(recipe: Recipe, cache: Path, *, thorough: bool = False) -> Layer:
    """Return the layer of a recipe. Make it if the cache has none that is complete and unchanged.

    Several processes may call this for the same layer: one makes it, the others wait and use it.

    Args:
        recipe: how to make it.
        cache: the directory for layers, a real path, private to the user.
        thorough: check every name of an existing layer, and not only its directories.

    Raises:
        OSError: it cannot be made there; `ENOTSUP` if the file system has no user attributes.

    """
    layers = cache / "layers"
    with opened_directory(str(layers), make=True) as descriptor:
        directory, host_states, layer_states = _find_or_build(recipe, layers, descriptor, thorough=thorough)
        os.utime(directory.name, dir_fd=descriptor)  # the time of the last use, for `pkgjail cache prune`
    return Layer(bytes(directory / "layer"), (*(host_states if recipe.fits is None else ()), *layer_states))


def lock_layer(recipe: Recipe, cache: Path) -> tuple[bytes, list[int]]:
    """Return the path of a recipe's layer, and a lock that keeps it from being removed (`unlock`).

    Every name of it is checked.

    Raises:
        OSError: it cannot be made there, or keeps being removed.

    """
    for _ in range(_ATTEMPTS):
        path = ensure_layer(recipe, cache, thorough=True).path
        with contextlib.suppress(OSError):  # it is being removed
            return path, lock_shared([os.path.dirname(path)])
    raise BlockingIOError(0, "it keeps being removed", os.fsdecode(cache))


def _find_or_build(
    recipe: Recipe, layers: Path, descriptor: int, *, thorough: bool
) -> tuple[Path, tuple[State, ...], tuple[State, ...]]:
    """Return the layer's directory, and the states of the host's directories and of its own."""
    on_host = _host_directories(recipe)
    host_states = take_fingerprint(on_host)
    base = f"{recipe.kind}-{_base(recipe)}"
    directory = layers / _name(base, host_states)
    layer_states = _states(directory, thorough=thorough)
    if not layer_states and recipe.fits is not None:
        directory, layer_states = _find_fitting(recipe, base, directory, thorough=thorough)
    if layer_states:
        return directory, host_states, layer_states
    with _one_builder(descriptor):
        for _ in range(_ATTEMPTS):
            host_states = take_settled_fingerprint(on_host)
            directory = layers / _name(base, host_states)
            if is_intact(directory, thorough=thorough) or _build(recipe, directory, descriptor, host_states):
                break
        else:
            raise BlockingIOError(0, "its directories keep changing")
        _remove_outdated(descriptor, base, directory.name)
        return directory, host_states, _states(directory, thorough=False)


def _find_fitting(
    recipe: Recipe, base: str, directory: Path, *, thorough: bool
) -> tuple[Path, tuple[State, ...]]:
    """Find a layer that was made for another state of the host and fits this one, else return `directory`."""
    for other in sorted(directory.parent.glob(f"{base}-*")):
        states = _states(other, thorough=thorough)
        layer = bytes(other / "layer")
        if states and recipe.fits is not None and recipe.fits(layer, recipe.entries, recipe.root):
            return other, states
    return directory, ()


def is_intact(directory: Path, *, thorough: bool = False) -> bool:
    """Check whether the layer in `directory` (a member of `layers`) is complete and unchanged."""
    return bool(_states(directory, thorough=thorough))


def _states(directory: Path, *, thorough: bool) -> tuple[State, ...]:
    """Return the states of all directories of a layer, or nothing if it is not complete and unchanged."""
    layer = bytes(directory / "layer")
    try:
        record = _read(directory)
        if record is None:
            return ()
        states = tuple([(layer + path, a, b, c, d) for path, a, b, c, d in record.directories])
        if changed_directories(states) or (thorough and _all_names(layer) != record.names):
            return ()
    except OSError:
        return ()
    return states


def _host_directories(recipe: Recipe) -> list[bytes]:
    """Return the host's directories in which a new or removed name matters to the layer."""
    prefix = recipe.root.rstrip(b"/")
    paths = (prefix + entry.path for entry in recipe.entries if entry.kind == "directory")
    return list(filter(os.path.lexists, paths))


def _base(recipe: Recipe) -> str:
    """Return a digest of all that a layer is made from, except for the host's state."""
    rows = [(e.path, e.kind, e.mode, e.size, e.target, e.origin) for e in recipe.entries]
    facts = (_FORMAT, _code_of(recipe.make), os.getegid(), recipe.root, rows)
    return digest((*facts, recipe.content) if recipe.content else facts)[:40]


def _code_of(make: Callable[..., None]) -> bytes:
    """Return the code of the module that makes a layer: another version may make a different layer."""
    with open(sys.modules[make.__module__].__file__ or "", "rb") as file:
        return file.read()


def _name(base: str, observed: tuple[State, ...]) -> str:
    return f"{base}-{digest(observed)[:24]}"


@contextlib.contextmanager
def _one_builder(layers: int) -> Iterator[None]:
    descriptor = open_own_file(layers, "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(recipe: Recipe, directory: Path, layers: int, host_states: tuple[State, ...]) -> bool:
    """Make the layer in `directory`; return False if the host's directories changed meanwhile."""
    with signals_blocked():
        return _make(recipe, directory, layers, host_states)


def _make(recipe: Recipe, directory: Path, layers: int, host_states: tuple[State, ...]) -> bool:
    new = directory.with_name(f"{NEW_PREFIX}{os.urandom(8).hex()}")
    descriptor = make_locked_directory(layers, new.name)
    done = False
    try:
        # By its path, which no other user can change (`pkgjail.storage.locations`).
        layer = bytes(new / "layer")
        os.mkdir(layer, 0o700)
        recipe.make(layer, recipe.entries, recipe.root)
        if changed_directories(host_states):
            return False
        _write(descriptor, layer)
        if os.path.lexists(directory):  # damaged, or it would have been used
            _remove(layers, set_aside(layers, directory.name))
        os.rename(new.name, directory.name, src_dir_fd=layers, dst_dir_fd=layers)
        done = True
    finally:
        os.close(descriptor)
        if not done:
            _remove(layers, new.name)
    return True


def _write(directory: int, layer: bytes) -> None:
    """Write the record of a finished layer."""
    states = take_settled_fingerprint(sorted(path for path, _ in _walk(layer)))
    directories = [(path[len(layer) :], *state) for path, *state in states]
    with open(open_own_file(directory, "record", os.O_CREAT | os.O_WRONLY), "wb") as file:
        file.write(pack(_FORMAT, (directories, _all_names(layer))))


def _read(directory: Path) -> _Record | None:
    """Return the record of a layer, or None if it is damaged or of another version of pkgjail."""
    fields = unpack(_FORMAT, read_own_file(str(directory / "record")))
    return None if fields is None else _Record(*fields)


def _all_names(layer: bytes) -> str:
    """Return a digest of the names in a layer, each with its inode's mode, owner, number and ctime."""
    rows = []
    for directory, names in _walk(layer):
        for name in names:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            rows.append((path[len(layer) :], found.st_mode, found.st_uid, found.st_ino, found.st_ctime_ns))
    return digest(sorted(rows))


def _walk(layer: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield each directory of a layer with the names in it.

    Before Python 3.12, os.walk() is recursive, and a manifest may have 2,000 levels.
    """
    directories = [layer]
    for directory in directories:  # grows meanwhile
        inner: list[os.DirEntry[bytes]] = []
        with contextlib.suppress(OSError), os.scandir(directory) as found:
            inner += found
        directories += [each.path for each in inner if each.is_dir(follow_symlinks=False)]
        yield directory, [each.name for each in inner]


def _remove(layers: int, name: str) -> None:
    """Remove a layer that is not in use. If that fails, a later run tries again."""
    with contextlib.suppress(OSError):
        remove_unused(layers, name)


def _remove_outdated(layers: int, base: str, current: str) -> None:
    """Remove what killed builders left, and layers of the same base for earlier states of the host."""
    recent = os.stat(current, dir_fd=layers).st_mtime - _RECENT_SECONDS
    for name in os.listdir(layers):
        is_earlier = name.startswith(base + "-") and name != current
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=layers, follow_symlinks=False)
            if is_left_over(name) or (is_earlier and found.st_mtime < recent):
                _remove(layers, name)
