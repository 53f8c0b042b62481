"""The result of a verification."""

from __future__ import annotations

from typing import Literal

from pkgjail.core.model import record

DifferenceKind = Literal["missing", "kind", "mode", "target", "content", "package", "extra"]
"""The ways in which a name may differ from the manifest: see `Difference`."""


@record
class Difference:
    """One way in which a name differs from the manifest.

    `what` is "package" for a file that matches the manifest but not its package's record. `detail` describes
    what was found, for people. `owners` are packages by key: the manifest's, or for an extra name the host's.
    `package_note` is what the package manager's record says about the file and its package, or "". An extra
    name that may be older than the manifest is `uncounted`.
    """

    path: bytes
    what: DifferenceKind
    detail: str
    owners: tuple[str, ...] = ()
    package_note: str = ""
    uncounted: bool = False


@record
class Verification:
    """All differences; the tree matches the manifest if `differences` and `extras` are empty.

    `uncounted` are extra names that may be older than the manifest. `unread` are files whose content was not
    compared, because the manifest has no digest or the caller may not read them. `names` is how many names
    were compared, `hashed` how many files were read.
    """

    differences: tuple[Difference, ...]
    extras: tuple[Difference, ...]
    uncounted: tuple[Difference, ...]
    unread: tuple[bytes, ...]
    names: int
    hashed: int

    @property
    def matches(self) -> bool:
        """Return whether the tree matches the manifest."""
        return not self.differences and not self.extras
