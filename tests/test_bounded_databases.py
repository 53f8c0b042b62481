"""Databases of a root that somebody else made: no file makes us wait, or read outside of the root."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.bounded import REFUSED, SECRET, within_bounds
from tests.debian_roots import USABLE, make_root
from tests.real_roots import copy_of
from tests.test_layout import unmeasured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DPKG, LOCAL, RPMDB = "var/lib/dpkg", "var/lib/pacman/local", "var/lib/rpm/rpmdb.sqlite"
RELEASE = "etc/os-release"
DEBIAN = (
    RELEASE, f"{DPKG}/status", f"{DPKG}/diversions", f"{DPKG}/info/format", f"{DPKG}/info/dpkg.list",
    f"{DPKG}/info/both:amd64.list", f"{DPKG}/info/dpkg.md5sums", f"{DPKG}/alternatives/awk",
)  # fmt: skip
PACMAN = (
    RELEASE, "etc/pacman.conf", f"{LOCAL}/ALPM_DB_VERSION", f"{LOCAL}/*/desc", f"{LOCAL}/*/files",
    f"{LOCAL}/*/mtree",
)  # fmt: skip
RPM = (
    RELEASE, "etc/dnf/protected.d/x.conf", RPMDB, f"{RPMDB}-wal", "var/lib/rpm/.rpm.lock",
    "var/lib/alternatives/x",
)  # fmt: skip


def a_debian_root(place: Path) -> Path:
    awk = "auto\n/usr/bin/awk\n\n/usr/bin/mawk\n5\n\n"
    files = {
        "etc/os-release": "ID=debian\n",
        "usr/lib/os-release": "ID=debian\n",
        "var/lib/dpkg/info/dpkg.list": "/.\n/usr\n",
        "var/lib/dpkg/info/dpkg.md5sums": "0  usr/x\n",
        "var/lib/dpkg/info/both:amd64.list": "/.\n",
        "var/lib/dpkg/diversions": "",
        "var/lib/dpkg/alternatives/awk": awk,
    }
    make_root(place / "root", "both 1 amd64; Multi-Arch: same", files=files)
    return place / "root"


def an_rpm_root(place: Path) -> Path:
    root = copy_of("rpm", place)
    (root / "etc/dnf/protected.d").mkdir(parents=True, exist_ok=True)
    return root


def a_pacman_root(place: Path) -> Path:
    return copy_of("pacman", place)


CASES = [
    *(pytest.param(a_debian_root, DEBIAN, name, id=name) for name in ("apt", "dpkg") if name in USABLE),
    pytest.param(a_pacman_root, PACMAN, "pacman", id="pacman"),
    pytest.param(an_rpm_root, RPM, "rpm", id="rpm"),
]
# Of these the databases need none, so that what leads to nothing is as if it were not there.
OPTIONAL = ("os-release", "diversions", "md5sums", "pacman.conf", "mtree", "-wal", ".rpm.lock")


@pytest.mark.parametrize(("make", "files", "backend"), CASES)
def test_no_kind_of_file_hangs_a_database(
    make: Callable[[Path], Path], files: tuple[str, ...], backend: str, tmp_path: Path
) -> None:
    """Protects every file of a database from a FIFO, devices, holes, links and more in its place.

    Each is refused by its name within ten seconds and 1 GiB, and nothing outside of the root is read.
    """
    root = make(tmp_path / "outer")
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n" * 3)
    (root.parent / "secret").write_text(f"{SECRET}\n" * 3)
    names = [str(next(root.glob(file), root / file).relative_to(root)) for file in files]
    environment = {**unmeasured(), "BACKEND": backend, "SECRET": str(secret), "TMPDIR": str(tmp_path)}
    command: list[str | Path] = [sys.executable, "-m", "tests.bounded", root, *names]
    done = within_bounds(command, seconds=100, env=environment, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert SECRET not in done.stdout
    *outcomes, last = map(json.loads, done.stdout.splitlines())
    assert last[2].startswith("read: "), last
    tried = set()
    for file, kind, outcome in outcomes:
        tried.add(file)
        if outcome == "cannot be made":
            assert os.geteuid() != 0
        elif (file.rpartition("/")[2], kind) == (".rpm.lock", "sparse"):
            assert outcome == last[2]  # whose content is not read
        elif kind in REFUSED:
            assert outcome.startswith("refused: cannot read the package database of "), (file, kind, outcome)
            assert f"/{file}" in outcome or kind == "directory", (file, kind, outcome)
            assert REFUSED[kind][1] in outcome or kind in {"directory", "loop"}, (file, kind, outcome)
        elif "link" in kind and file.endswith(OPTIONAL):
            assert outcome == last[2], (file, kind, outcome)
        elif "link" in kind:
            assert outcome.startswith("refused: "), (file, kind, outcome)
    assert tried == set(names)
    assert [name for name in os.listdir(tmp_path) if name.startswith("pkgjail-rpm-")] == []
