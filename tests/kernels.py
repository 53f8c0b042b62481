"""Kernels of the distribution for tests that boot one, downloaded and not installed."""

from __future__ import annotations

import functools
import os
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


@functools.cache
def kernel_of(architecture: str) -> Path:
    """Return the package of a small kernel of an architecture, in Debian's word, by lists of its own."""
    place = Path(tempfile.mkdtemp(prefix="kernel-"))
    place.chmod(0o755)
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::State": place / "state",
        "Dir::State::status": os.devnull,
        "Dir::Cache": place / "cache",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    for each in ("state/lists/partial", "cache/archives/partial"):
        (place / each).mkdir(parents=True)
    subprocess.run(["apt-get", *options, "-q", "update"], check=True, capture_output=True)
    depends = ["apt-cache", *options, "depends", f"linux-image-cloud-{architecture}"]
    said = subprocess.run(depends, check=True, capture_output=True, text=True).stdout
    package = re.findall(r"Depends: (linux-image-[^\s:]+)", said)[0]
    subprocess.run(
        ["apt-get", *options, "download", "-q", package], cwd=place, check=True, capture_output=True
    )
    return next(place.glob("linux-image-*.deb"))
