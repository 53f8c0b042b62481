"""Baselines that serve other users: who is believed, and what that saves."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.core.errors import DriftError
from pkgjail.core.model import FileEntry
from pkgjail.jails.drift import DriftCheck, compare_host
from pkgjail.storage.baseline import (
    Baseline,
    Publisher,
    baseline_key,
    load_baseline,
    may_publish,
    publish_baseline,
    publisher_of,
    store_baseline,
    take_baseline,
)
from pkgjail.storage.cache import prune_cache
from tests.conftest import TOP
from tests.manifest_text import files_alone

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


def test_in_a_user_namespace_strangers_are_no_publishers() -> None:
    """All users that it does not map have one number there: root's files and any stranger's baseline."""
    code = "from pkgjail.storage.baseline import publisher_of; print(publisher_of(b'/etc/passwd'))"
    command = ["unshare", "-U", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
    assert done.stdout.startswith("Publisher(owner=None, ")
    assert publisher_of(b"/etc/passwd") == Publisher(0, os.stat("/etc/passwd").st_mtime_ns, readable=True)


def test_a_stranger_who_locks_what_is_published_stops_nobody(shared: Path) -> None:
    """Neither the next who publishes, after one that was killed, nor who prunes."""
    publish_baseline(KEY, OLD)
    shelf = shared / f"pkgjail-{os.geteuid()}/baselines"
    (shelf / f".new-{KEY}").touch(mode=0o644)
    strangers = [os.open(shelf / name, os.O_RDONLY) for name in (KEY, f".new-{KEY}")]
    for stranger in strangers:
        fcntl.flock(stranger, fcntl.LOCK_EX)
    publishing = threading.Thread(target=publish_baseline, args=(KEY, NEW), daemon=True)
    publishing.start()
    publishing.join(30)
    assert not publishing.is_alive()
    assert load_baseline(KEY, me()) == NEW
    os.utime(shelf / KEY, (0, 0))
    fcntl.flock(os.open(shelf / KEY, os.O_RDONLY), fcntl.LOCK_EX)
    assert {each.path.name for each in prune_cache(older_than=1)} >= {KEY, f".new-{KEY}"}
    assert os.listdir(shelf) == []


def test_a_directory_that_others_may_not_list_is_published_without_its_names(tmp_path: Path) -> None:
    """Protects the names of private directories, which root can list."""
    (tmp_path / "private").mkdir(mode=0o711)
    path = os.fsencode(tmp_path / "private")
    publish_baseline(KEY, Baseline(at=1, states=((path, 1, 2, 3, 4),), names={path: {b"secret": 5}}))
    found = load_baseline(KEY, me())
    assert found is not None
    assert found.names == {path: {}}


def test_what_lies_in_a_private_directory_is_not_published(tmp_path: Path) -> None:
    """However open the directories in it are: nobody else can go there."""
    tmp_path.chmod(0o755)
    (tmp_path / "private").mkdir(mode=0o700)
    inner = tmp_path / "private/inner"
    inner.mkdir(mode=0o755)
    path = os.fsencode(inner)
    publish_baseline(KEY, Baseline(at=1, states=((path, 1, 2, 3, 4),), names={path: {b"secret": 5}}))
    found = load_baseline(KEY, me())
    assert found is not None
    assert found.names == {path: {}}


@pytest.mark.parametrize(
    "directories",
    [
        pytest.param('["/usr\\u0000", 1, 2, 3, 4, {}]', id="a NUL in a path"),
        pytest.param('["usr", 1, 2, 3, 4, {}]', id="a relative path"),
        pytest.param(",".join(["[]"] * 3_000_000), id="lists that fill the memory"),
        pytest.param(f'["/usr", {"9" * 5000}, 2, 3, 4, {{}}]', id="a number that takes minutes"),
    ],
)
def test_a_baseline_that_pkgjail_would_not_write(
    shared: Path, monkeypatch: pytest.MonkeyPatch, directories: str
) -> None:
    """Protects from the owner of a manifest's directory: whatever they publish, the files are compared."""
    publish_baseline(KEY, NEW)
    place = shared / f"pkgjail-{os.geteuid()}/baselines" / KEY
    place.write_text(f'{{"format": 2, "at": 1, "directories": [{directories}]}}')
    parsed: list[str] = []
    loads = json.loads

    def parsing(text: str, **options: Any) -> object:
        parsed.append(text)
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", parsing)
    assert load_baseline(KEY, me()) is None
    assert all(len(text) < 1 << 20 for text in parsed)


@pytest.mark.skipif(os.geteuid() != 0, reason="there must be another user; CI is root")
@pytest.mark.parametrize("whole", [True, False], ids=["as it is", "after a directory changed"])
def test_another_users_baseline_serves_that_users_manifest_alone(
    tmp_path: Path, shared: Path, user: Caller, *, whole: bool
) -> None:
    """The same manifest lies in the site's directory: who entered the stranger's does not vouch for it.

    Root would publish it in root's name, for everybody.
    """
    host = tmp_path / "host"
    (host / "opt").mkdir(parents=True)
    (host / "opt/file").write_text("evil")
    (host / "etc").mkdir()
    entries = (
        FileEntry(path=b"/", kind="directory", mode=0o755, origin="parent"),
        FileEntry(path=b"/etc", kind="directory", mode=0o755, origin="parent"),
        FileEntry(path=b"/opt", kind="directory", mode=0o755, origin="parent"),
        FileEntry(
            path=b"/opt/file",
            kind="regular",
            mode=0o644,
            size=4,
            sha256=hashlib.sha256(b"good").hexdigest(),
            origin="package",
        ),
    )
    manifest, root = files_alone(entries), bytes(host)
    key = baseline_key(entries, root)
    forged = take_baseline(entries, root)._replace(at=1 << 62)
    publish_baseline(key, forged)
    theirs = shared / f"pkgjail-{user.uid}"
    (shared / f"pkgjail-{os.geteuid()}").rename(theirs)
    for path in (theirs, theirs / "baselines", theirs / "baselines" / key):
        os.chown(path, user.uid, user.uid)
    if not whole:
        (host / "new").touch()
    stranger = Publisher(owner=user.uid, made=0, readable=True)
    assert compare_host(manifest, root, DriftCheck(publisher=stranger)).accepted == ()
    for publisher in (None, me()):
        with pytest.raises(DriftError, match="/opt/file has other content"):
            compare_host(manifest, root, DriftCheck(publisher=publisher))


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
        caches[who.uid].mkdir(exist_ok=True)  # the same one, unless root runs the tests
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
