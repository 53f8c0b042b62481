"""Ways out of a jail, tried from inside by a real program: none may succeed.

The attempts are in `tests/escapes`, a module for each kind, and the expected refusals in `expected.txt`. An
attempt that works on an open host is run there too, so that a refusal inside is due to the jail and not to
a mistake in the attempt.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOBODY, SYSTEM_PYTHON, Caller
from tests.service import VARIABLE, running_service

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.gate

_HERE = Path(__file__).parent / "escapes"
# What the jail shares with the host unless it is told not to; docs/security.md says so.
_NETWORK = {
    "abstract socket",
    "TCP on localhost",
    "vsock",
    "vsock to the hypervisor",
    "vsock by a 32-bit call",
    "sockets of no namespace",
}


# What root in a jail may do with ids, with `--map-root`; docs/security.md says so, too.
_ROOT_MAY = {
    "bounding set",
    "root by exec",
    "setuid",
    "setresuid to root",
    "setgid",
    "setgroups",
    "setfsuid",
}


# Under supervision, without an effect: no_new_privs keeps what is in the bounding set from being gained, and
# Landlock keeps SIGIO from being sent.
_HARMLESS = {"bounding set", "owner of a descriptor"}


@pytest.fixture
def site() -> Iterator[Path]:
    """A directory of the manifest that every user may write to; not in /tmp, which the jail mounts itself."""
    with tempfile.TemporaryDirectory(prefix="pkgjail-site-", dir="/var/tmp") as made:
        place = Path(made)
        place.chmod(0o777)
        (place / "first").write_text("first")
        yield place


def _prepare(caller: Caller) -> dict[str, Any]:
    """Prepare what only root can set up for another user. An ordinary user does without."""
    bind = caller.home / "bind"
    for place in (bind, caller.home / "secret"):
        place.mkdir()
        place.chmod(0o777)
    shutil.copytree(
        _HERE, caller.home / "attempts" / "tests" / "escapes", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy("/usr/bin/id", bind / "hosts-setuid")
    if os.geteuid() != 0:
        return {"other": 0, "roots": "/etc/shadow"}
    other = 0 if caller.uid else NOBODY
    (bind / "others").write_text("another user's")
    os.mknod(bind / "hosts-device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name, mode in (("hosts-setuid", 0o6755), ("others", 0o600), ("hosts-device", 0o666)):
        os.chown(bind / name, other, other)
        (bind / name).chmod(mode)
    return {"other": other, "roots": str(bind / "others")}


def _manifest(caller: Caller, site: Path) -> Path:
    """Return `spack` less `docs`, with a directory to which the host adds a name during the run."""
    (caller.home / "site.toml").write_text(f'include = ["spack"]\n[files]\ninclude = ["{site}/**"]\n')
    options = ("--blacklist", "docs", "-o", "site.jsonl", "--no-hash")
    made = caller.pkgjail("resolve", "./site.toml", *options)
    assert made.returncode == 0, made.stderr
    return caller.home / "site.jsonl"


def _neighbour(manifest: Path) -> str:
    """Return a program of the host that is not in the manifest."""
    records = map(json.loads, manifest.read_text().splitlines())
    listed = {record["path"] for record in records if record["kind"] == "file"}
    return next(place for place in sorted(map(str, Path("/usr/bin").iterdir())) if place not in listed)


def _run_attempts(caller: Caller, site: Path, *options: str) -> dict[str, Any]:
    """Run all attempts by one user in one jail; return their results and their targets."""
    prepared = _prepare(caller)
    manifest = _manifest(caller, site)
    prepared.update(late=str(site / "late"), neighbour=_neighbour(manifest))
    (caller.home / "prepared.json").write_text(json.dumps(prepared))
    result = caller.home / "result.json"
    path = f"{caller._environment['PYTHONPATH']}:{caller.home}/attempts"
    program = (SYSTEM_PYTHON, "-m", "tests.escapes.outside", caller.home, manifest, result)
    ran = caller.run([*program, *options], environment={"PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    report: dict[str, Any] = json.loads(result.read_text())
    assert report["status"] == 0, report["said"]
    return report


def _expected(name: str = "expected.txt") -> dict[str, set[str]]:
    lines = (_HERE / name).read_text().splitlines()
    rows = (line.split(" | ") for line in lines if not line.startswith("#"))
    return {name: {"ENOSYS", *refusals.split(" / ")} for name, refusals in rows}


def _row(name: str, tries: str, success: str, got: str) -> str:
    return f"{name}: tried to {tries}; success is {success}; expected refused: {_expected()[name]}; got {got}"


def _refute(report: dict[str, Any], may: set[str], also: dict[str, set[str]] | None = None) -> None:
    """Check that each attempt was refused as expected, but those that `may` succeed, and changed nothing.

    `also` has further refusals that are right.
    """
    expected = {name: refusals | (also or {}).get(name, set()) for name, refusals in _expected().items()}
    wrong = [
        _row(name, tries, success, f"{outcome}: {detail}")
        for name, tries, success, outcome, detail in report["inside"]
        if (outcome != "refused" or detail not in expected[name])
        and not (outcome == "SUCCEEDED" and name in may)
    ]
    assert not wrong, "\n".join(wrong)
    assert {row[0] for row in report["inside"]} == set(expected)
    assert len(expected) >= 100
    assert report["after"] == report["before"]
    # Without these the refusals above would say nothing. ENOSYS: this kernel has no such thing.
    works = {name: detail for name, _, _, outcome, detail in report["outside"] if outcome != "SUCCEEDED"}
    assert set(works.values()) <= {"ENOSYS"}, works
    assert len(report["outside"]) >= 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be asked to make the jail")
@pytest.mark.parametrize("network", [pytest.param(False, id="no network"), pytest.param(True, id="network")])
def test_no_attempt_succeeds_in_a_jail_that_root_made(
    anyone: Caller, site: Path, sudo: str, monkeypatch: pytest.MonkeyPatch, *, network: bool
) -> None:
    """A jail without a user namespace refuses the same, to the user who asked root for it and to root."""
    if anyone.uid:
        monkeypatch.setitem(anyone._environment, "AROUND", sudo)
    report = _run_attempts(anyone, site, "--stage", "root", *(() if network else ("--no-network",)))
    # The namespace that these attempts begin with is refused already.
    nested = {name: {"EPERM"} for name in _expected() if name.startswith("nested: ")}
    _refute(report, _NETWORK if network else set(), nested)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start pkgjaild")
def test_no_attempt_succeeds_in_a_jail_of_pkgjaild(
    user: Caller, library: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A jail that the service made refuses what the default one does."""
    with running_service(library) as service:
        monkeypatch.setitem(user._environment, VARIABLE, service.socket)
        report = _run_attempts(user, site, "--stage", "helper", "--no-network")
    nested = {name: {"EPERM"} for name in _expected() if name.startswith("nested: ")}
    _refute(report, set(), nested)


@pytest.mark.parametrize("network", [pytest.param(False, id="no network"), pytest.param(True, id="network")])
def test_no_attempt_succeeds_under_supervision(anyone: Caller, site: Path, *, network: bool) -> None:
    """Without namespaces, all but what the stage does not promise is refused, too."""
    report = _run_attempts(anyone, site, "--stage", "supervised", *(() if network else ("--no-network",)))
    _refute(report, (_NETWORK if network else set()) | _HARMLESS, _expected("supervised.txt"))


@pytest.mark.parametrize(
    ("plan", "network"),
    [
        pytest.param("tree", False, id="an overlay a directory, no network"),
        pytest.param("mask", False, id="an overlay that hides names, no network"),
        pytest.param("binds", True, id="a bind a file, the host's network"),
        pytest.param("root", False, id="root in the jail"),
    ],
)
def test_no_attempt_succeeds(anyone: Caller, site: Path, plan: str, *, network: bool) -> None:
    """Each attempt is refused as expected, and its target is unchanged."""
    plans = ("--map-root",) if plan == "root" else ("--strategy", plan)
    options = (*plans, *(() if network else ("--no-network",)))
    report = _run_attempts(anyone, site, *options)
    shared = (_NETWORK if network else set()) | (_ROOT_MAY if plan == "root" else set())
    _refute(report, shared)
