"""What a verification finds."""

from __future__ import annotations

from typing import Literal

from pkgjail.core.model import record

Aspect = Literal["missing", "kind", "mode", "target", "content", "package", "extra"]
"""In what a name is not as the manifest says: see `Difference`."""


@record
class Difference:
    """One way in which a name is not as the manifest says.

    With "package" it is as the manifest says, and not as its package's record does. `detail` says what
    was found, for people. `owners` are packages by key: the manifest's, for an extra name the host's.
    `witness` is what the package manager says of it, "" where it says nothing. An extra one may be merely
    `beside` the set, as every host has such: see `extras.find_extras`.
    """

    path: bytes
    what: Aspect
    detail: str
    owners: tuple[str, ...] = ()
    witness: str = ""
    beside: bool = False


@record
class Verification:
    """All differences; the tree is as the manifest says where `differences` and `extras` are empty.

    `beside` are names that may have been there all the time. `unread` are files whose content was not
    compared: no digest in the manifest, or not readable for whoever verifies.
    `names` says how many names were looked at, `hashed` how many files were read.
    """

    differences: tuple[Difference, ...]
    extras: tuple[Difference, ...]
    beside: tuple[Difference, ...]
    unread: tuple[bytes, ...]
    names: int
    hashed: int

    @property
    def holds(self) -> bool:
        """Whether the tree is as the manifest says."""
        return not self.differences and not self.extras
