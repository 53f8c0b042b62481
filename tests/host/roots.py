"""A whole Debian as a host of its own: made with mmdebstrap, and entered with its own mounts, as root."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import TOP

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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
_PYTHON = (
    "env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH=/library",
    "/usr/bin/python3",
)  # fmt: skip
_ENTER = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", _MOUNTS, "sh")


def make_host(place: Path, packages: Iterable[str], library: Path) -> None:
    """Make a Debian 12 with these packages in the empty directory `place`. /library has pkgjail and tests."""
    include = f"--include={','.join(sorted({'python3', 'mount', *packages}))}"
    subprocess.run(
        ["mmdebstrap", "--mode=root", "--variant=apt", include, "--quiet", "bookworm", place], check=True
    )
    shutil.copytree(library, place / "library", symlinks=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("host", "spack"):
        shutil.copytree(TOP / "tests" / name, place / "library/tests" / name, ignore=ignore)
    (place / "library/tests/__init__.py").touch()


def run_python(place: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the host's Python, which finds /library, as root with no other variable than root has."""
    command = [*_ENTER, place, *_PYTHON, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
