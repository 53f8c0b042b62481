"""Kernels of the distribution for tests that boot one, downloaded and not installed."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from pathlib import Path

CLOUD, FULL = "linux-image-cloud-amd64", "linux-image-amd64"
"""Debian's packages: the first has no 9p and is small, the second has all modules."""


@functools.cache
def kernel(name: str = CLOUD) -> Path:
    """Return a directory with boot/ and lib/modules/ of the kernel that a package depends on."""
    place = Path(tempfile.mkdtemp(prefix="kernel-"))
    place.chmod(0o755)
    said = subprocess.run(["apt-cache", "depends", name], check=True, capture_output=True, text=True).stdout
    package = re.findall(r"Depends: (linux-image-\S+)", said)[0]
    subprocess.run(["apt-get", "download", "-q", package], cwd=place, check=True, capture_output=True)
    file = next(place.glob("linux-image-*.deb"))
    subprocess.run(["dpkg-deb", "--extract", file, place], check=True)
    file.unlink()
    return place
