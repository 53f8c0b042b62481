"""Hashing: the right digest, whatever the cache holds and whoever interferes."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.errors import PkgjailError
from pkgjail.storage import digest_cache as hash_cache
from pkgjail.storage import hashing
from pkgjail.storage.digest_cache import Identity
from pkgjail.storage.hashing import HashCache, hash_files

if TYPE_CHECKING:
    from collections.abc import Callable

LATER_NS = 10_000_000_000


class Log:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.warnings: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        """Remember a step."""
        assert task == "hashing"
        self.steps.append((done, total))

    def warn(self, message: str) -> None:
        """Remember a warning."""
        self.warnings.append(message)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with some files, one of them by two names, one with a name that is not UTF-8."""
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    for name, content in ((b"a", b"alpha"), (b"empty", b""), (b"\xff\n", b"name"), (b"large", b"x" * 2**20)):
        Path(os.fsdecode(bytes(root / "usr") + b"/" + name)).write_bytes(content)
    os.link(root / "usr/a", root / "usr/a2")
    return root


PATHS = [b"/usr/large", b"/usr/a", b"/usr/empty", b"/usr/\xff\n", b"/usr/a2"]
EXPECTED = {
    b"/usr/large": hashlib.sha256(b"x" * 2**20).hexdigest(),
    b"/usr/a": hashlib.sha256(b"alpha").hexdigest(),
    b"/usr/empty": hashlib.sha256(b"").hexdigest(),
    b"/usr/\xff\n": hashlib.sha256(b"name").hexdigest(),
    b"/usr/a2": hashlib.sha256(b"alpha").hexdigest(),
}


@pytest.fixture
def cache(tmp_path: Path) -> HashCache:
    """A cache that is not there yet."""
    return HashCache(tmp_path / "cache" / "pkgjail" / "hashes.sqlite")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files have been at rest for a while: the clock is ten seconds on."""
    real = time.time_ns
    monkeypatch.setattr(hashing, "time_ns", lambda: real() + LATER_NS)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the files that are read in this process, as they are read."""
    seen: list[bytes] = []
    real = hashing._hash_file

    def hash_file(file: hashing._File) -> hashing._Hashed:
        seen.append(os.path.basename(file.path))
        return real(file)

    monkeypatch.setattr(hashing, "_hash_file", hash_file)
    return seen


@pytest.mark.parametrize("slash", [b"", b"/"])
def test_digests_stand_in_the_order_of_the_paths(tree: Path, slash: bytes) -> None:
    """Names of any bytes, empty files, hard links; a root with and without a final slash."""
    log = Log()
    digests = hash_files(PATHS, root=bytes(tree) + slash, cache=None, reporter=log)
    assert list(digests.items()) == list(EXPECTED.items())
    assert (log.steps[0], log.steps[-1]) == ((0, 4), (4, 4))
    assert log.warnings == []


def test_processes_give_the_same_answer(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is worth while the work is shared out, and no child is left."""
    monkeypatch.setattr(hashing, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(hashing, "_LEAST_SHARE", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    log = Log()
    assert hash_files(PATHS, root=bytes(tree), reporter=log) == EXPECTED
    assert log.steps[-1] == (4, 4)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_shares_are_balanced_and_whole() -> None:
    """Every file is in one share, the large ones first, and no share is much above the mark."""
    sizes = [10 * 2**20, *[2**10] * 2000, 3 * 2**20]
    files = [
        hashing._File(b"/%d" % index, Identity(1, index, size, 0, 0)) for index, size in enumerate(sizes)
    ]
    shares = hashing._shares(files, 2**21)
    assert sorted(file for share in shares for file in share) == sorted(files)
    assert [len(share) for share in shares[:2]] == [1, 1]
    assert all(sum(map(hashing._cost, share)) < 2**21 + 2**16 for share in shares[2:])


# --- what is not a file -----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["absent", "symlink", "fifo", "directory"])
def test_only_regular_files_are_hashed(tree: Path, what: str) -> None:
    """Nothing is followed, nothing blocks, and the error tells the path."""
    path = tree / "usr" / what
    make: dict[str, Callable[[], object]] = {
        "absent": lambda: None,
        "symlink": lambda: path.symlink_to("a"),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }
    make[what]()
    with pytest.raises(OSError, match="not a regular file" if what != "absent" else "No such file") as caught:
        hash_files([b"/usr/" + what.encode()], root=bytes(tree))
    assert caught.value.filename == bytes(path)


@pytest.mark.parametrize("what", ["symlink", "fifo"])
def test_what_is_exchanged_before_it_is_opened_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A symlink put in a file's place after it was found is not followed; a pipe is not waited for."""
    real = hashing._hash_file

    def exchange(file: hashing._File) -> hashing._Hashed:
        os.unlink(file.path)
        os.symlink("a", file.path) if what == "symlink" else os.mkfifo(file.path)
        return real(file)

    monkeypatch.setattr(hashing, "_hash_file", exchange)
    with pytest.raises(
        OSError, match="symbolic links" if what == "symlink" else "not a regular file"
    ) as caught:
        hash_files([b"/usr/empty"], root=bytes(tree))
    assert caught.value.filename == bytes(tree / "usr/empty")


def test_an_error_in_a_process_reaches_the_caller(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's name comes over from the process that failed, and no child is left."""
    monkeypatch.setattr(hashing, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    real = hashing._hash_in_processes

    def unlink_first(*arguments: object) -> None:
        (tree / "usr/large").unlink()
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashing, "_hash_in_processes", unlink_first)
    with pytest.raises(FileNotFoundError) as caught:
        hash_files(PATHS, root=bytes(tree))
    assert caught.value.filename == bytes(tree / "usr/large")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- files that change ------------------------------------------------------------------------


def change_while_read(monkeypatch: pytest.MonkeyPatch, path: Path, times: int) -> None:
    """Append to `path` after each of the first `times` readings of it."""
    real = hashing._read
    left = [times]

    def read(descriptor: int, name: bytes) -> tuple[int, str]:
        answer = real(descriptor, name)
        if left[0]:
            left[0] -= 1
            with path.open("ab") as file:
                file.write(b"!")
        return answer

    monkeypatch.setattr(hashing, "_read", read)


def test_a_file_that_changes_once_is_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is that of the file at rest."""
    change_while_read(monkeypatch, tree / "usr/a", 1)
    assert hash_files([b"/usr/a"], root=bytes(tree)) == {b"/usr/a": hashlib.sha256(b"alpha!").hexdigest()}


def test_a_file_that_keeps_changing_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest of a file that nobody can have seen whole."""
    change_while_read(monkeypatch, tree / "usr/a", 99)
    with pytest.raises(PkgjailError, match="usr/a: it changes while it is read"):
        hash_files([b"/usr/a"], root=bytes(tree))


# --- the cache --------------------------------------------------------------------------------


@pytest.mark.usefixtures("later")
def test_the_cache_spares_reading(tree: Path, cache: HashCache, reads: list[bytes]) -> None:
    """A second run reads nothing; the cache is the user's alone."""
    log = Log()
    assert hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log) == EXPECTED
    assert len(reads) == len(EXPECTED) - 1
    reads.clear()
    assert hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log) == EXPECTED
    assert reads == []
    assert log.warnings == []
    assert log.steps[-1] == (4, 4)
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("later")
def test_a_change_that_keeps_size_and_mtime_is_seen(tree: Path, cache: HashCache) -> None:
    """Whoever sets the times back can't hide a change: the kernel sets ctime."""
    path = tree / "usr/a"
    before = path.stat()
    hash_files(PATHS, root=bytes(tree), cache=cache)
    path.write_bytes(b"ALPHA")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    digests = hash_files(PATHS, root=bytes(tree), cache=cache)
    assert digests[b"/usr/a"] == hashlib.sha256(b"ALPHA").hexdigest()


def test_a_file_that_is_not_at_rest_is_not_kept(tree: Path, cache: HashCache, reads: list[bytes]) -> None:
    """A change within the clock's resolution after the reading would look like no change."""
    hash_files(PATHS, root=bytes(tree), cache=cache)
    reads.clear()
    hash_files(PATHS, root=bytes(tree), cache=cache)
    assert sorted(reads) == [b"a2", b"empty", b"large", b"\xff\n"]


DIGEST = hashlib.sha256(b"").hexdigest()


def test_lookup_compares_all_of_the_identity(cache: HashCache) -> None:
    """Each number counts; 64-bit numbers of any size, and more of them than one query takes."""
    one = Identity(2**64 - 1, 2**63, 3, 4, 5)
    many = {Identity(7, inode, 3, 4, 5): DIGEST for inode in range(2000)}
    log = Log()
    cache.store({one: DIGEST, **many}, log)
    assert cache.lookup([one], log) == {one: DIGEST}
    for field in one._fields:
        assert cache.lookup([one._replace(**{field: 6})], log) == {}, field
    assert cache.lookup(list(many), log) == many
    assert log.warnings == []


def test_a_newer_digest_replaces_the_older(cache: HashCache) -> None:
    """A file is kept once, as it was last."""
    old, new = Identity(1, 2, 3, 4, 5), Identity(1, 2, 3, 4, 6)
    for identity in (old, new):
        cache.store({identity: DIGEST}, Log())
    assert cache.lookup([old], Log()) == {}
    assert cache.lookup([new], Log()) == {new: DIGEST}


def test_the_cache_stays_small(cache: HashCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full cache begins anew with what the last run found."""
    monkeypatch.setattr(hash_cache, "_FULL", 10)
    identities = [Identity(1, inode, 3, 4, 5) for inode in range(12)]
    cache.store(dict.fromkeys(identities[:8], DIGEST), Log())
    cache.store(dict.fromkeys(identities[8:], DIGEST), Log())
    assert cache.lookup(identities, Log()) == dict.fromkeys(identities[8:], DIGEST)


def garbage(path: Path) -> None:
    """Something that is no database."""
    path.write_bytes(b"garbage" * 1000)
    path.chmod(0o600)


def half(path: Path) -> None:
    """A database of which the second half is lost and overwritten."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff" * (len(data) // 2))


def other_table(path: Path) -> None:
    """A database of another program."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE hashes (something TEXT)")


def writable_by_others(path: Path) -> None:
    """A cache into which anyone could put hashes."""
    path.chmod(0o666)


def a_directory(path: Path) -> None:
    """A directory in the file's place."""
    path.unlink()
    path.mkdir()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", [garbage, half, other_table, writable_by_others, a_directory])
def test_a_bad_cache_is_one_warning_and_no_failure(
    tree: Path, cache: HashCache, damage: Callable[[Path], None]
) -> None:
    """Whatever is in the cache's place, the digests are right and the user hears of it once."""
    hash_files(PATHS, root=bytes(tree), cache=cache)
    damage(cache.path)
    log = Log()
    assert hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log) == EXPECTED
    assert len(log.warnings) == 1
    assert str(cache.path) in log.warnings[0]


@pytest.mark.usefixtures("later")
def test_a_damaged_cache_is_replaced(tree: Path, cache: HashCache, reads: list[bytes]) -> None:
    """The damage costs one run: the next one fills a new cache, the one after uses it."""
    cache.path.parent.mkdir(parents=True)
    garbage(cache.path)
    for _ in range(2):
        hash_files(PATHS, root=bytes(tree), cache=cache)
    reads.clear()
    log = Log()
    hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log)
    assert (reads, log.warnings) == ([], [])


def test_a_digest_of_the_wrong_form_is_not_believed(cache: HashCache) -> None:
    """Rows that this program can't have written count for nothing."""
    one = Identity(1, 2, 3, 4, 5)
    cache.store({one: DIGEST}, Log())
    for value in (b"short", "text" * 8, None):
        with closing(sqlite3.connect(cache.path)) as connection, connection:
            connection.execute("UPDATE hashes SET sha256 = ?", (value,))
        assert cache.lookup([one], Log()) == {}


@pytest.mark.usefixtures("later")
def test_a_locked_cache_is_one_warning(tree: Path, cache: HashCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's long transaction does not stop a run."""
    monkeypatch.setattr(hash_cache, "_WAIT_SECONDS", 0.01)
    cache.store({Identity(1, 2, 3, 4, 5): DIGEST}, Log())
    log = Log()
    with closing(sqlite3.connect(cache.path)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log) == EXPECTED
    assert len(log.warnings) == 1
    assert "locked" in log.warnings[0]


@pytest.mark.usefixtures("later")
def test_a_cache_that_cannot_be_made_is_one_warning(tree: Path, tmp_path: Path) -> None:
    """A home that is not writable, or not a directory, is no reason to stop."""
    (tmp_path / "file").write_text("")
    cache = HashCache(tmp_path / "file" / "hashes.sqlite")
    log = Log()
    assert hash_files(PATHS, root=bytes(tree), cache=cache, reporter=log) == EXPECTED
    assert len(log.warnings) == 1


def test_concurrent_users_lose_nothing(cache: HashCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three writers and their readers at the same time: all digests are there at the end."""
    monkeypatch.setattr(hash_cache, "_WAIT_SECONDS", 600)  # a busy machine is no failure here
    log = Log()

    def use(device: int) -> None:
        for inode in range(20):
            identity = Identity(device, inode, 3, 4, 5)
            cache.store({identity: DIGEST}, log)
            assert cache.lookup([identity], log) == {identity: DIGEST}

    threads = [threading.Thread(target=use, args=(device,)) for device in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [Identity(device, inode, 3, 4, 5) for device in range(3) for inode in range(20)]
    assert len(cache.lookup(everything, log) or {}) == len(everything)
    assert log.warnings == []


def test_the_default_cache_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The XDG directory where it is set, ~/.cache else, and none for a user without a home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default = HashCache.default()
    assert default is not None
    assert default.path == tmp_path / "pkgjail" / "hashes.sqlite"

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(hash_cache, "cache_directory", no_home)
    assert HashCache.default() is None


# --- children ---------------------------------------------------------------------------------

HASH_SLOWLY = """
import os, sys, time
from pkgjail.storage import hashing

def hash_file(file):
    sys.stdout.write(f"{os.getpid()}\\n")
    sys.stdout.flush()
    time.sleep(SECONDS)
    return hashing._Hashed(file.identity, "", None)

hashing._hash_file = hash_file
hashing._WORTH_A_PROCESS = hashing._LEAST_SHARE = 1
os.sched_getaffinity = lambda _: {0, 1}
hashing.hash_files([os.fsencode(name) for name in sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGINT, "0.3"), (signal.SIGTERM, "60"), (signal.SIGKILL, "60")]
)
def test_no_child_outlives_the_run(tree: Path, number: signal.Signals, seconds: str) -> None:
    """Ctrl-C, a kill, a kill that can't be caught: the hashing processes end with their parent."""
    names = [str(tree / "usr" / name) for name in ("a", "large", "empty")]
    code = HASH_SLOWLY.replace("SECONDS", seconds)
    with subprocess.Popen(
        [sys.executable, "-c", code, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(hashing.__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        children = [int(process.stdout.readline()) for _ in range(2)]
        assert len({*children, process.pid}) == len(children) + 1
        process.send_signal(number)
        # The pipe ends when the last of them has closed it.
        process.stdout.read()
        errors = process.stderr.read().decode()
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_a_killed_hashing_process_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The out-of-memory killer's choice does not hang the run."""
    monkeypatch.setattr(hashing, "_WORTH_A_PROCESS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    parent = os.getpid()

    def die(_: object) -> None:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(hashing, "_hash_file", die)
    with pytest.raises(PkgjailError, match="a hashing process was killed"):
        hash_files(PATHS, root=bytes(tree))


def test_a_file_that_cannot_be_read_is_named() -> None:
    """read(2) fails after open(2) did not, as on a bad disk; here since nothing is mapped at address 0."""
    with pytest.raises(OSError, match="Input/output error") as caught:
        hash_files([b"/proc/self/mem"])
    assert caught.value.filename == b"/proc/self/mem"
