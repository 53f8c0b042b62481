"""The likely cause why names of a manifest are missing on a host, for messages to begin with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.errors import DatabaseError
from pkgjail.core.model import text_path
from pkgjail.core.text import MOST_SHOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.core.model import Distribution, FileEntry, Manifest

# What package managers call the machines of uname(2), with those whose programs they run too.
_ARCHITECTURES = {
    "aarch64": {"aarch64", "arm64", "armhf"},
    "armv7l": {"armel", "armhf", "armv7h", "armv7hl"},
    "i686": {"i386", "i586", "i686"},
    "ppc64le": {"ppc64el", "ppc64le"},
    "riscv64": {"riscv64"},
    "s390x": {"s390x"},
    "x86_64": {"amd64", "i386", "i686", "x86_64"},
}


def absent_names(entries: Iterable[FileEntry], root: bytes) -> tuple[bytes, ...]:
    """The paths of those `entries` that are not below `root`."""
    prefix = root.rstrip(b"/")
    return tuple(entry.path for entry in entries if not os.path.lexists(prefix + entry.path))


def explain_absence(manifest: Manifest, root: bytes, absent: int, looked: int) -> str:
    """The likely cause why `absent` of `looked` names are not below `root`, and what to do.

    "" where the root is of the manifest's distribution and architecture and most are there, or few are not:
    then it is each name that counts.
    """
    if not absent:
        return ""
    here = _name(root)
    reasons = _reasons(manifest, root)
    if not reasons and absent > MOST_SHOWN and absent * 2 >= looked:
        reasons = ["the manifest was probably made from another root"]
    if not reasons:
        return ""
    return (
        f"{absent:,} of {looked:,} names are not on {here}: {', and '.join(reasons)}; "
        "name the root that it was made from with --root, or make it again"
    )


def other_origin(manifest: Manifest, root: bytes) -> str:
    """How the root differs from the system that the manifest was made on, or for; "" where it does not."""
    return ", and ".join(_reasons(manifest, root))


def _name(root: bytes) -> str:
    return "this host" if root == b"/" else text_path(root)


def _reasons(manifest: Manifest, root: bytes) -> list[str]:
    return [*_other_distribution(manifest, root, _name(root)), *_other_machine(manifest, root)]


def _other_distribution(manifest: Manifest, root: bytes, here: str) -> list[str]:
    # Heavy, and wanted only where something is amiss.
    from pkgjail.backends.release import read_distribution
    from pkgjail.backends.root import Root

    try:
        found = read_distribution(Root(root))
    except DatabaseError:
        return []
    made = manifest.header.distribution
    if found == made:
        return []
    return [f"the manifest was made on {_told(made)}, and {here} is {_told(found)}"]


def _other_machine(manifest: Manifest, root: bytes) -> list[str]:
    """Of a tree nobody knows for which machine it is."""
    machine = os.uname().machine
    made = manifest.header.architecture
    if root != b"/" or made in _ARCHITECTURES.get(machine, {made}):
        return []
    return [f"the manifest was made for {made}, and this host is {machine}"]


def _told(distribution: Distribution) -> str:
    return f"{distribution.id} {distribution.version}".strip()
