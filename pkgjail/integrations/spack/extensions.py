"""The folders from which Spack loads the commands `spack jail` and `spack isolate`."""

from __future__ import annotations

import os

_EXTENSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "extension")


def extension_paths(root: str | None = None) -> list[str]:
    """Return the folders of `spack jail` and, unless the Spack in `root` has its own, of `spack isolate`."""
    paths = [os.path.join(_EXTENSIONS, "spack-jail")]
    if root is None or not has_isolate(root):
        paths.append(os.path.join(_EXTENSIONS, "spack-isolate"))
    return paths


def has_isolate(root: str) -> bool:
    """Check whether Spack has its own command `isolate`, as since 1.2; it precedes extensions."""
    return os.path.exists(os.path.join(root, "lib", "spack", "spack", "cmd", "isolate.py"))


def has_sandbox(root: str) -> bool:
    """Check whether Spack has a sandbox for builds, `config:sandbox`, as since 1.2."""
    return os.path.exists(os.path.join(root, "lib", "spack", "spack", "sandbox.py"))
