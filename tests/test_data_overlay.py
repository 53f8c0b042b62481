"""Data layers: complete or missing, made once, used only if this host can mount them."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import JailError
from pkgjail.core.model import FileEntry
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails import layer_cache, probe, strategy
from pkgjail.jails.run import default_environment, prepare, run_in_jail
from pkgjail.jails.strategies import data_overlay
from pkgjail.sandbox.steps import HostFile, MaskedOverlay, Overlay
from pkgjail.storage.mounts import mounts_below
from pkgjail.storage.own_files import opened_directory
from pkgjail.storage.removal import remove_tree

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pkgjail"


def entries_of(root: Path) -> tuple[FileEntry, ...]:
    """Make /d with a file of three bytes, a read-only directory and a link, and return the entries."""
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


def test_a_layer_is_made_once(tmp_path: Path) -> None:
    entries, root = entries_of(tmp_path / "root"), bytes(tmp_path / "root")
    first = made_layer(entries, root, tmp_path)
    assert made_layer(entries, root, tmp_path) == first
    assert made(tmp_path) == [first.parent.name]
    assert (first / "file").stat().st_size == 3
    assert (first / "file").stat().st_mtime_ns == (tmp_path / "root/d/file").stat().st_mtime_ns
    assert (first / "closed").stat().st_mode & 0o777 == 0o555
    assert os.readlink(first / "link") == "file"


@pytest.mark.slow
def test_a_layer_can_be_deeper_than_the_recursion_limit(tmp_path: Path) -> None:
    """Protects from a traceback: os.walk() is recursive before Python 3.12."""
    paths = [b"/d" * levels for levels in range(1, 1500)]
    (tmp_path / "root").mkdir()
    entries = tuple(FileEntry(path=path, kind="directory", mode=0o755) for path in paths)
    first = made_layer(entries, bytes(tmp_path / "root"), tmp_path)
    assert made_layer(entries, bytes(tmp_path / "root"), tmp_path) == first
    with opened_directory(str(tmp_path / "layers")) as shelf:
        remove_tree(shelf, first.parent.name)  # pytest's own way calls itself, too
    assert made(tmp_path) == []


def test_concurrent_builders_make_one_layer(tmp_path: Path) -> None:
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


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, if the file system has no user attributes (NFS)."""
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
def test_which_modes_a_data_overlay_can_show(change: dict[str, object], *, can: bool) -> None:
    fields: dict[str, object] = {"path": b"/d/f", "kind": "regular", "mode": 0o644, "size": 1, **change}
    assert (data_overlay.data_overlay_obstacle([FileEntry(**fields)]) == "") == can  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("major", "again"), [(8, ""), (0, "tried again")], ids=["a filesystem on a device", "one on none"]
)
def test_the_probe_stores_success(
    cache: Path, monkeypatch: pytest.MonkeyPatch, major: int, again: str
) -> None:
    """But not on a file system without a device: another file system may get its number later."""
    monkeypatch.setattr(os, "major", lambda _: major)
    assert probe.probe_obstacle("tree", b"/usr", cache) == ""
    monkeypatch.setattr(probe, "_probe", lambda *_: "tried again")
    assert probe.probe_obstacle("tree", b"/usr", cache) == again
    assert not [name for name in os.listdir(cache) if name.startswith(".probe")]


def test_the_probe_does_not_store_a_failure(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause can be temporary, such as a limit."""
    with monkeypatch.context() as patch:
        patch.setattr(probe, "_probe", lambda *_: "unshare: No space left on device")
        assert probe.probe_obstacle("tree", b"/usr", cache) == "unshare: No space left on device"
    assert probe.probe_obstacle("tree", b"/usr", cache) == ""


def test_without_overlays_auto_uses_binds_and_tree_is_refused(
    base_manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no silent weaker form: both plans are exact."""
    monkeypatch.setattr(probe, "_probe", lambda *_: "overlay create: Invalid argument")
    options = JailOptions(environment=default_environment())
    assert not any(
        isinstance(step, (Overlay, MaskedOverlay)) for step in prepare(base_manifest, options).steps
    )
    with pytest.raises(
        JailError, match=r"'tree' for /usr: overlay create: Invalid argument; use `plan='auto'`"
    ):
        prepare(base_manifest, JailOptions(plan="tree"))
    assert cache.is_dir()


def test_large_directories_are_one_mount(base_manifest: Manifest, cache: Path) -> None:
    options = JailOptions(environment=default_environment())
    steps = prepare(base_manifest, options).steps
    overlaid = [step for step in steps if isinstance(step, Overlay)]
    assert [step.path for step in overlaid] == [b"/etc", b"/usr", b"/var/lib/dpkg/info"]
    assert all(os.fsencode(cache) in step.layer for step in overlaid)
    assert not any(step.path.startswith(b"/usr/") for step in steps if isinstance(step, HostFile))
    assert run_in_jail(base_manifest, ["true"], options).returncode == 0


def test_a_new_mount_point_makes_a_directory_file_binds(
    base_manifest: Manifest, tmp_path: Path, cache: Path
) -> None:
    """An overlay is read-only, so a mount point cannot be made in it."""
    bind = UserBind(source=bytes(tmp_path), destination=b"/usr/new/place", writable=False)
    options = JailOptions(binds=(bind,), environment=default_environment())
    steps = prepare(base_manifest, options).steps
    assert b"/usr" not in [step.path for step in steps if isinstance(step, (Overlay, MaskedOverlay))]
    assert run_in_jail(base_manifest, ["test", "-d", "/usr/new/place"], options).returncode == 0
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
def test_a_mount_below_a_directory_is_found(tmp_path: Path, directory: bytes, found: list[bytes]) -> None:
    """An overlay of /usr would not show another file system in it."""
    (tmp_path / "mountinfo").write_bytes(_TABLE)
    assert mounts_below(directory, str(tmp_path / "mountinfo")) == found


def test_a_directory_with_a_mount_in_it_has_file_binds(
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
def test_a_command_cannot_write_to_layers(
    base_manifest: Manifest, cache: Path, place: str, *, writable: bool, refused: bool
) -> None:
    """A layer that a build has changed would show anything in every later jail."""
    source = cache.parent / place
    source.mkdir(parents=True, exist_ok=True)
    bind = UserBind(source=bytes(source), destination=b"/srv/x", writable=writable)
    options = JailOptions(binds=(bind,), environment=default_environment())
    if refused:
        with pytest.raises(JailError, match="later jails depend on it"):
            run_in_jail(base_manifest, ["true"], options)
    else:
        assert run_in_jail(base_manifest, ["true"], options).returncode == 0


def test_with_a_full_runtime_directory_there_are_file_binds(
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
def test_a_cache_directory_of_another_user_is_not_used(cache: Path) -> None:
    """Any user can make a directory of that name in /dev/shm beforehand."""
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    assert "does not belong to this user alone" in probe.probe_obstacle("tree", b"/usr", cache)
