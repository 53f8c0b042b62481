"""Which changes of a host stop a jail: those of the manifest's entries, and no others.

A whole Debian is made and changed for real, with dpkg, useradd and mount, and jails are entered by two
ordinary users and by root: from a manifest, from an environment, and by Spack.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host.changes import CHANGES
from tests.host.roots import make_host, run_python
from tests.spack.interpreter import declared_entry_points

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def host(library: Path) -> Iterator[Path]:
    """The root of a Debian with Python and pkgjail in it."""
    made = Path(f"/var/tmp/pkgjail-host-{os.getpid()}")
    made.mkdir(mode=0o755)
    try:
        make_host(made, (), library)
        yield made
    finally:
        shutil.rmtree(made)


@pytest.mark.long
def test_entries_of_the_manifest_stop_a_jail_and_nothing_else_does(host: Path) -> None:
    """Protects both ways: a change that must be noticed, and users who are locked out for nothing."""
    driver = "/library/tests/host/driver.py"
    done = run_python(host, driver, "/library", json.dumps(declared_entry_points()))
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
