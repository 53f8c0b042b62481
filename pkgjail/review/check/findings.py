"""The results of `check`: gaps of a file set, and findings, which add who is responsible."""

from __future__ import annotations

from typing import Literal

from pkgjail.core.model import record

FindingKind = Literal["library", "interpreter", "link", "compiler", "module", "unreadable", "damaged"]
"""The kind of thing that is lacking, or why a file could not be examined."""


@record
class Gap:
    """Something that a file of the set needs and that the set lacks, before attribution.

    `path` is the file, `wanted` what it needs, and `cause` says what needs it and where it was searched for.
    `candidates` are the paths at which it would be found; any one of them is enough. An `optional` gap makes
    a note instead of a finding. One that is `only_if_attributed` makes a finding if a package of the set has
    what is wanted or a rule dropped it, a note if another package of the host has it, and is otherwise
    ignored. One that is `optional_if_outside` makes a note if a package of the set has the file, and another
    package or none has what is wanted: the relations of the file's package do not require it.
    """

    path: bytes
    kind: FindingKind
    wanted: bytes
    cause: str
    candidates: tuple[bytes, ...]
    optional: bool = False
    only_if_attributed: bool = False
    optional_if_outside: bool = False


@record
class Finding:
    """A gap of the set: the file, what it lacks and why, who is responsible, and the fix.

    `owners` are the file's packages, by key. `responsible` is the blacklist's rule (`docs.ignore:4:
    /usr/share/doc/`) that dropped what is lacking, or the key of the package that has it on the host, or "".
    """

    path: bytes
    kind: FindingKind
    wanted: bytes
    cause: str
    owners: tuple[str, ...]
    responsible: str
    fix: str


@record
class Check:
    """The result of a check. The set is closed if `findings` is empty; `notes` are optional needs.

    `objects`, `scripts` and `links` are how many of each were examined.
    """

    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    objects: int
    scripts: int
    links: int
