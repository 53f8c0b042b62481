"""The fixed environment of all other tests (tests/surroundings.py)."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import surroundings
from tests.conftest import TOP, UNMEASURED
from tests.debian_roots import make_root

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS = "var/lib/dpkg/status"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of dpkg's with one package."""
    make_root(tmp_path / "root", "one 1 amd64", files={"var/lib/dpkg/info/one.list": "/.\n"})
    place = tmp_path / "root/var/lib/dpkg"
    (place / "updates").mkdir()
    return place


def test_this_session_has_surroundings_of_its_own() -> None:
    """Whatever the caller had."""
    assert [name for name in os.environ if name.startswith("GIT_")] == []
    assert "PYTHONPATH" not in os.environ
    assert os.environ["LANG"] == "C.UTF-8"
    assert Path.home().parent == Path(tempfile.gettempdir())
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o001 for path in Path(tempfile.gettempdir()).parents)
    before = os.umask(0o022)
    assert os.umask(before) == 0o022


_FREEZING = """
import sys
from pathlib import Path
from tests import surroundings
file = Path(sys.argv[1], "file")
print(surroundings.freeze(file.parent), flush=True)
sys.stdin.readline()
print(file.read_text(), file.parent.name in Path("/proc/self/mountinfo").read_text())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI is root")
def test_what_others_write_does_not_reach_the_tests(tmp_path: Path) -> None:
    """Protects from installations by other processes; the mount is seen by no other process."""
    place = tmp_path / "frozen-directory"
    place.mkdir()
    (place / "file").write_text("old")
    command = [sys.executable, "-c", _FREEZING, str(place)]
    with subprocess.Popen(command, cwd=TOP, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        if other.stdout.readline() == "False\n":
            pytest.skip("this host does not let root mount")
        (place / "file").write_text("new")
        assert place.name not in Path("/proc/self/mountinfo").read_text()
        assert other.communicate("\n")[0] == "old True\n"


def test_the_caller_s_variables() -> None:
    """Protects from variables that lead pkgjail or other programs elsewhere; settings of the tests stay."""
    given = {
        "HOME": "relative", "XDG_CACHE_HOME": "/gone", "PKGJAIL_SHARED_DIR": "/gone", "PYTHONPATH": "/gone",
        "PYTHONSAFEPATH": "1", "GIT_DIR": "/gone", "LC_ALL": "tr_TR", "TZ": "Asia/Kathmandu", "NO_COLOR": "1",
        "PKGJAIL_EXAMPLES": "7", "COVERAGE_RUN": "yes", "PATH": ".:/usr/bin:", "https_proxy": "http://proxy",
    }  # fmt: skip
    assert surroundings.own_environment(given, "/home/tests") == {
        "HOME": "/home/tests", "LANG": "C.UTF-8", "PATH": "/usr/bin", "PKGJAIL_EXAMPLES": "7",
        "COVERAGE_RUN": "yes", "https_proxy": "http://proxy",
    }  # fmt: skip


@pytest.mark.parametrize("closed", ["0", "1", "0 1 2"])
def test_closed_descriptors_are_opened(tmp_path: Path, closed: str) -> None:
    """Protects from a test's file that becomes the standard input or output of a program."""
    code = f"""
import os
from tests import surroundings
for number in map(int, {closed!r}.split()):
    os.close(number)
surroundings.open_standard_descriptors()
opened = os.open({str(tmp_path)!r}, os.O_RDONLY)
os._exit(opened <= 2)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, check=False, timeout=60)
    assert done.returncode == 0


def test_ignored_signals_have_their_usual_actions() -> None:
    """Protects tests of keys in a session that a script started in the background (`make test &`)."""
    code = """
import signal
from tests import surroundings
surroundings.restore_signals()
signal.raise_signal(signal.SIGQUIT)
"""
    done = subprocess.run(
        ["sh", "-c", 'trap "" QUIT; exec "$@"', "sh", sys.executable, "-c", code],
        cwd=TOP, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGQUIT


@pytest.mark.parametrize(
    ("mode", "name"),
    [pytest.param(0o700, "private", id="its owner's alone"), pytest.param(0o755, "x" * 80, id="too long")],
)
def test_a_temporary_directory_that_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, name: str
) -> None:
    """Protects programs that other users run from there, and sockets, whose names are short."""
    place = tmp_path / name
    place.mkdir(mode=mode)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    made = surroundings.temporary_directory()
    assert os.path.dirname(made) == "/tmp"
    os.rmdir(made)


def test_what_killed_sessions_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories of sessions that run, or failed today, stay."""
    monkeypatch.setattr(surroundings, "_LONGEST_TMPDIR", 200)
    monkeypatch.setattr(surroundings, "_is_reached_by_all", lambda _: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, new, other = (tmp_path / name for name in ("pj-tests-old", "pj-tests-new", "other"))
    for place in (old, new, other):
        (place / "inner").mkdir(parents=True)
        if place is not new:
            os.utime(place, (0, 0))
    made = surroundings.temporary_directory()
    assert {path.name for path in tmp_path.iterdir()} == {"pj-tests-new", "other", os.path.basename(made)}


def _status(text: str) -> Callable[[Path], object]:
    def change(database: Path) -> None:
        status = database / "status"
        status.write_text(status.read_text().replace("install ok installed", f"install {text}", 1))

    return change


@pytest.mark.parametrize(
    ("change", "is_settled"),
    [
        pytest.param(lambda _: None, True, id="all is installed"),
        pytest.param(lambda database: (database / "updates/0001").touch(), False, id="updates"),
        pytest.param(lambda database: (database / "updates/tmp.i").touch(), True, id="what dpkg leaves"),
        pytest.param(_status("ok config-files"), True, id="removed"),
        pytest.param(_status("ok unpacked"), False, id="unpacked"),
        pytest.param(_status("reinstreq half-installed"), False, id="half installed"),
        pytest.param(_status("ok triggers-pending"), False, id="triggers"),
    ],
)
def test_when_dpkg_is_at_rest(database: Path, change: Callable[[Path], object], *, is_settled: bool) -> None:
    before = surroundings.state_of(database)
    change(database)
    after = surroundings.state_of(database)
    assert (before.is_settled, after.is_settled) == (True, is_settled)


def test_an_interrupted_dpkg_is_waited_for_in_vain(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds its lock, so nobody will finish its work: the tests run and report what they find."""
    monkeypatch.setattr(surroundings, "_BROKEN_SECONDS", 0.2)
    (database / "updates/0001").touch()
    began = time.monotonic()
    assert not surroundings.wait_for_rest(database).is_settled
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("at_rest", [0.1, 0.4])
def test_a_copy_is_of_one_state(database: Path, tmp_path: Path, at_rest: float) -> None:
    """Protects from a status of one time and lists of another: each version has files of its own."""
    done = threading.Event()
    time_of_all = (database / "status").stat().st_mtime_ns

    def work() -> None:
        for number in range(2, 12):
            (database / "updates/0001").touch()
            (database / "info/one.list.new").write_text("".join(f"/{number}/{n}\n" for n in range(number)))
            os.replace(database / "info/one.list.new", database / "info/one.list")
            text = (database / "status").read_text()
            head, _, tail = text.rpartition("Version: ")
            (database / "status-new").write_text(f"{head}Version: {number}{tail[tail.index(chr(10)) :]}")
            # Within a tick of the clock two files have the same time; those of one digit the same size too.
            os.utime(database / "status-new", ns=(time_of_all, time_of_all))
            os.replace(database / "status-new", database / "status")
            (database / "updates/0001").unlink()
            if done.wait(at_rest):
                return

    working = threading.Thread(target=work)
    working.start()
    try:
        surroundings.copy_at_rest(database, tmp_path / "copy")
    finally:
        done.set()
        working.join()
    version = (tmp_path / "copy/status").read_text().rpartition("Version: ")[2].strip()
    listed = (tmp_path / "copy/info/one.list").read_text()
    assert listed.startswith("/." if version == "1" else f"/{version}/0\n")
    assert os.listdir(tmp_path / "copy/updates") == []


def test_a_copy_is_brought_up_to_date(database: Path, tmp_path: Path) -> None:
    """Removed names are gone, and modes, times and links are the same."""
    copy = tmp_path / "copy"
    copied: dict[Path, surroundings.Identity] = {}
    surroundings.copy_changes(database, copy, copied)
    (database / "info/one.list").unlink()
    (database / "info/two.list").write_text("/.\n")
    (database / "info/two.list").chmod(0o640)
    (database / "link").symlink_to("status")
    os.rmdir(database / "updates")
    surroundings.copy_changes(database, copy, copied)
    assert sorted(os.listdir(copy / "info")) == ["format", "two.list"]
    assert not (copy / "updates").exists()
    assert os.readlink(copy / "link") == "status"
    ours, theirs = (copy / "info/two.list").stat(), (database / "info/two.list").stat()
    assert (ours.st_mode, ours.st_mtime_ns) == (theirs.st_mode, theirs.st_mtime_ns)


def test_a_file_of_the_same_size_and_time_is_copied(tmp_path: Path) -> None:
    """Protects from an old status beside new lists: within a tick of the clock both have the same time."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    copied: dict[Path, surroundings.Identity] = {}
    for text in ("one", "two"):
        (source / "new").write_text(text)
        os.utime(source / "new", (1, 1))
        os.replace(source / "new", source / "status")
        surroundings.copy_changes(source, copy, copied)
        assert (copy / "status").read_text() == text


def test_every_process_of_tests_has_users_of_its_own() -> None:
    """Protects two sessions at once from removing each other's directories in /dev/shm."""
    code = "from tests.surroundings import own_user_id; print(own_user_id())"
    users = [surroundings.own_user_id(), surroundings.own_user_id()]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True, timeout=60
    )
    assert len({*users, int(other.stdout)}) == 3


def test_what_moves_with_packages_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that failed meanwhile is run again when that is over (tests/conftest.py)."""
    monkeypatch.setattr(surroundings, "_MOVING", (str(tmp_path), "/no/such/log"))
    before = surroundings.host_state()
    assert surroundings.host_state() == before
    (tmp_path / "new").touch()
    os.utime(tmp_path, (1, 1))
    assert surroundings.host_state() != before
    began = time.monotonic()
    surroundings.wait_for_host(0.1)
    assert time.monotonic() - began >= 0.1


def test_files_that_are_not_measured_exist() -> None:
    """Protects a file that was renamed from being measured again, which takes twice the time."""
    assert [name for name in sorted(UNMEASURED) if not (TOP / name).exists()] == []
