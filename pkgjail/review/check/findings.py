"""What the parts of a check find: something that a file of the set wants and does not get."""

from __future__ import annotations

from typing import Literal

from pkgjail.core.model import record

FindingKind = Literal["library", "interpreter", "link", "compiler", "module", "unreadable", "damaged"]
"""What is lacking, or why a file could not be looked at."""


@record
class Want:
    """`path` is the file that wants `wanted`, and `cause` says by what and where it was looked for.

    `places` are where it would be found; any of them would do. One that is `optional` makes a
    note, no finding. With `of_the_set` it makes a finding where a package of the set has what is wanted, or
    a rule took it away, a note where another package of the host has it, and nothing else.
    """

    path: bytes
    kind: FindingKind
    wanted: bytes
    cause: str
    places: tuple[bytes, ...]
    optional: bool = False
    of_the_set: bool = False


@record
class Finding:
    """A hole of the set: the file, what it lacks and why, who is responsible, and the way out.

    `owners` are the packages of the file, by key. `responsible` is the blacklist's rule (`docs.ignore:4:
    /usr/share/doc/`) that took away what is lacking, or the key of the package that has it on the
    host, or else "".
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
    """What a check found. The set is closed where `findings` is empty; `notes` are what may be wanted.

    `objects`, `scripts` and `links` say how many of each were looked at.
    """

    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    objects: int
    scripts: int
    links: int
