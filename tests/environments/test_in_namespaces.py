"""Mounts in an environment, and full filesystems.

Each test runs the command in its own user and mount namespace, as root and as an ordinary user.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest
from tests.test_exactness import manifest_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Caller

NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec")
REMOVE = "status=0; /usr/bin/python3 -m pkgjail remove env || status=$?; exit $status"


@pytest.fixture
def home(anyone: Caller, host: bytes) -> Path:
    """Return a home with an environment, and with a directory that has a file."""
    write_manifest(manifest_of(host), anyone.home / "m.jsonl")
    (anyone.home / "m.jsonl").chmod(0o644)
    built = anyone.pkgjail("build", "--copy", "--root", os.fsdecode(host), "m.jsonl", "env")
    assert built.returncode == 0, built.stderr
    (anyone.home / "precious").mkdir()
    (anyone.home / "precious" / "letter").write_text("dear")
    return anyone.home


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        pytest.param(
            "mount --bind precious env/root/usr/empty",
            "something is mounted at {home}/env/root/usr/empty; unmount it",
            id="a bind on a directory of the tree",
        ),
        pytest.param(
            "mount --bind precious/letter env/root/zero",
            "something is mounted at {home}/env/root/zero; unmount it",
            id="a bind on a file of the tree",
        ),
        pytest.param(
            "mount --bind precious/letter env/environment.jsonl",
            "cannot read this record",
            id="a bind on the record",
        ),
        pytest.param(
            "mount --bind env/root env/root",
            "something is mounted at {home}/env/root; unmount it",
            id="a bind of the tree on itself, as fstab's lines make it",
        ),
        pytest.param(
            "mount --bind env env", "{home}/env: it is a mount point; unmount it", id="a bind on all of it"
        ),
        pytest.param(
            "mount -t tmpfs tmpfs env/root/usr",
            "mounted at {home}/env/root/usr; unmount it",
            id="a filesystem",
        ),
        pytest.param(
            "mkdir env/root/usr/a\\ b; mount --bind precious env/root/usr/a\\ b",
            "something is mounted at {home}/env/root/usr/a b; unmount it",
            id="a bind on a name with a blank",
        ),
    ],
)
def test_nothing_is_removed_below_a_mount(anyone: Caller, home: Path, mount: str, message: str) -> None:
    """Neither what is mounted nor what the mount hides is removed, and the message names the mount point."""
    ran = anyone.run([*NAMESPACES, f"{mount}; {REMOVE}"])
    assert ran.returncode in {1, 2}, ran.stderr
    assert message.format(home=os.path.realpath(home)) in ran.stderr
    assert (home / "precious" / "letter").read_text() == "dear"
    assert (home / "env" / "root" / "usr" / "bin" / "a").read_text() == "alpha"


def test_an_environment_with_a_mount_below_is_not_entered(anyone: Caller, home: Path) -> None:
    """A jail made from its tree would show what is mounted."""
    script = "mount --bind precious env/root/usr/empty; exec /usr/bin/python3 -m pkgjail enter env -- a"
    ran = anyone.run([*NAMESPACES, script])
    assert ran.returncode == 125
    assert "root/usr/empty is a mount point" in ran.stderr
    assert home.is_dir()


@pytest.mark.parametrize("form", ["--copy", "--fstab"])
@pytest.mark.parametrize("room", [f"nr_inodes={n}" for n in (2, 3, 4, 6, 9, 14)] + ["size=4k", "size=8k"])
def test_a_full_filesystem_leaves_nothing(
    anyone: Caller, home: Path, form: str, room: str, host: bytes
) -> None:
    """The filesystem is real, and full at different points of the build; the message says so."""
    script = (
        f"mkdir small; mount -t tmpfs -o {room} tmpfs small; status=0; "
        f'/usr/bin/python3 -m pkgjail build {form} --root "$1" m.jsonl small/env || status=$?; '
        "ls -A small; exit $status"
    )
    ran = anyone.run([*NAMESPACES, script, "sh", os.fsdecode(host)])
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    assert "No space left on device; nothing of it is left; make room" in ran.stderr
    assert (home / "small").is_dir()
