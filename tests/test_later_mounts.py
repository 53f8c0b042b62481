"""Mounts that the host makes while a jail runs: writable binds show them, and nothing else does."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pkgjail.core.options import UserBind
from pkgjail.jails.automounts import automount_warnings
from pkgjail.manifest import write_manifest
from pkgjail.storage import mounts
from tests.conftest import SYSTEM_PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller

# Runs a jail in a mount namespace of its own, and mounts while the command waits for its standard input.
_DRIVER = """
import os, subprocess, sys
top, *words = sys.argv[1:]
def mount(place):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0777", "late", place], check=True)
    open(f"{place}/file", "w").close()
mount(f"{top}/rw/early")
jail = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert jail.stdout.readline() == "ready\\n"
for place in ("rw/late", "ro/late", "beside", "rw/project", "/usr/share/base-files"):
    mount(os.path.join(top, place))
subprocess.run(["umount", f"{top}/rw/early"], check=True)
print(jail.communicate("go\\n")[0], end="")
print("outside:", *sorted(os.listdir(f"{top}/rw/late")), *os.listdir(f"{top}/ro/late"))
sys.exit(jail.returncode)
"""
_INSIDE = """
echo ready; read go; cd "$1"
for each in rw/late ro/late rw/early; do echo $each: $(ls $each); done
test -e beside || echo nothing beside
test "$(ls /usr/share/base-files | wc -l)" -gt 1 && echo the set
echo x > rw/late/written
{ echo x > rw/project/m.jsonl; mv rw/project rw/moved; } 2>/dev/null || echo protected
grep -c " $1/ro ro,nosuid,nodev,.* - " /proc/self/mountinfo
exit 6
"""
_SHOWN = """\
rw/late: file
ro/late:
rw/early:
nothing beside
the set
protected
1
outside: file written file
"""


@pytest.fixture
def top(anyone: Caller, base_manifest: Manifest) -> Path:
    """Return a directory of the user's, with a manifest in a part of it that will be bound writable."""
    directory = anyone.home / "top"
    for name in ("rw/late", "rw/early", "rw/project", "ro/late", "beside"):
        (directory / name).mkdir(parents=True)
    write_manifest(base_manifest, directory / "rw" / "project" / "m.jsonl")
    (directory / "rw" / "project" / "m.jsonl").chmod(0o644)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, anyone.uid, anyone.uid)
    return directory


@pytest.mark.parametrize("plan", ["auto", "whole", "binds"])
def test_a_writable_bind_shows_what_is_mounted_later(anyone: Caller, top: Path, plan: str) -> None:
    """And no longer what is unmounted. A read-only bind shows neither, and no other part of the jail does.

    What is protected in the bind stays protected. The mount namespace is the test's own, and shared.
    """
    namespaces = ["unshare", "--mount", "--propagation", "shared"]
    if anyone.uid:
        namespaces.append("--map-root-user")
    options = ["--strategy", plan, "--bind", f"{top}/rw", "--ro-bind", f"{top}/ro"]
    pkgjail = [SYSTEM_PYTHON, "-m", "pkgjail", "run", *options]
    command = ["--", "sh", "-c", _INSIDE, "sh", str(top)]
    done = anyone.run(
        [*namespaces, SYSTEM_PYTHON, "-c", _DRIVER, top, *pkgjail,
         top / "rw" / "project" / "m.jsonl", *command]
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (6, _SHOWN), done.stderr


_TABLE = b"""\
21 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
30 21 0:40 / /cvmfs rw,relatime shared:5 - autofs /etc/auto.cvmfs rw,fd=6,pgrp=9,timeout=300,indirect
31 21 0:41 / /private rw,relatime - autofs /etc/auto.private rw,fd=6,pgrp=9,timeout=300,indirect
32 21 0:42 / /data/direct\\040x rw,relatime master:7 - autofs systemd-1 rw,fd=6,pgrp=9,timeout=0,direct
33 30 0:43 / /cvmfs/atlas rw,relatime shared:8 - fuse cvmfs2 ro,user_id=0
"""


@pytest.mark.parametrize(
    ("path", "writable", "text"),
    [
        ("/cvmfs", True, ""),
        ("/cvmfs", False, "mounts at /cvmfs from now on, because it is read-only; .* bind it writable"),
        ("/cvmfs/atlas", False, ""),
        ("/private", True, "because the mount there is private .* as root: mount --make-rshared /"),
        ("/data/direct x", False, ""),  # mounted at entry
        ("/data", False, "mounts at /data/direct x from now on, because it is read-only"),
        ("/dat", False, ""),
        ("/data", True, ""),
    ],
)
def test_a_bind_that_shows_no_later_mounts_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, *, writable: bool, text: str
) -> None:
    """Only if there is an automounter: otherwise nothing is expected to come."""
    (tmp_path / "mountinfo").write_bytes(_TABLE)
    table = str(tmp_path / "mountinfo")
    automounts = mounts.automounts_below
    monkeypatch.setattr("pkgjail.jails.automounts.automounts_below", lambda place: automounts(place, table))
    bind = UserBind(source=path.encode(), destination=b"/srv", writable=writable)
    found = list(automount_warnings([bind, replace(bind, source=b"/elsewhere")]))
    assert len(found) == bool(text)
    assert all(re.search(text, message) for message in found), found
