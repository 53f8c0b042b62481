"""What a command in a jail has as outside: its umask, the path it came by, and mounts that come later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pkgjail.manifest import write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from pkgjail.core.model import Manifest
    from tests.conftest import Caller


@pytest.fixture
def manifest_file(anyone: Caller, base_manifest: Manifest) -> Path:
    """Return the path of the manifest of `base`, which the user may read."""
    path = anyone.home / "m.jsonl"
    write_manifest(base_manifest, path)
    path.chmod(0o644)
    return path


@pytest.fixture
def work(anyone: Caller) -> Path:
    """Return a directory of the user's."""
    directory = anyone.home / "work"
    directory.mkdir()
    os.chown(directory, anyone.uid, anyone.uid)
    return directory


# --- umask --------------------------------------------------------------------------------------

# What the jail itself makes: directories, files that are made at entry, mount points and devices.
_MADE = (
    "/ /bin /etc /etc/passwd /etc/ld.so.cache /tmp /var /var/tmp /srv /dev /dev/null /dev/shm /dev/pts /proc"
)


@pytest.mark.parametrize("umask", [0o002, 0o077])
@pytest.mark.parametrize(
    "way", [pytest.param((), id="its descriptors"), pytest.param(("--tty",), id="a terminal")]
)
def test_a_command_has_the_umask_of_its_caller(
    anyone: Caller, manifest_file: Path, work: Path, umask: int, way: tuple[str, ...]
) -> None:
    """In the first entry and in a replay; what the jail itself makes has the same modes with each umask."""
    script = f"umask; : > /srv/file && mkdir /srv/directory; stat -c %n=%a {_MADE}"
    words: list[str | Path] = ["run", *way, "--bind", f"{work}:/srv", manifest_file, "--", "sh", "-c", script]
    shown = []
    for mask in (0o022, umask, umask):
        ran = anyone.pkgjail(*words, umask=mask)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        used, *modes = ran.stdout.split()
        assert int(used, 8) == mask
        assert (work / "file").stat().st_mode & 0o777 == 0o666 & ~mask
        assert (work / "directory").stat().st_mode & 0o777 == 0o777 & ~mask
        (work / "file").unlink()
        (work / "directory").rmdir()
        shown.append(modes)
    assert "/etc/passwd=644" in shown[0]
    assert shown[1:] == shown[:1] * 2


def test_a_command_in_an_environment_has_the_umask_of_its_caller(anyone: Caller, manifest_file: Path) -> None:
    """Not that of the build, with which the environment's own files are made."""
    built = anyone.pkgjail("build", manifest_file, "env", umask=0o022)
    assert built.returncode == 0, built.stderr
    for umask in ("0007", "0077"):
        ran = anyone.pkgjail("enter", "env", "--", "sh", "-c", "umask", umask=int(umask, 8))
        assert (ran.returncode, ran.stdout.split()) == (0, [umask]), ran.stderr
