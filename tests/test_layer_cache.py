"""The layer cache: layers are made once, complete or not at all, and not used after a change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.model import FileEntry, StrategyName
from pkgjail.core.options import JailOptions
from pkgjail.jails import layer_cache
from pkgjail.jails.run import default_environment, prepare_jail, run_in_jail
from pkgjail.jails.strategies.data_overlay import make_data_layer
from pkgjail.jails.strategies.whiteout_overlay import make_whiteout_layer
from pkgjail.storage.locks import lock_shared, unlock
from tests.tree_text import remove_path, walk_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pkgjail.core.model import Manifest

_ENTRIES = (
    FileEntry(path=b"/d", kind="directory", mode=0o755),
    FileEntry(path=b"/d/empty", kind="directory", mode=0o755),
    FileEntry(path=b"/d/file", kind="regular", mode=0o644, size=3),
    FileEntry(path=b"/d/in", kind="directory", mode=0o755),
    FileEntry(path=b"/d/in/file", kind="regular", mode=0o644, size=3),
    FileEntry(path=b"/d/in/link", kind="symlink", mode=0o777, target=b"file", origin="alternative"),
)
_KINDS = {"tree": make_data_layer, "mask": make_whiteout_layer}


@pytest.fixture(params=_KINDS)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> layer_cache.Recipe:
    """A data layer and a whiteout layer in turn, for a host with two names more than the manifest."""
    for directory in ("in", "empty"):
        (tmp_path / "root" / "d" / directory).mkdir(parents=True)
    for name in ("file", "in/file", "empty/hidden", "in/hidden"):
        (tmp_path / "root" / "d" / name).write_text("abc")
    return layer_cache.Recipe(request.param, _ENTRIES, bytes(tmp_path / "root"), _KINDS[request.param])


def ensure_layer(recipe: layer_cache.Recipe, cache: Path, *, thorough: bool = False) -> Path:
    return Path(os.fsdecode(layer_cache.ensure_layer(recipe, cache, thorough=thorough).path)).parent


def kept(cache: Path) -> list[str]:
    return sorted(set(os.listdir(cache / "layers")) - {"lock"})


def counting(recipe: layer_cache.Recipe, log: Path) -> layer_cache.Recipe:
    """Return the same recipe, which writes a byte to `log` each time it is used."""

    def make(new: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.write(descriptor, b".")
        os.close(descriptor)
        recipe.make(new, entries, root)

    return recipe._replace(make=make)


def _first_file(layer: Path) -> Path:
    """Return a data layer's file, or a whiteout."""
    return next(path for path in sorted(layer.rglob("*")) if not path.is_dir() and not path.is_symlink())


def _replace_content(layer: Path) -> None:
    path = _first_file(layer)
    path.unlink()
    path.write_text("own")


def _link_elsewhere(layer: Path) -> None:
    (layer / "in" / "link").unlink()
    (layer / "in" / "link").symlink_to("/etc/shadow")


def _other_layer(place: Path) -> None:
    """Put another directory of the same content in place, with the first one's record."""
    (place / "layer").rename(place / "old")
    (place / "layer").mkdir()
    remove_path(place / "old")


def _set_attribute(layer: Path) -> None:
    os.setxattr(layer / "in", "user.overlay.opaque", b"y")


_TAMPERED = [
    ("a name was added", lambda place: (place / "layer" / "in" / "added").touch()),
    ("a directory was added", lambda place: (place / "layer" / "in" / "added").mkdir()),
    ("a name was removed", lambda place: _first_file(place / "layer").unlink()),
    ("a file was replaced", lambda place: _replace_content(place / "layer")),
    ("a link was replaced", lambda place: _link_elsewhere(place / "layer")),
    ("a directory's mode", lambda place: (place / "layer" / "in").chmod(0o700)),
    ("a directory's attributes", lambda place: _set_attribute(place / "layer")),
    ("its top was replaced", _other_layer),
    ("all of it is gone", lambda place: remove_path(place / "layer")),
    ("the record is gone", lambda place: (place / "record").unlink()),
    ("the record is cut", lambda place: os.truncate(place / "record", 40)),
    ("the record is empty", lambda place: os.truncate(place / "record", 0)),
    ("the record is a directory", lambda place: ((place / "record").unlink(), (place / "record").mkdir())),
    ("others may write to it", lambda place: place.chmod(0o722)),
]


@pytest.mark.parametrize(("what", "tamper"), _TAMPERED, ids=[what for what, _ in _TAMPERED])
def test_a_changed_layer_is_made_again(
    recipe: layer_cache.Recipe, tmp_path: Path, what: str, tamper: Callable[[Path], object]
) -> None:
    place = ensure_layer(recipe, tmp_path)
    before = walk_lines(bytes(place / "layer"))
    tamper(place)
    assert not layer_cache.is_intact(place), what
    assert ensure_layer(recipe, tmp_path) == place
    assert walk_lines(bytes(place / "layer")) == before
    assert kept(tmp_path) == [place.name]


_IN_PLACE = [
    ("tree", "its size", lambda path: os.truncate(path, 9)),
    ("tree", "its attributes", lambda path: os.setxattr(path, "user.overlay.redirect", b"/in/hidden")),
    ("tree", "its mode", lambda path: path.chmod(0o777)),
    ("mask", "its mode", lambda path: path.chmod(0o777)),
]


@pytest.mark.parametrize(("kind", "what", "tamper"), _IN_PLACE, ids=[f"{k}, {w}" for k, w, _ in _IN_PLACE])
def test_a_thorough_check_finds_a_file_changed_in_place(
    recipe: layer_cache.Recipe,
    tmp_path: Path,
    kind: StrategyName,
    what: str,
    tamper: Callable[[Path], object],
) -> None:
    """As docs/jail.md says: an ordinary entry checks only directories."""
    recipe = recipe._replace(kind=kind, make=_KINDS[kind])
    place = ensure_layer(recipe, tmp_path)
    before = walk_lines(bytes(place / "layer"))
    tamper(_first_file(place / "layer"))
    assert layer_cache.is_intact(place), what
    assert not layer_cache.is_intact(place, thorough=True)
    assert ensure_layer(recipe, tmp_path, thorough=True) == place
    assert walk_lines(bytes(place / "layer")) == before


def test_a_layer_of_another_user_is_not_used(
    recipe: layer_cache.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ensure_layer(recipe, tmp_path)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert not layer_cache.is_intact(place)
    with pytest.raises(PermissionError, match="does not belong to this user alone"):
        ensure_layer(recipe, tmp_path)


def test_a_layer_of_another_format_is_not_used(
    recipe: layer_cache.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer of an earlier format with the same name once made every command end with 127."""
    place = ensure_layer(recipe, tmp_path)
    monkeypatch.setattr(layer_cache, "_FORMAT", layer_cache._FORMAT + 1)
    assert not layer_cache.is_intact(place)
    assert ensure_layer(recipe, tmp_path) != place


def test_the_remains_of_a_killed_builder_are_removed(recipe: layer_cache.Recipe, tmp_path: Path) -> None:
    half = tmp_path / "layers" / ".new-half" / "layer"
    half.mkdir(parents=True)
    (half / "file").touch()
    half.parent.parent.chmod(0o700)
    place = ensure_layer(recipe, tmp_path)
    assert kept(tmp_path) == [place.name]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: (d / "in" / "late").touch(), id="a name was added"),
        pytest.param(lambda d: (d / "in" / "hidden").unlink(), id="a name went"),
        pytest.param(lambda d: (d / "in" / "hidden").rename(d / "in" / "file"), id="a file was replaced"),
        pytest.param(lambda d: d.rename(d.with_name("old")) and d.mkdir(), id="the directory was replaced"),
        pytest.param(lambda d: d.chmod(0o750), id="the directory's mode"),
    ],
)
def test_a_changed_host_gets_another_layer(
    recipe: layer_cache.Recipe, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """So a whiteout overlay never shows a name that came before the entry. The old layer may be in use."""
    first = ensure_layer(recipe, tmp_path)
    change(tmp_path / "root" / "d")
    (tmp_path / "root" / "d" / "in").mkdir(exist_ok=True)
    (tmp_path / "root" / "d" / "in" / "file").touch()
    (tmp_path / "root" / "d" / "file").touch()
    assert ensure_layer(recipe, tmp_path) != first
    assert first.is_dir()


def test_an_outdated_layer_is_removed_when_it_is_not_in_use(
    recipe: layer_cache.Recipe, tmp_path: Path
) -> None:
    """Protects the memory that has the layers from hosts that change often."""
    old = ensure_layer(recipe, tmp_path)
    (tmp_path / "root" / "d" / "in" / "late").touch()
    os.utime(old, (0, 0))
    held = lock_shared([bytes(old)])
    new = ensure_layer(recipe, tmp_path)
    unlock(held)
    assert kept(tmp_path) == sorted([old.name, new.name])
    (tmp_path / "root" / "d" / "in" / "later").touch()
    os.utime(new, (0, 0))
    newest = ensure_layer(recipe, tmp_path)
    assert kept(tmp_path) == [newest.name]


def test_directories_that_change_while_a_layer_is_made(recipe: layer_cache.Recipe, tmp_path: Path) -> None:
    """The layer is made again for the new state, with a limit on attempts."""
    late = iter(range(3))

    def restless(new: bytes, entries: Sequence[FileEntry], root: bytes) -> None:
        recipe.make(new, entries, root)
        for number in late:
            (tmp_path / "root" / "d" / "in" / f"late{number}").touch()
            break

    place = ensure_layer(recipe._replace(make=restless), tmp_path)
    assert kept(tmp_path) == [place.name]
    assert layer_cache.is_intact(place)
    late = iter(range(3, 99))
    (tmp_path / "root" / "d" / "in" / "another").touch()
    with pytest.raises(BlockingIOError, match="keep changing"):
        ensure_layer(recipe._replace(make=restless), tmp_path)
    assert kept(tmp_path) == [place.name]


def _children(number: int, work: Callable[[], bool]) -> int:
    """Return how many of `count` concurrent processes return true from `work`."""
    ready_read, ready_write = os.pipe()
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            try:
                os.close(ready_write)
                os.read(ready_read, 1)  # returns when the parent closes its end
                os._exit(0 if work() else 1)
            finally:
                os._exit(2)
        children.append(child)
    os.close(ready_write)
    os.close(ready_read)
    return sum(os.waitpid(child, 0)[1] == 0 for child in children)


def test_one_of_64_concurrent_processes_makes_the_layer(recipe: layer_cache.Recipe, tmp_path: Path) -> None:
    log = tmp_path / "log"
    recipe = counting(recipe, log)
    assert _children(64, lambda: ensure_layer(recipe, tmp_path).is_dir()) == 64
    assert log.read_bytes() == b"."
    assert len(kept(tmp_path)) == 1


def _hidden(manifest: Manifest) -> str:
    """Return a program of the host's that is not in the manifest."""
    listed = {entry.path for entry in manifest.files}
    paths = (f"/usr/bin/{name}" for name in sorted(os.listdir("/usr/bin")))
    return next(path for path in paths if path.encode() not in listed)


def _let_show(layer: Path, name: str) -> None:
    """Remove the whiteout of a name, or add a name to a data layer."""
    (layer / "bin" / name).unlink(missing_ok=True)
    if layer.parent.name.startswith("tree"):
        (layer / "bin" / name).symlink_to("env")


_HARM: dict[str, Callable[[Path, str], object]] = {
    "tampered with": lambda place, name: _let_show(place / "layer", name),
    "removed": lambda place, _: remove_path(place),
    "half removed": lambda place, _: remove_path(place / "layer" / "bin"),
    "without its record": lambda place, _: (place / "record").unlink(),
}


@pytest.mark.parametrize("harm", _HARM)
@pytest.mark.parametrize("plan", ["tree", "mask"])
def test_a_prepared_jail_does_not_use_a_changed_layer(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: StrategyName, harm: str
) -> None:
    """Each entry checks the layer, and has it made again."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    jail = prepare_jail(base_manifest, JailOptions(environment=default_environment(), plan=plan))
    hidden = _hidden(base_manifest)
    words = ["test", "-x", "/usr/bin/env", "-a", "!", "-e", hidden]
    assert jail.enter(words) == 0
    shelf = tmp_path / "pkgjail" / "layers"
    (name,) = [each for each in kept(tmp_path / "pkgjail") if (shelf / each / "layer" / "bin").exists()]
    _HARM[harm](tmp_path / "pkgjail" / "layers" / name, os.path.basename(hidden))
    assert jail.enter(words) == 0


@pytest.mark.parametrize("number", [12, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize("plan", ["tree", "mask"])
def test_concurrent_jails_with_an_empty_cache(
    base_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: StrategyName, number: int
) -> None:
    """All run, with one layer per directory. Each that finds no ld.so cache makes one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = JailOptions(environment=default_environment(), plan=plan)
    words = ["test", "-x", "/usr/bin/env", "-a", "!", "-e", _hidden(base_manifest)]
    assert _children(number, lambda: run_in_jail(base_manifest, words, options).returncode == 0) == number
    layer_cache = [name.split("-")[0] for name in kept(tmp_path / "run" / "pkgjail")]
    # /etc (no whiteout overlay), /usr, and dpkg's records of packages.
    assert layer_cache == {"tree": ["tree"] * 3, "mask": ["mask"] * 2}[plan]


@pytest.mark.parametrize("other", ["code", "group"])
def test_other_code_or_another_group_makes_another_layer(
    recipe: layer_cache.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Protects from a layer that this version would not make, even if the format number was not raised."""
    (tmp_path / "cache").mkdir(exist_ok=True)
    first = layer_cache.ensure_layer(recipe, tmp_path / "cache").path
    assert layer_cache.ensure_layer(recipe, tmp_path / "cache").path == first
    if other == "code":
        monkeypatch.setattr(layer_cache, "_code_of", lambda _make: b"another")
    else:
        monkeypatch.setattr(os, "getegid", lambda: 4711)
    assert layer_cache.ensure_layer(recipe, tmp_path / "cache").path != first
