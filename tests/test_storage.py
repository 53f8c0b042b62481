"""Storage between runs: files of other users are not trusted, and only the user's own are removed.

If the tests run as root, the other user is a real one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pkgjail.cli.main import main
from pkgjail.core.options import JailOptions, UserBind
from pkgjail.jails.run import default_environment, prepare_jail
from pkgjail.manifest import write_manifest
from pkgjail.storage import locations, locks, own_files, removal
from pkgjail.storage.atomic import write_own_file
from pkgjail.storage.cache import list_cache, prune_cache
from pkgjail.storage.digest_cache import Identity
from pkgjail.storage.hashing import HashCache
from pkgjail.storage.own_files import opened_directory, read_own_file
from pkgjail.storage.scratch import scratch
from tests.conftest import SYSTEM_PYTHON, _caller
from tests.surroundings import own_user_id
from tests.tree_text import remove_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pkgjail.core.model import Manifest, StrategyName
    from tests.conftest import Caller

_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
_VICTIM, _ATTACKER = own_user_id(), own_user_id()
_LONG_AGO = (0, 0)
# Days: what was last used before 1972 is pruned. What the tests' own user really keeps is newer.
_DAYS = "20000"


class Listening:
    """A reporter that remembers warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.told = threading.Event()

    def progress(self, task: str, done: int, total: int) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Remember it."""
        self.warnings.append(message)
        self.told.set()


def _plant(planted: str, place: Path, target: Path) -> None:
    """Have the attacker make something in `place`, with links to `target`."""
    script = f"import os, sys; _, place, target = sys.argv; {_PLANTED[planted]}"
    command = [SYSTEM_PYTHON, "-c", script, str(place), str(target)]
    subprocess.run(command, user=_ATTACKER, group=_ATTACKER, extra_groups=[], check=True)


def _of(place: str) -> list[Path]:
    return sorted(Path("/dev/shm").glob(f"{Path(place).name}*"))


@pytest.fixture
def user(library: Path) -> Iterator[Caller]:
    """An ordinary user whose place in /dev/shm no other test uses, where the tests run as root."""
    yield from _caller(os.geteuid() or _VICTIM, library)


@pytest.fixture
def usual() -> Iterator[Path]:
    """Where that user's layers lie without XDG_RUNTIME_DIR; nothing is there."""
    place = Path(f"/dev/shm/pkgjail-{_VICTIM}")
    yield place
    for each in _of(str(place)):
        if each.is_symlink() or not each.is_dir():
            each.unlink()
        else:
            remove_path(each)


@pytest.fixture
def treasure(user: Caller) -> Path:
    """Make files that the user would miss: old ones, and their directory."""
    place = user.home / "thesis"
    (place / "chapters").mkdir(parents=True)
    for path in (place / "chapters" / "one.tex", place / "notes"):
        path.write_text("years of work")
    for path in (place / "chapters" / "one.tex", place / "notes", place / "chapters", place):
        os.chown(path, user.uid, user.uid)
        os.utime(path, _LONG_AGO)
    return place


def _names(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


# --- another user ---------------------------------------------------------------------------------

_PLANTED = {
    "a link among the layers": "os.mkdir(place); os.symlink(target, place + '/layers')",
    "a link among the prepared": "os.mkdir(place); os.symlink(target, place + '/prepared')",
    "a link in its place": "os.symlink(target, place)",
    "names that act on a terminal": "os.makedirs(place + '/layers/\\x1b[2Jgone')",
    "a file": "os.close(os.open(place, os.O_CREAT))",
    "a pipe": "os.mkfifo(place)",
}


@_ROOT
@pytest.mark.parametrize("planted", _PLANTED)
def test_another_user_s_runtime_directory(user: Caller, usual: Path, treasure: Path, planted: str) -> None:
    """In /dev/shm anybody may make `pkgjail-UID` first. Nothing is deleted by it, and nothing listed."""
    _plant(planted, usual, treasure)
    before = _names(treasure)
    bare = {"XDG_RUNTIME_DIR": "", "XDG_CACHE_HOME": str(user.home / "cache")}
    for words in (("prune", "--days", _DAYS), ("prune",), ("ls",), ("ls", "--json")):
        done = user.pkgjail("cache", *words, environment=bare, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert "thesis" not in done.stdout
        assert "gone" not in done.stdout
        assert "\x1b" not in done.stdout
    assert _names(treasure) == before
    assert os.lstat(usual).st_uid == _ATTACKER


@_ROOT
@pytest.mark.parametrize(
    "level", [".cache", ".cache/pkgjail", ".cache/pkgjail/baselines", ".cache/pkgjail/ld.so.cache"]
)
def test_root_with_another_user_s_home(caller: Caller, user: Caller, treasure: Path, level: str) -> None:
    """As by `su` without `-`, or a sudo that keeps HOME: that user's links lead root anywhere."""
    link = user.home / level
    link.parent.mkdir(parents=True, exist_ok=True)
    for path in (user.home / ".cache", user.home / ".cache/pkgjail"):
        if path.is_dir():
            os.chown(path, user.uid, user.uid)
    for path in (treasure, *treasure.rglob("*")):  # root's own, and old
        os.chown(path, 0, 0)
        os.utime(path, _LONG_AGO)
    link.symlink_to(treasure)
    before = _names(treasure)
    home = {"HOME": str(user.home), "XDG_CACHE_HOME": ""}
    done = caller.pkgjail("cache", "prune", "--days", _DAYS, environment=home)
    assert done.returncode == 0, done.stderr
    assert "thesis" not in done.stdout
    assert _names(treasure) == before


@_ROOT
@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_directory_that_another_user_can_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Root's own directory in another user's: they can rename it, and put another there at any time."""
    theirs = tmp_path / "theirs"
    (theirs / "run").mkdir(parents=True, mode=0o700)
    os.chown(theirs, _ATTACKER, _ATTACKER)
    theirs.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(theirs / "run"))
    monkeypatch.setenv("HOME", str(theirs))
    assert locations.runtime_directory() == "/dev/shm/pkgjail-0"
    assert not locations.cache_directory().startswith(str(tmp_path))


@_ROOT
@pytest.mark.parametrize("how", ["a directory", "a link"])
def test_a_stranger_who_leaves_the_usual_place_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Between two looks of one run: what is opened then lies in the stranger's directory."""
    shm = tmp_path / "shm"
    shm.mkdir()
    shm.chmod(0o1777)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(locations, "_SHM", str(shm))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    usual, theirs = shm / f"pkgjail-{os.geteuid()}", tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    for path in (usual, theirs):
        path.mkdir(exist_ok=True)
        os.chown(path, _ATTACKER, _ATTACKER)
    assert "somebody else made it" in own_files.ensure_runtime_directory()
    usual.rmdir()
    chosen = locations.runtime_directory()
    assert chosen == str(usual)
    if how == "a link":
        usual.symlink_to(theirs)
        os.chown(usual, _ATTACKER, _ATTACKER, follow_symlinks=False)
    else:
        theirs.rename(usual)
    with pytest.raises(PermissionError):
        own_files.open_directory(f"{chosen}/layers", make=True)


@_ROOT
def test_names_like_the_usual_one_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may make 100,000 of them, and a run asks a dozen times where things are."""
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(locations, "_SHM", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    usual = tmp_path / f"pkgjail-{os.geteuid()}"
    usual.mkdir()
    os.chown(usual, _ATTACKER, _ATTACKER)
    own_files.ensure_runtime_directory()
    own = locations.runtime_directory()
    looks: list[object] = []
    listdir = os.listdir

    def listing(place: str) -> list[str]:
        looks.append(place)
        return listdir(place)

    monkeypatch.setattr(os, "listdir", listing)
    assert [locations.runtime_directory() for _ in range(3)] == [own] * 3
    assert looks == []
    os.rmdir(own)
    assert locations.runtime_directory() == str(usual)


def test_a_name_that_is_a_link_when_it_was_just_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody else owns the directory by then: no mode of what it leads to is changed."""
    target = tmp_path / "theirs"
    target.mkdir(mode=0o755)
    mkdir = os.mkdir

    def exchanged(path: str, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        os.rmdir(path)
        os.symlink(target, path)

    monkeypatch.setattr(os, "mkdir", exchanged)
    with pytest.raises(OSError, match="ot a directory"):
        own_files.open_directory(str(tmp_path / "new"), make=True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@_ROOT
@pytest.mark.parametrize("how", ["theirs", "open to all"])
def test_a_temporary_directory_that_others_may_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A TMPDIR left over by `su`: its owner gives root's old directory the name of one to be cleared.

    They could also lead what a jail writes there into any of root's directories.
    """
    tmp_path.chmod(0o755)
    place = tmp_path / "tmp"
    kept = place / "pkgjail-rpm-kept"
    kept.mkdir(parents=True, mode=0o700)
    (kept / "data").write_text("root's")
    os.utime(kept, _LONG_AGO)
    os.chown(place, _ATTACKER if how == "theirs" else 0, -1)
    place.chmod(0o755 if how == "theirs" else 0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with scratch("rpm") as made:
        assert not made.startswith(str(tmp_path))
    assert (kept / "data").read_text() == "root's"
    place.chmod(0o1777)
    os.chown(place, 0, -1)
    with scratch("rpm") as made:
        assert made.startswith(str(place))


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that passwd(5) does not have, as in containers: in memory, until the next boot."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert locations.cache_directory() == "/dev/shm/pkgjail-54321/cache"


# --- a name that somebody else has ------------------------------------------------------------------


def _run(user: Caller, manifest: Path, environment: dict[str, str]) -> tuple[bool, str]:
    """Whether the way in was the long one, and what was said."""
    command = [SYSTEM_PYTHON, "-X", "importtime", "-m", "pkgjail", "run", str(manifest), "--", "true"]
    done = user.run(command, environment=environment)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    is_long = any(line.endswith(" pkgjail.jails.run") for line in lines)
    return is_long, "\n".join(line for line in lines if not line.startswith("import time:"))


@pytest.fixture
def bare(user: Caller) -> dict[str, str]:
    """No XDG_RUNTIME_DIR, and a cache of this test's own."""
    return {"XDG_RUNTIME_DIR": "", "XDG_CACHE_HOME": str(user.home / "cache")}


@pytest.fixture
def manifest(user: Caller, base_manifest: Manifest) -> Path:
    path = user.home / "m.jsonl"
    write_manifest(base_manifest, path)
    path.chmod(0o644)
    return path


@_ROOT
def test_another_name_is_used_and_told_once(
    user: Caller, usual: Path, manifest: Path, bare: dict[str, str]
) -> None:
    """Whoever made the usual name costs this user nothing but the first run's warning."""
    _plant("a link among the layers", usual, user.home)
    is_long, said = _run(user, manifest, bare)
    assert is_long
    assert f"warning: cannot use the runtime directory {usual}: somebody else made it; {usual}-" in said
    assert _run(user, manifest, bare) == (False, "")
    mine = [path for path in _of(str(usual)) if path != usual]
    assert [(os.lstat(path).st_uid, stat.S_IMODE(os.lstat(path).st_mode)) for path in mine] == [
        (_VICTIM, 0o700)
    ]
    assert str(mine[0]) in user.pkgjail("cache", "ls", environment=bare).stdout
    done = user.pkgjail("cache", "prune", "--days", "-1", environment=bare)
    assert f"{mine[0]}/layers/tree-" in done.stdout


@_ROOT
def test_another_name_for_many_at_once(
    user: Caller, usual: Path, manifest: Path, bare: dict[str, str]
) -> None:
    _plant("a file", usual, user.home)
    options = user.options(bare)
    del options["capture_output"]
    command = [SYSTEM_PYTHON, "-m", "pkgjail", "run", str(manifest), "--", "true"]
    running = [
        subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(12)
    ]
    said = [each.communicate()[0] for each in running]
    assert [each.returncode for each in running] == [0] * 12, said
    mine = [path for path in _of(str(usual)) if path != usual]
    assert len([path for path in mine if (path / "layers").exists()]) >= 1
    assert _run(user, manifest, bare)[1] == ""


@_ROOT
@pytest.mark.parametrize("fault", ["a link", "another user", "others may write to it"])
def test_a_variable_that_names_no_private_directory(
    user: Caller, usual: Path, manifest: Path, bare: dict[str, str], fault: str
) -> None:
    """It is not used, the usual name is, and that is said once."""
    place = user.home / "run"
    place.mkdir(mode=0o700)
    if fault == "a link":
        place.rename(user.home / "real")
        os.chown(user.home / "real", _VICTIM, _VICTIM)
        place.symlink_to("real")
    elif fault == "another user":
        os.chown(place, _ATTACKER, _ATTACKER)
    else:
        os.chown(place, _VICTIM, _VICTIM)
        place.chmod(0o770)
    environment = {**bare, "XDG_RUNTIME_DIR": str(place)}
    is_long, said = _run(user, manifest, environment)
    assert is_long
    assert f"cannot use the runtime directory {place}: " in said
    assert fault in said
    assert _run(user, manifest, environment) == (False, "")
    assert (usual / "layers").is_dir()
    assert os.listdir(place) == []


def test_a_session_s_directory_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logind removes /run/user/UID at the last logout, and a jail that was left running needs its layers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert locations.runtime_directory() == str(tmp_path / "pkgjail")
    monkeypatch.setattr(locations, "_SESSIONS", f"{tmp_path.parent}/")
    assert locations.runtime_directory().startswith(f"/dev/shm/pkgjail-{os.geteuid()}")
    assert f"{tmp_path}/pkgjail" in locations.possible_runtime_directories()
    monkeypatch.setattr(locations, "_SHM", str(tmp_path / "none"))
    assert locations.runtime_directory() == str(tmp_path / "pkgjail")


# --- each level, and each kind of thing -----------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a runtime directory of this test's own, with a record in each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_own_file(str(tmp_path / "pkgjail/baselines/record"), b"ours")
    return tmp_path / "pkgjail"


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _hard_link(path: Path) -> None:
    os.link(path, path.with_name("elsewhere"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


@pytest.mark.parametrize(
    ("level", "change"),
    [
        ("", _link),
        ("baselines", _link),
        ("baselines/record", _link),
        ("baselines/record", _hard_link),
        ("baselines/record", _pipe),
        ("baselines/record", _directory),
        ("", lambda path: path.chmod(0o777)),
        ("baselines", lambda path: path.chmod(0o770)),
        ("baselines/record", lambda path: path.chmod(0o620)),
    ],
)
def test_each_level_must_be_what_pkgjail_made(
    own: Path, level: str, change: Callable[[Path], object]
) -> None:
    """No link is followed, none of it may be anybody else's doing, and a pipe is not waited for."""
    assert read_own_file(str(own / "baselines/record")) == b"ours"
    change(own / level)
    with pytest.raises(OSError, match=r"alone|symbolic|directory"):
        read_own_file(str(own / "baselines/record"))


@pytest.mark.parametrize("level", ["", "baselines", "baselines/record"])
def test_pruning_follows_no_link(own: Path, tmp_path: Path, level: str) -> None:
    target = tmp_path / "target"
    (own / level).rename(target)
    (own / level).symlink_to(target)
    before = _names(target)
    prune_cache(older_than=time.time() + 60)
    assert _names(target) == before
    assert target.exists()


@pytest.mark.parametrize("change", [_pipe, _directory, _hard_link, lambda path: path.chmod(0)])
def test_what_stands_in_a_writer_s_way_is_replaced(own: Path, change: Callable[[Path], object]) -> None:
    """Half-written files are worthless, of any kind."""
    record, new = own / "baselines/record", own / "baselines/.new-record"
    new.touch(mode=0o600)
    change(new)
    if new.is_dir():
        with pytest.raises(OSError, match=os.strerror(errno.EISDIR)):
            write_own_file(str(record), b"new")
        assert prune_cache(older_than=0)
    write_own_file(str(record), b"new")
    assert read_own_file(str(record)) == b"new"
    assert not new.exists()


@pytest.mark.parametrize("ending", ["", "-journal", "-wal"])
@pytest.mark.parametrize("change", [_pipe, _link, _hard_link])
def test_a_cache_of_hashes_that_is_no_file_of_ours(
    own: Path, ending: str, change: Callable[[Path], object]
) -> None:
    """SQLite opens its files by path, and would follow a link or wait for a pipe."""
    hashes, identity, listening = HashCache.default(), Identity(1, 2, 3, 4, 5), Listening()
    assert hashes is not None
    hashes.store({identity: "ab" * 32}, listening)
    assert hashes.lookup([identity], listening) == {identity: "ab" * 32}
    place = own / f"hashes.sqlite{ending}"
    place.touch()
    change(place)
    assert hashes.lookup([identity], listening) is None
    hashes.store({identity: "cd" * 32}, listening)
    assert len(listening.warnings) == 2
    assert all("alone" in warning or "symbolic" in warning for warning in listening.warnings)


# --- modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_all_that_is_made_is_the_user_s_alone(user: Caller, base_manifest: Manifest, umask: int) -> None:
    """Whatever the umask: with that of some batch systems, 000, everybody could write to the cache."""
    manifest = user.home / "m.jsonl"
    write_manifest(base_manifest, manifest)
    manifest.chmod(0o644)
    run = user.home / "run"
    environment = {"XDG_RUNTIME_DIR": str(run), "XDG_CACHE_HOME": str(user.home / "of mine" / "cache")}
    done = user.pkgjail("run", manifest, "--", "true", environment=environment, umask=umask)
    assert (done.returncode, done.stderr) == (0, "")
    made = {}
    for top in (run, user.home / "of mine"):
        for place, directories, files in os.walk(top):
            if Path(place).parent.name == "layers":
                directories.clear()  # what the jail shows has its own modes
            made.update({os.path.join(place, name): 0o600 for name in files})
            made[place] = 0o700
    assert len(made) > 8
    found = {path: stat.S_IMODE(os.lstat(path).st_mode) for path in made}
    assert found == made


def test_a_umask_that_takes_the_user_s_own_rights(own: Path) -> None:
    before = os.umask(0o777)
    try:
        write_own_file(str(own / "prepared/record"), b"kept")
        assert read_own_file(str(own / "prepared/record")) == b"kept"
    finally:
        os.umask(before)
    assert stat.S_IMODE((own / "prepared").stat().st_mode) == 0o700
    assert stat.S_IMODE((own / "prepared/record").stat().st_mode) == 0o600


def test_a_directory_that_is_not_pkgjail_s_own_is_left_as_it_is(tmp_path: Path) -> None:
    """A group's project, say: nothing is written into it, and its mode and names stay."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "thesis").touch()
    project.chmod(0o775)
    with pytest.raises(PermissionError):
        write_own_file(str(project / "record"), b"kept")
    assert os.listdir(project) == ["thesis"]
    assert stat.S_IMODE(project.stat().st_mode) == 0o775


def test_what_an_earlier_version_left_open(own: Path) -> None:
    """It is closed, nobody is locked out, and what others could have put there is not believed.

    What was never open to them stays: in there they could do nothing.
    """
    write_own_file(str(own / "record"), b"theirs, perhaps: a file of ours, but moved here")
    (own / "planted").mkdir()
    (own / "prepared").symlink_to("/etc")
    own.chmod(0o777)
    with pytest.raises(PermissionError):
        read_own_file(str(own / "baselines/record"))
    write_own_file(str(own / "baselines/another"), b"new")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert read_own_file(str(own / "baselines/record")) == b"ours"
    assert not os.path.lexists(own / "record")
    assert not os.path.lexists(own / "planted")
    write_own_file(str(own / "prepared/one"), b"new")
    (own / "baselines").chmod(0o733)
    write_own_file(str(own / "baselines/third"), b"new")
    assert [name for name in os.listdir(own / "baselines") if not name.startswith(".")] == ["third"]
    assert prune_cache(older_than=0)
    assert sorted(os.listdir(own)) == ["baselines", "prepared"]


# --- what is removed --------------------------------------------------------------------------------


def test_names_that_act_on_a_terminal(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are listed as they are, and do nothing: in words and as JSON."""
    for name in ("\x1b]0;owned\x07", "two\nlines", "\udcff", "\u202ereversed"):
        write_own_file(str(own / "baselines" / name), b"")
    assert main(["cache", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.rpartition("/")[2] for line in lines if f"{own}/baselines/" in line} == {
        "record", r"\x1b]0;owned\x07", r"two\nlines", r"\u202ereversed", r"\xff",
    }  # fmt: skip
    assert main(["cache", "ls", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(row["path"].isprintable() for row in json.loads(out))


def test_what_killed_writers_left_is_pruned(own: Path) -> None:
    """Whatever its age, unless some process is at work with it."""
    with opened_directory(str(own / "layers"), make=True) as shelf, opened_directory(str(own)) as top:
        at_work = removal.make_locked_directory(shelf, ".new-at-work")
        for name in (".new-one", ".going-two"):
            os.mkdir(name, dir_fd=shelf)
            os.mkdir(f"{name}/layer", dir_fd=shelf)
        os.mkdir(".probe", dir_fd=top)
    (own / "baselines/.new-three").touch(mode=0o600)
    (own / "baselines/.new-unreadable").touch(mode=0)
    assert sum(each.left_over for each in list_cache()) == 6
    removed = {each.path.name for each in prune_cache(older_than=0)}
    assert removed == {".new-one", ".going-two", ".probe", ".new-three", ".new-unreadable"}
    os.close(at_work)
    assert [each.path.name for each in prune_cache(older_than=0)] == [".new-at-work"]


def test_a_kill_while_a_layer_is_made_is_cleared(own: Path, base_manifest: Manifest) -> None:
    """By the next builder, of whatever layer, too: entry itself looks for nothing."""
    with opened_directory(str(own / "layers"), make=True) as shelf:
        os.mkdir(".new-left", dir_fd=shelf)
    prepare_jail(base_manifest, JailOptions(environment=default_environment(), plan="mask"))
    assert not [name for name in os.listdir(own / "layers") if name.startswith(".")]


_MOUNTED = """
import os, subprocess, sys
from pkgjail.storage.cache import prune_cache
inner = sys.argv[1] + "/pkgjail/layers/one/inner"
os.makedirs(inner, 0o700)
subprocess.run(["mount", "--bind", sys.argv[2], inner], check=True)
try:
    prune_cache(older_than=2**40)
except OSError as error:
    print(error.strerror)
"""


def test_what_is_mounted_there_is_left(tmp_path: Path) -> None:
    """A bind mount is on the same device; it is another's all the same."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "run").mkdir(mode=0o700)
    command = [
        "unshare",
        "-rm",
        sys.executable,
        "-c",
        _MOUNTED,
        str(tmp_path / "run"),
        str(tmp_path / "kept"),
    ]
    places_here = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        command, env={**os.environ, **places_here}, umask=0o077, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("is a mount, which pkgjail did not make\n", "")
    assert (tmp_path / "kept" / "file").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cleared", "pruned"])
def test_a_tree_of_any_depth_is_removed(own: Path, how: str) -> None:
    """A manifest may name a thousand directories in each other: what is left of its layer stops no entry."""
    place = own / "layers" / "deep"
    place.mkdir(parents=True)
    above = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=above)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        os.close(above)
        above = inner
    os.close(above)
    os.utime(place, _LONG_AGO)
    if how == "cleared":
        with opened_directory(str(own / "layers")) as directory:
            removal.remove_tree(directory, "deep")
    else:
        prune_cache(older_than=1)
    assert os.listdir(own / "layers") == []


def test_a_tree_whose_directories_are_closed_is_removed(own: Path) -> None:
    (own / "layers/one/closed/inner").mkdir(parents=True)
    (own / "layers").chmod(0o700)
    (own / "layers/one/closed/inner/file").touch()
    for path in ("layers/one/closed/inner", "layers/one/closed"):
        (own / path).chmod(0)
    with opened_directory(str(own / "layers")) as shelf:
        removal.remove_tree(shelf, "one")
    assert os.listdir(own / "layers") == []


@pytest.mark.slow
def test_a_tree_that_is_deeper_than_calls_and_descriptors_go_is_removed(own: Path) -> None:
    """Protects from a traceback, and from a tree that stays: a manifest has names of 2,000 levels."""
    (own / "layers").mkdir(mode=0o700)
    with opened_directory(str(own / "layers")) as shelf:
        place = os.dup(shelf)
        for _ in range(3000):
            os.mkdir("d", dir_fd=place)
            os.mkdir("e", dir_fd=place)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
            os.close(place)
            place = below
        os.close(place)
        (kept,) = (one for one in list_cache() if one.path.name == "d")
        assert kept.names == 5999
        removal.remove_tree(shelf, "d")
        assert os.listdir(shelf) == ["e"]


# --- a layer that goes while a jail shows it --------------------------------------------------------


@pytest.mark.parametrize("plan", ["tree", "mask"])
@pytest.mark.parametrize("harm", ["removed", "emptied", "renamed"])
def test_a_layer_that_is_removed_under_a_jail_is_told(
    own: Path, base_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, plan: StrategyName, harm: str
) -> None:
    """As a logout does it, or an epilog. A jail whose layer stays as it is hears nothing."""
    monkeypatch.setattr(locks, "_INTERVAL_SECONDS", 0.02)
    listening = Listening()
    sync = own.parent / "sync"
    sync.mkdir()
    bind = UserBind(source=bytes(sync), destination=b"/srv", writable=True)
    options = JailOptions(environment=default_environment(), plan=plan, binds=(bind,))
    jail = prepare_jail(base_manifest, options, reporter=listening)
    assert jail.enter(["sleep", "0.3"]) == 0
    assert listening.warnings == []
    (place, *_) = (path for path in (own / "layers").iterdir() if (path / "layer" / "bin").exists())
    reading, writing = os.pipe()
    standard_input = os.dup(0)
    os.dup2(reading, 0)

    def do_harm() -> None:
        while not (sync / "started").exists():
            time.sleep(0.02)
        if harm == "removed":
            remove_path(place)
        elif harm == "emptied":
            for path in (place / "layer").iterdir():
                remove_path(path)
        else:
            (place / "layer").rename(place / "other")
        listening.told.wait(20)
        os.close(writing)

    thread = threading.Thread(target=do_harm)
    thread.start()
    try:
        jail.run(["sh", "-c", "echo > /srv/started; read line"])
    finally:
        thread.join()
        os.dup2(standard_input, 0)
    assert len(listening.warnings) == 1
    assert f"is losing its files: {place} was removed or changed" in listening.warnings[0]


def test_the_short_way_tells_it_too(user: Caller, manifest: Path, bare: dict[str, str]) -> None:
    run = user.home / "run"
    run.mkdir(mode=0o700)
    os.chown(run, user.uid, user.uid)
    environment = {**bare, "XDG_RUNTIME_DIR": str(run)}
    _run(user, manifest, environment)
    command = [SYSTEM_PYTHON, "-m", "pkgjail", "run", str(manifest), "--", "sh", "-c", "echo in; read line"]
    options = user.options(environment)
    del options["capture_output"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command[-4:-3] = ["--"]
    with subprocess.Popen(command, **options, **pipes) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "in\n"
        shutil.rmtree(run / "pkgjail" / "layers")
        assert "pkgjail: warning: the running jail is losing its files" in running.stderr.readline()
        running.communicate("\n")
