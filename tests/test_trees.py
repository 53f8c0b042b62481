"""Metadata trees: made whole or not at all, made once, used only where this host can."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry, JailOptions, UserBind
from pkgjail.jail import layer_cache, probe, strategy
from pkgjail.jail.run import default_environment, prepare, run_in_jail
from pkgjail.jail.strategies import data_overlay
from pkgjail.sandbox.steps import HostFile, MaskedOverlay, Overlay
from pkgjail.storage.mounts import mounts_below
from pkgjail.storage.own_files import opened_directory
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pkgjail"


def entries_of(root: Path) -> tuple[FileEntry, ...]:
    """/d with a file of three bytes, an empty directory that nobody may write, and a link."""
    (root / "d" / "closed").mkdir(parents=True)
    (root / "d" / "file").write_text("abc")
    (root / "d" / "file").chmod(0o444)
    (root / "d" / "link").symlink_to("file")
    return (
        FileEntry(path=b"/d", kind="directory", mode=0o755),
        FileEntry(path=b"/d/closed", kind="directory", mode=0o555),
        FileEntry(path=b"/d/file", kind="regular", mode=0o444, size=3),
        FileEntry(path=b"/d/link", kind="symlink", mode=0o777, target=b"file"),
    )


def made_layer(entries: tuple[FileEntry, ...], root: bytes, cache: Path) -> Path:
    """Make the data layer of these entries."""
    recipe = layer_cache.Recipe("tree", entries, root, data_overlay.make_data_layer)
    return Path(os.fsdecode(layer_cache.ensure_layer(recipe, cache).path))


def made(cache: Path) -> list[str]:
    return sorted(set(os.listdir(cache / "layers")) - {"lock"})


def test_a_tree_is_made_once(tmp_path: Path) -> None:
    entries, root = entries_of(tmp_path / "root"), bytes(tmp_path / "root")
    first = made_layer(entries, root, tmp_path)
    assert made_layer(entries, root, tmp_path) == first
    assert made(tmp_path) == [first.parent.name]
    assert (first / "file").stat().st_size == 3
    assert (first / "file").stat().st_mtime_ns == (tmp_path / "root/d/file").stat().st_mtime_ns
    assert (first / "closed").stat().st_mode & 0o777 == 0o555
    assert os.readlink(first / "link") == "file"


def test_a_tree_may_be_deeper_than_calls_go(tmp_path: Path) -> None:
    """Protects from a traceback: os.walk() calls itself at each level before Python 3.12."""
    paths = [b"/d" * levels for levels in range(1, 1500)]
    (tmp_path / "root").mkdir()
    entries = tuple(FileEntry(path=path, kind="directory", mode=0o755) for path in paths)
    first = made_layer(entries, bytes(tmp_path / "root"), tmp_path)
    assert made_layer(entries, bytes(tmp_path / "root"), tmp_path) == first
    with opened_directory(str(tmp_path / "layers")) as shelf:
        remove_tree(shelf, first.parent.name)  # pytest's own way calls itself, too
    assert made(tmp_path) == []


def test_builders_at_once_make_one_tree(tmp_path: Path) -> None:
    entries, root = entries_of(tmp_path / "root"), bytes(tmp_path / "root")
    places: list[Path] = []
    threads = [
        threading.Thread(target=lambda: places.append(made_layer(entries, root, tmp_path))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 16
    assert made(tmp_path) == [places[0].parent.name]


def test_a_tree_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the filesystem keeps no user attributes (NFS)."""
    entries, root = entries_of(tmp_path / "root"), bytes(tmp_path / "root")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(OSError, match="not supported"):
        made_layer(entries, root, tmp_path)
    assert made(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "can"),
    [
        pytest.param({}, True, id="a plain file"),
        pytest.param({"origin": "entry"}, True, id="a file made at entry"),
        pytest.param({"mode": 0o4755}, True, id="a set-user-ID file"),
        pytest.param({"mode": 0o640}, True, id="a file that others may not read"),
        pytest.param({"mode": 0o044}, False, id="a file that only others may read"),
    ],
)
def test_what_a_tree_can_show(change: dict[str, object], *, can: bool) -> None:
    fields: dict[str, object] = {"path": b"/d/f", "kind": "regular", "mode": 0o644, "size": 1, **change}
    assert (data_overlay.data_overlay_obstacle([FileEntry(**fields)]) == "") == can  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("major", "again"), [(8, ""), (0, "tried again")], ids=["a filesystem on a device", "one on none"]
)
def test_the_probe_remembers_that_it_works(
    cache: Path, monkeypatch: pytest.MonkeyPatch, major: int, again: str
) -> None:
    """Here it does (the tests need a kernel that can); an overlay's number may be another's the next time."""
    monkeypatch.setattr(os, "major", lambda _: major)
    assert probe.probe_obstacle("tree", b"/usr", cache) == ""
    monkeypatch.setattr(probe, "_probe", lambda *_: "tried again")
    assert probe.probe_obstacle("tree", b"/usr", cache) == again
    assert not [name for name in os.listdir(cache) if name.startswith(".probe")]


def test_the_probe_does_not_remember_a_failure(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come from where the caller was: a limit reached, a namespace without namespaces."""
    with monkeypatch.context() as patch:
        patch.setattr(probe, "_probe", lambda *_: "unshare: No space left on device")
        assert probe.probe_obstacle("tree", b"/usr", cache) == "unshare: No space left on device"
    assert probe.probe_obstacle("tree", b"/usr", cache) == ""


def test_where_the_host_cannot_it_is_said_or_done_by_binds(
    base_manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silently weaker: both plans are exact, and 'tree' by name is refused."""
    monkeypatch.setattr(probe, "_probe", lambda *_: "overlay create: Invalid argument")
    options = JailOptions(environment=default_environment())
    assert not any(
        isinstance(step, (Overlay, MaskedOverlay)) for step in prepare(base_manifest, options).steps
    )
    with pytest.raises(
        JailError, match=r"'tree' for /usr: overlay create: Invalid argument; use '--plan auto'"
    ):
        prepare(base_manifest, JailOptions(plan="tree"))
    assert cache.is_dir()


def test_large_directories_are_one_mount(base_manifest: Manifest, cache: Path) -> None:
    options = JailOptions(environment=default_environment())
    steps = prepare(base_manifest, options).steps
    overlaid = [step for step in steps if isinstance(step, Overlay)]
    assert [step.path for step in overlaid] == [b"/etc", b"/usr"]
    assert all(os.fsencode(cache) in step.layer for step in overlaid)
    assert not any(step.path.startswith(b"/usr/") for step in steps if isinstance(step, HostFile))
    assert run_in_jail(base_manifest, ["true"], options) == 0


def test_a_bind_that_needs_a_place_in_it_makes_a_directory_binds_again(
    base_manifest: Manifest, tmp_path: Path, cache: Path
) -> None:
    """An overlay is read-only: a mount point cannot be made in it."""
    bind = UserBind(source=bytes(tmp_path), destination=b"/usr/new/place", writable=False)
    options = JailOptions(binds=(bind,), environment=default_environment())
    steps = prepare(base_manifest, options).steps
    assert b"/usr" not in [step.path for step in steps if isinstance(step, (Overlay, MaskedOverlay))]
    assert run_in_jail(base_manifest, ["test", "-d", "/usr/new/place"], options) == 0
    assert cache.is_dir()


_TABLE = rb"""21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:5 / /usr-not rw - tmpfs x rw
23 21 0:6 / /usr/local\040site/cuda rw - nfs y rw
24 21 0:7 / /opt rw - tmpfs z rw
"""


@pytest.mark.parametrize(
    ("directory", "found"),
    [(b"/usr", [b"/usr/local site/cuda"]), (b"/opt", []), (b"/usr/local", [])],
)
def test_a_mount_below_is_seen(tmp_path: Path, directory: bytes, found: list[bytes]) -> None:
    """An overlay of /usr would not show a site's own filesystem in it."""
    (tmp_path / "mountinfo").write_bytes(_TABLE)
    assert mounts_below(directory, str(tmp_path / "mountinfo")) == found


def test_a_directory_with_a_mount_in_it_gets_binds(
    base_manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategy, "mounts_below", lambda _: [b"/usr/local"])
    assert not any(
        isinstance(step, (Overlay, MaskedOverlay)) for step in prepare(base_manifest, JailOptions()).steps
    )
    with pytest.raises(JailError, match="/usr/local is a mount of its own"):
        prepare(base_manifest, JailOptions(plan="tree"))
    assert cache.is_dir()


@pytest.mark.parametrize(
    ("place", "writable", "refused"),
    [
        pytest.param("", True, True, id="the directory that the cache is in"),
        pytest.param("pkgjail", True, True, id="the cache itself"),
        pytest.param("pkgjail/trees", True, True, id="what is in it"),
        pytest.param("pkgjail-not", True, False, id="a name that begins alike"),
        pytest.param("", False, False, id="for reading"),
    ],
)
def test_a_command_cannot_write_to_what_later_jails_are_made_from(
    base_manifest: Manifest, cache: Path, place: str, *, writable: bool, refused: bool
) -> None:
    """A tree that a build has changed would show whatever it likes, in every later jail."""
    source = cache.parent / place
    source.mkdir(parents=True, exist_ok=True)
    bind = UserBind(source=bytes(source), destination=b"/srv/x", writable=writable)
    options = JailOptions(binds=(bind,), environment=default_environment())
    if refused:
        with pytest.raises(JailError, match="later jails depend on it"):
            run_in_jail(base_manifest, ["true"], options)
    else:
        assert run_in_jail(base_manifest, ["true"], options) == 0


def test_a_runtime_directory_that_is_full_means_binds(
    base_manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(strategy, "ensure_layer", refuse)
    assert not any(
        isinstance(step, (Overlay, MaskedOverlay)) for step in prepare(base_manifest, JailOptions()).steps
    )
    with pytest.raises(JailError, match="No space left"):
        prepare(base_manifest, JailOptions(plan="tree"))
    assert cache.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_not_used(cache: Path) -> None:
    """Anybody can make a directory of that name in /dev/shm before we do."""
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    assert "does not belong to this user alone" in probe.probe_obstacle("tree", b"/usr", cache)
