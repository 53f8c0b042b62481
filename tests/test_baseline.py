"""Baselines that serve other users: who is believed, and what that saves."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.baseline import (
    Baseline,
    Publisher,
    load_baseline,
    may_publish,
    publish_baseline,
    publisher_of,
    store_baseline,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Caller

KEY = "0" * 64
OLD, NEW = Baseline(at=10, states=(), names={}), Baseline(at=20, states=(), names={})


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared directory and a cache of this test's own."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setenv("PKGJAIL_SHARED_DIR", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


def me(made: int = 0) -> Publisher:
    return Publisher(owner=os.geteuid(), made=made, readable=True)


@pytest.mark.parametrize(("own", "published"), [(OLD, NEW), (NEW, OLD), (None, NEW), (NEW, None)])
def test_the_newest_baseline_counts(own: Baseline | None, published: Baseline | None) -> None:
    """Protects users whose own baseline is older than the owner's, and the other way round."""
    if own is not None:
        store_baseline(KEY, own)
    if published is not None:
        publish_baseline(KEY, published)
    assert load_baseline(KEY, me()) == NEW


def test_a_manifest_made_later_supersedes_older_baselines() -> None:
    """Protects from files without digests that the owner accepted by making the manifest again."""
    store_baseline(KEY, NEW)
    assert load_baseline(KEY, me(made=NEW.at)) == NEW
    assert load_baseline(KEY, me(made=NEW.at + 61_000_000_000)) is None


def _writable(place: Path) -> None:
    place.chmod(stat.S_IMODE(place.stat().st_mode) | 0o002)


def _linked(place: Path) -> None:
    moved = place.with_name("moved")
    place.rename(moved)
    place.symlink_to(moved)


def _fifo(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("spoil", [_writable, _linked, _fifo])
def test_a_place_that_others_may_have_changed_is_not_believed(
    shared: Path, level: int, spoil: object
) -> None:
    """Protects from whoever makes a name in /var/tmp, at each level of the path."""
    publish_baseline(KEY, NEW)
    uid = os.geteuid()
    places = [
        shared / f"pkgjail-{uid}",
        shared / f"pkgjail-{uid}/baselines",
        shared / f"pkgjail-{uid}/baselines" / KEY,
    ]
    assert load_baseline(KEY, me()) == NEW
    assert callable(spoil)
    spoil(places[level])
    assert load_baseline(KEY, me()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root; CI is root")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_another_users_baseline_is_not_believed(shared: Path, level: int) -> None:
    """Protects from a stranger who makes the name of root's, or of the owner's, beforehand."""
    publish_baseline(KEY, NEW)
    path = Path("pkgjail-0", "baselines", KEY).parts[: level + 1]
    os.chown(shared.joinpath(*path), 65534, 65534)
    assert load_baseline(KEY, me()) is None


@pytest.mark.parametrize(
    ("mode", "above", "owned", "readable"),
    [
        pytest.param(0o644, 0o755, True, True, id="a site's manifest"),
        pytest.param(0o600, 0o755, True, False, id="a private manifest"),
        pytest.param(0o644, 0o700, True, False, id="in a private directory"),
        pytest.param(0o644, 0o775, False, True, id="in a directory that a group can write"),
        pytest.param(0o644, 0o1777, False, True, id="in /tmp"),
    ],
)
def test_who_publishes(tmp_path: Path, mode: int, above: int, owned: bool, readable: bool) -> None:  # noqa: FBT001
    """Protects from believing the owner of a directory that others can write to as well."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "m.jsonl").touch()
    (place / "m.jsonl").chmod(mode)
    place.chmod(above)
    (tmp_path / "link").symlink_to(place / "m.jsonl")
    found = publisher_of(os.fsencode(tmp_path / "link"))
    assert found is not None
    assert (found.owner, found.readable) == (os.geteuid() if owned else None, readable)
    assert may_publish(found) == (readable and (owned or os.geteuid() == 0))


def test_a_directory_that_others_may_not_list_is_published_without_its_names(tmp_path: Path) -> None:
    """Protects the names of private directories, which root can list."""
    (tmp_path / "private").mkdir(mode=0o711)
    path = os.fsencode(tmp_path / "private")
    publish_baseline(KEY, Baseline(at=1, states=((path, 1, 2, 3, 4),), names={path: {b"secret": 5}}))
    found = load_baseline(KEY, me())
    assert found is not None
    assert found.names == {path: {}}


@pytest.fixture
def site() -> Iterator[Path]:
    """A directory of whoever runs the tests that every user can read."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-site-", dir="/var/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_the_owners_entry_serves_the_next_user(site: Path, caller: Caller, user: Caller) -> None:
    """Protects the hundredth user of a site's manifest: no file is hashed, and no baseline kept."""
    shared = {"PKGJAIL_SHARED_DIR": str(site / "shared")}
    (site / "shared").mkdir()
    (site / "shared").chmod(0o1777)
    manifest = site / "base.jsonl"
    caches = {}
    for who in (caller, user):
        caches[who.uid] = site / f"cache-{who.uid}"
        caches[who.uid].mkdir()
        os.chown(caches[who.uid], who.uid, who.uid)
        shared["XDG_CACHE_HOME"] = str(caches[who.uid])
        if who is caller:
            done = who.pkgjail("resolve", "base", "-o", manifest, environment=shared)
            assert done.returncode == 0, done.stderr
        done = who.pkgjail("run", manifest, "--", "true", environment=shared)
        assert (done.returncode, done.stderr) == (0, "")
    if caller.uid != user.uid:
        assert list(caches[user.uid].glob("pkgjail/baselines/*")) == []
        assert not (caches[user.uid] / "pkgjail/hashes.sqlite").exists()


def test_building_an_environment_serves_its_users(site: Path, caller: Caller, user: Caller) -> None:
    """Protects the users of an environment that its owner has not entered."""
    (site / "shared").mkdir()
    (site / "shared").chmod(0o1777)
    (site / "cache").mkdir()
    os.chown(site / "cache", user.uid, user.uid)
    shared = {"PKGJAIL_SHARED_DIR": str(site / "shared")}
    for words in (
        ("resolve", "base", "-o", site / "base.jsonl"),
        ("build", site / "base.jsonl", site / "env"),
    ):
        done = caller.pkgjail(*words, environment=shared)
        assert done.returncode == 0, done.stderr
    shared["XDG_CACHE_HOME"] = str(site / "cache")
    done = user.pkgjail("enter", site / "env", "--", "true", environment=shared)
    assert (done.returncode, done.stderr) == (0, "")
    if caller.uid != user.uid:
        assert not (site / "cache/pkgjail/baselines").exists()
    assert caller.pkgjail("remove", site / "env").returncode == 0
