"""The likely cause if many names of a manifest are missing on a host: it was made on another system."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.architectures import host_architecture, is_host_word, known_architecture, runs_natively
from pkgjail.core.errors import DatabaseError
from pkgjail.core.parameters import parameter
from pkgjail.core.text import MOST_SHOWN, text_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pkgjail.core.model import Distribution, FileEntry, Manifest


def absent_paths(entries: Iterable[FileEntry], root: bytes) -> tuple[bytes, ...]:
    """Return the paths of the entries that are missing below `root`."""
    prefix = root.rstrip(b"/")
    return tuple(entry.path for entry in entries if not os.path.lexists(prefix + entry.path))


def explain_absence(manifest: Manifest, root: bytes, absent: int, checked: int) -> str:
    """Return the likely cause why `absent` of the `checked` names are missing below `root`, and what to do.

    It is "" if the root has the manifest's distribution and architecture and has most names, or lacks few:
    then each name has a cause of its own.
    """
    if not absent:
        return ""
    reasons = _reasons(manifest, root)
    if not reasons and absent > MOST_SHOWN and absent * 2 >= checked:
        reasons = ["the manifest was probably made from another root"]
    if not reasons:
        return ""
    return (
        f"{absent:,} of {checked:,} names are not on {_name(root)}: {', and '.join(reasons)}; "
        f"name the root that it was made from with {parameter('root')}, or make it again"
    )


def describe_mismatch(manifest: Manifest, root: bytes) -> str:
    """Describe how the root differs from the system that the manifest was made on; "" if it does not."""
    return ", and ".join(_reasons(manifest, root))


def _name(root: bytes) -> str:
    return "this host" if root == b"/" else text_path(root)


def _reasons(manifest: Manifest, root: bytes) -> list[str]:
    return [*_other_distribution(manifest, root, _name(root)), *_other_machine(manifest, root)]


def _other_distribution(manifest: Manifest, root: bytes, here: str) -> list[str]:
    # Slow to import, and needed only if names are missing.
    from pkgjail.backends.release import read_distribution
    from pkgjail.backends.root import Root

    try:
        found = read_distribution(Root(root))
    except DatabaseError:
        return []
    made = manifest.header.distribution
    if (found.id, found.version) == (made.id, made.version):
        return []
    return [f"the manifest was made on {_version(made)}, and {here} is {_version(found)}"]


def _other_machine(manifest: Manifest, root: bytes) -> list[str]:
    """Compare the architecture with this host's. That of another root is not known."""
    made = manifest.header.architecture
    if root != b"/" or is_host_word(made) or host_architecture() is None:
        return []
    known = known_architecture(made)
    if known is not None and runs_natively(known):
        return []
    return [f"the manifest was made for {made}, and this host is {os.uname().machine}"]


def _version(distribution: Distribution) -> str:
    return f"{distribution.id} {distribution.version}".strip()
