"""Which changes of a host stop a jail: those of the manifest's entries, and no others.

A whole Debian is made and changed for real, with dpkg, useradd and mount, and jails are entered by two
ordinary users and by root: from a manifest, from an environment, and by Spack.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import TOP
from tests.host.changes import CHANGES
from tests.spack.interpreter import declared_entry_points

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTS = """\
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . mnt
cd /
umount -l /mnt
shift
exec "$@"
"""
_ENTER_HOST = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", _MOUNTS, "sh")
_DRIVER = ("env", "PYTHONPATH=/library", "/usr/bin/python3", "/library/tests/host/driver.py")


@pytest.fixture
def host(library: Path) -> Iterator[Path]:
    """The root of a Debian with Python and pkgjail in it."""
    made = Path(f"/var/tmp/pkgjail-host-{os.getpid()}")
    made.mkdir(mode=0o755)
    try:
        subprocess.run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=apt",
                "--include=python3,mount",
                "--quiet",
                "bookworm",
                made,
            ],
            check=True,
        )
        shutil.copytree(library, made / "library", symlinks=True)
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("host", "spack"):
            shutil.copytree(TOP / "tests" / name, made / "library/tests" / name, ignore=ignore)
        (made / "library/tests/__init__.py").touch()
        yield made
    finally:
        shutil.rmtree(made)


@pytest.mark.long
def test_entries_of_the_manifest_stop_a_jail_and_nothing_else_does(host: Path) -> None:
    """Protects both ways: a change that must be noticed, and users who are locked out for nothing."""
    done = subprocess.run(
        [*_ENTER_HOST, host, *_DRIVER, "/library", json.dumps(declared_entry_points())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3 * 3 * (2 + 2 * len(CHANGES))
    assert [_wrong(row) for row in rows if _wrong(row)] == []


def _wrong(row: dict[str, object]) -> str:
    """Describe what is wrong with the outcome of one entry; "" if nothing is."""
    change = CHANGES[int(str(row["number"]))]
    stops = change.stops and row["state"] == "done"
    right = change.why in str(row["message"]) and row["status"] != 0 if stops else (row["status"] == 0)
    what = "nothing" if row["number"] == -1 else change.do
    return (
        ""
        if right
        else f"{row['state']} {what}: {row['user']}, {row['way']}: {row['status']} {row['message']}"
    )
