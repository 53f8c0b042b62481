"""What several test files share: manifests of this host, and a way to run as an ordinary user."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

import pkgjail
from pkgjail.api import resolve
from pkgjail.manifest import write_manifest
from tests import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pkgjail.core.model import Manifest

TOP = Path(__file__).resolve().parent.parent
# The distribution's own interpreter: every user may execute it, and it imports python-apt.
SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
# How many random file trees are tried for exactness, over all plans and users; `make test-long` sets it.
EXAMPLES = int(os.environ.get("PKGJAIL_EXAMPLES", "500"))
# No test is timed: how long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Real Spacks for the tests of `pkgjail.integrations.spack`; they run against a stand-in where there is none.
SPACK_ROOT = os.environ.get("PKGJAIL_SPACK_ROOT", "")
_MADE, _FAILED = pytest.StashKey[str](), pytest.StashKey[bool]()
# Set if no test waits for dpkg: they see a copy of the host's package database, or none reads it.
_FROZEN = "PKGJAIL_TEST_FROZEN"
_IMPORTED = (
    "networkx", "pathspec", "debian", "rich", "pygments", "markdown_it", "mdurl", "argcomplete", "elftools",
)  # fmt: skip

# Tests that add nothing to the coverage: they run programs that coverage does not see, or code that others
# test line by line. Measuring a test doubles its time.
UNMEASURED = frozenset(
    f"tests/{name}.py"
    for name in (
        "environments/test_interruptions", "test_acceptance", "test_bounded_available",
        "test_copied_binds_faults",
        "test_bounded_databases", "test_bounded_lists", "test_closure_oracle", "test_docs",
        "test_docs_examples", "test_escapes", "test_exactness", "test_exactness_host", "test_faults",
        "test_floods",
        "test_fuzz_corpus", "test_homeless", "test_layout", "test_limits_guest", "test_manifest_properties",
        "test_nesting", "test_packaging", "test_proc_links", "test_real_closure_oracle", "test_real_digests",
        "test_real_files", "test_real_installers", "test_shipped_here", "test_surroundings",
    )
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Set up the environment of the tests (tests/surroundings.py). Workers inherit it."""
    if hasattr(config, "workerinput"):
        return
    surroundings.open_standard_descriptors()
    surroundings.restore_signals()
    os.umask(0o022)
    made = surroundings.temporary_directory()
    config.stash[_MADE] = made
    home = Path(made, "home")
    home.mkdir(mode=0o700)
    environment = surroundings.own_environment(os.environ, str(home))
    os.environ.clear()
    os.environ.update(environment, TMPDIR=made)
    tempfile.tempdir = None
    if not config.option.basetemp:
        config.option.basetemp = f"{made}/pytest-0"
    # Tests of `make quick` read no package database: there is nothing to copy, and nothing to wait for.
    is_quick = config.pluginmanager.hasplugin("tests.pure")
    if is_quick or (
        not config.option.collectonly and surroundings.freeze(surroundings.DPKG, surroundings.LISTS)
    ):
        os.environ[_FROZEN] = "yes"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's directory, unless a test failed: its files may be needed."""
    made = config.stash.get(_MADE, "")
    if made and not config.stash.get(_FAILED, False):
        shutil.rmtree(made, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test COVERAGE=1` does not measure."""
    for item in items:
        if item.nodeid.partition("::")[0] in UNMEASURED:
            item.add_marker(pytest.mark.unmeasured)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test. Run it again, up to three times, if it failed while packages came or went on the host.

    For example, a second entry is not the short one if directories changed since the first. Such a test
    needs a host that does not change for as long as the test takes.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for is_last in (False, False, False, True):
        before, began = surroundings.host_state(), time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if is_last or surroundings.host_state() == before or not any(report.failed for report in reports):
            break
        surroundings.wait_for_host(min(time.monotonic() - began, 10))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(autouse=True)
def _dpkg_at_rest() -> None:
    """If the host's own package database is read: wait until dpkg has finished."""
    if _FROZEN not in os.environ:
        surroundings.wait_for_rest()


@pytest.fixture(autouse=True)
def _as_a_new_process() -> Iterator[None]:
    """Undo what the command line does in a process that ends soon, and a test does in one that goes on."""
    yield
    gc.enable()
    surroundings.restore_signals()


@pytest.fixture(scope="session")
def base_manifest() -> Manifest:
    """The shipped whitelist `base` on this host, without digests."""
    return resolve(["base"], hashed=False)


@pytest.fixture(scope="session")
def spack_manifest() -> Manifest:
    """The shipped whitelist `spack` less `docs` on this host, without digests."""
    return resolve(["spack"], ["docs"], hashed=False)


class Caller:
    """Runs `python -m pkgjail …` and other programs as one user."""

    def __init__(self, uid: int, home: Path, library: Path, cache: Path) -> None:
        self.uid = uid
        self.groups: tuple[int, ...] = ()  # supplementary ones, if it is another user
        self.home = home
        self._environment = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(library),
            "XDG_CACHE_HOME": str(cache),
            "XDG_RUNTIME_DIR": f"{os.environ['XDG_RUNTIME_DIR']}/{uid}",
            "PKGJAIL_SHARED_DIR": os.environ["PKGJAIL_SHARED_DIR"],
        }

    def run(
        self, command: Sequence[str | Path], *, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this user's home, its output captured as text."""
        return subprocess.run(command, **self.options(environment, **options), check=False)

    def pkgjail(
        self, *arguments: str | Path, environment: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m pkgjail` with these arguments."""
        return self.run([SYSTEM_PYTHON, "-m", "pkgjail", *arguments], environment=environment, **options)

    def options(self, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        """Return the arguments with which `subprocess` runs a program as this user."""
        if self.uid != os.geteuid():
            options.update(user=self.uid, group=self.uid, extra_groups=self.groups)
        given = {"cwd": self.home, "capture_output": True, "text": True, "errors": "surrogateescape"}
        return {**given, "env": {**self._environment, **(environment or {})}, **options}


@pytest.fixture(scope="session")
def library() -> Iterator[Path]:
    """A copy of pkgjail and of what it imports that every user may read, wherever the clone is."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-library-") as made:
        place = Path(made)
        place.chmod(0o755)
        ignore = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(Path(pkgjail.__file__).parent, place / "pkgjail", ignore=ignore)
        for name in _IMPORTED:
            spec = find_spec(name)
            assert spec is not None
            assert spec.submodule_search_locations is not None, name
            shutil.copytree(spec.submodule_search_locations[0], place / name, ignore=ignore)
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)
        # Compiled once here, as the other users cannot.
        subprocess.run([SYSTEM_PYTHON, "-m", "compileall", "-q", place], check=True)
        yield place


def _caller(uid: int, library: Path) -> Iterator[Caller]:
    # One cache for all tests of a user, as for all jails of a user's.
    cache = library / f"cache-{uid}"
    run = Path(os.environ["XDG_RUNTIME_DIR"]) / str(uid)
    for directory in (cache, run):
        directory.mkdir(exist_ok=True)
        if uid != os.geteuid():
            os.chown(directory, uid, uid)
    with tempfile.TemporaryDirectory(prefix="pkgjail-home-") as made:
        if uid != os.geteuid():
            os.chown(made, uid, uid)
        yield Caller(uid, Path(made), library, cache)


@pytest.fixture(scope="session", autouse=True)
def _places_of_our_own() -> Iterator[None]:
    """Keep what the tests' jails leave apart from the user's own: layers in memory like those."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-run-", dir="/dev/shm") as made:
        Path(made).chmod(0o711)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", made)
            patch.setenv("XDG_CACHE_HOME", f"{made}/cache")
            Path(f"{made}/shared").mkdir()
            Path(f"{made}/shared").chmod(0o1777)
            patch.setenv("PKGJAIL_SHARED_DIR", f"{made}/shared")
            yield


@pytest.fixture(scope="module", autouse=True)
def _room_for_layers(_places_of_our_own: None) -> Iterator[None]:
    """Remove layers, each of thousands of names, when half of those that fit in memory are taken.

    Whoever needs one again makes it again.
    """
    yield
    place = Path(os.environ["XDG_RUNTIME_DIR"])
    room = os.statvfs(place)
    if 2 * room.f_ffree < room.f_files:
        for layers in (*place.glob("pkgjail/layers"), *place.glob("*/pkgjail/layers")):
            shutil.rmtree(layers, ignore_errors=True)


@pytest.fixture
def user(library: Path) -> Iterator[Caller]:
    """An ordinary user: another one where the tests run as root."""
    yield from _caller(os.geteuid() or NOBODY, library)


@pytest.fixture
def caller(library: Path) -> Iterator[Caller]:
    """Whoever runs the tests."""
    yield from _caller(os.geteuid(), library)


@pytest.fixture(params=["as root", "as an ordinary user"] if os.geteuid() == 0 else ["as an ordinary user"])
def anyone(request: pytest.FixtureRequest, library: Path) -> Iterator[Caller]:
    """Root (where the tests may) and an ordinary user in turn."""
    yield from _caller(0 if request.param == "as root" else os.geteuid() or NOBODY, library)


@pytest.fixture(scope="session")
def sudo() -> Iterator[str]:
    """A program that runs others as root for the user who starts it, as sudo(8); only root can make it."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-sudo-") as made:
        place = f"{made}/sudo"
        subprocess.run(["cc", "-o", place, Path(__file__).with_name("sudo.c")], check=True)
        Path(made).chmod(0o755)
        Path(place).chmod(0o4755)
        yield place


@pytest.fixture
def manifest_file(anyone: Caller, base_manifest: Manifest) -> Path:
    """Return the path of the manifest of `base`, which the user may read."""
    path = anyone.home / "m.jsonl"
    write_manifest(base_manifest, path)
    path.chmod(0o644)
    return path


@pytest.fixture
def member(library: Path) -> Iterator[Caller]:
    """An ordinary user who is not "nobody", whose id the kernel shows for all that it cannot map."""
    yield from _caller(os.geteuid() or NOBODY - 1, library)


@pytest.fixture
def neighbour(library: Path) -> Iterator[Caller]:
    """Another ordinary user than `user`, who has an entry in passwd(5), as Spack needs: daemon."""
    yield from _caller(os.geteuid() or 1, library)


def pytest_report_header() -> list[str]:
    """Say what the tests run on."""
    return [f"pkgjail {pkgjail.__version__} on Python {sys.version.split()[0]}, uid {os.geteuid()}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which Spack the tests of it ran against."""
    which = f"the real {SPACK_ROOT}" if SPACK_ROOT else "a stand-in, as PKGJAIL_SPACK_ROOT names none"
    terminalreporter.write_line(f"Spack: {which}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note whether a test failed."""
    session.config.stash[_FAILED] = session.testsfailed > 0
