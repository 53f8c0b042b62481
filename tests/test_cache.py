"""The cache directory: where it is, what is in it, and that it can be cleared."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.cli.main import main
from pkgjail.storage.atomic import write_own_file
from pkgjail.storage.cache import list_cache, prune_cache
from pkgjail.storage.locations import cache_directory, runtime_directory
from pkgjail.storage.locks import lock_shared, unlock
from pkgjail.storage.own_files import read_own_file

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("setting", "place"),
    [("/var/x", "/var/x/pkgjail"), ("", "~/.cache/pkgjail"), ("relative", "~/.cache/pkgjail")],
)
def test_where_it_is(monkeypatch: pytest.MonkeyPatch, setting: str, place: str) -> None:
    """XDG Base Directory Specification: a relative path is not used."""
    monkeypatch.setenv("XDG_CACHE_HOME", setting)
    assert cache_directory() == os.path.expanduser(place)


@pytest.mark.parametrize("home", [None, "relative"])
def test_where_it_is_without_a_home(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """Protects a user id that passwd(5) does not have from a traceback, and every directory from a cache."""

    def no_entry(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert cache_directory() == f"{runtime_directory()}/cache"


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a layer, one of its directories closed to writing, a loader cache, and half a layer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PKGJAIL_SHARED_DIR", str(tmp_path / "shared"))  # where other tests leave baselines
    top, layers = tmp_path / "pkgjail", tmp_path / "run" / "pkgjail" / "layers"
    for directory in (top, top / "ld.so.cache", layers.parent.parent, layers.parent, layers):
        directory.mkdir(mode=0o700)
    (layers / "one" / "closed").mkdir(parents=True)
    (layers / "one" / "closed" / "file").write_text("x")
    (layers / "one" / "link").symlink_to("/etc")
    (layers / "one" / "closed").chmod(0o555)
    (layers / "lock").touch()
    (layers / ".new-half").mkdir()
    (top / "ld.so.cache" / "two").write_text("y")
    return tmp_path


def test_what_is_kept(filled: Path) -> None:
    found = {(str(each.path.relative_to(filled)), each.names, each.left_over) for each in list_cache()}
    assert found == {
        ("run/pkgjail/layers/one", 4, False),
        ("run/pkgjail/layers/.new-half", 1, True),
        ("pkgjail/ld.so.cache/two", 1, False),
    }


def test_pruning_takes_what_was_not_used_since(filled: Path) -> None:
    """And nothing behind a link, nor what is newer, but for what is left over."""
    assert [each.path.name for each in prune_cache(older_than=time.time() - 3600)] == [".new-half"]
    assert prune_cache(older_than=time.time() - 3600) == ()
    removed = prune_cache(older_than=time.time() + 3600)
    assert {each.path.name for each in removed} == {"one", "two"}
    assert sorted(os.listdir(filled / "run/pkgjail/layers")) == ["lock"]
    assert Path("/etc/passwd").exists()


def test_pruning_leaves_what_a_jail_uses(filled: Path) -> None:
    """Without a mask's whiteouts the names that they hide would appear in the jail."""
    held = lock_shared([bytes(filled / "run/pkgjail/layers/one")])
    assert {each.path.name for each in prune_cache(older_than=time.time() + 3600)} == {"two", ".new-half"}
    assert (filled / "run/pkgjail/layers/one/link").is_symlink()
    unlock(held)
    assert {each.path.name for each in prune_cache(older_than=time.time() + 3600)} == {"one"}


def test_all_that_is_not_in_use(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects what the help says of `--days 0`."""
    assert filled.exists()
    assert main(["cache", "prune", "--days", "0"]) == 0
    assert main(["cache", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 kept, ")


def test_what_was_removed_is_not_held(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A jail is not entered by a layer that went between the choice and the entry."""
    place = bytes(filled / "run/pkgjail/layers/one")
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        (filled / "run/pkgjail/layers/one").rename(filled / "elsewhere")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    for _ in range(2):  # gone after it was opened, then before
        with pytest.raises(FileNotFoundError):
            lock_shared([place])


def test_the_command(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls"]) == 0
    out = capsys.readouterr().out
    assert "3 kept" in out
    assert "; 1 left over" in out
    assert main(["cache", "prune", "--days", "-1", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out)
    assert {(Path(row["path"]).name, row["left_over"]) for row in removed} == {
        ("one", False),
        ("two", False),
        (".new-half", True),
    }
    assert main(["cache", "prune"]) == 0
    assert "0 removed" in capsys.readouterr().out
    assert filled.is_dir()


def test_the_plan_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Without privilege, and without entering."""
    assert main(["mounts", "--steps", "base"]) == 0
    text = capsys.readouterr().out
    assert "/usr: tree: one data overlay, over a tree of metadata\n" in text
    assert "\nDevices /dev\n" in text
    assert main(["mounts", "--json", "--strategy", "binds", "--no-network", "base"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["steps"]["HostFile"] > 1000
    assert "Overlay" not in facts["steps"]
    assert facts["network"] is False


_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def _given_away(place: Path) -> None:
    os.chown(place, 65534, 65534)


def _linked(place: Path) -> None:
    place.rename(place.with_name("other"))
    place.symlink_to("other")


def _a_pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place, 0o600)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.chmod(0o666), id="others may write to the file"),
        pytest.param(lambda file: file.parent.chmod(0o777), id="others may write to the directory"),
        pytest.param(_linked, id="a link"),
        pytest.param(_a_pipe, id="a pipe that nobody writes to"),
        pytest.param(_given_away, id="another user's file", marks=_ROOT),
        pytest.param(lambda file: _given_away(file.parent), id="another user's directory", marks=_ROOT),
    ],
)
def test_what_a_stranger_put_there_is_not_read(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """HOME or XDG_RUNTIME_DIR may still be another user's, as after `su`, who could plant a record."""
    file = tmp_path / "kept" / "record"
    write_own_file(str(file), b"ours")
    assert read_own_file(str(file)) == b"ours"
    change(file)
    with pytest.raises(OSError, match=r"alone|symbolic"):
        read_own_file(str(file))


def test_nothing_is_kept_with_a_stranger(tmp_path: Path) -> None:
    """Others could put a link, or a pipe, in the place of what is being written."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o777)
    with pytest.raises(PermissionError):
        write_own_file(str(tmp_path / "kept" / "record"), b"ours")
    assert list((tmp_path / "kept").iterdir()) == []
